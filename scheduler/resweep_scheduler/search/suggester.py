"""From a search to offers that the store takes: run ids, the end of the search, and what is known of earlier runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search import create_search
from resweep_scheduler.search.base import PastRun
from resweep_scheduler.search.identity import run_id_for
from resweep_scheduler.search.source import NO_SOURCES, Sources
from resweep_scheduler.store.errors import RunIdTakenError
from resweep_scheduler.store.records import NewRun, Offer, SearchRecord

LIGHT_METHODS = ("grid", "random")
"""Methods that need no earlier runs, and no libraries that are heavy to load: every agent asks for itself."""
HOLD = 3.0
"""Seconds for which one's asking keeps others from it, at least; three times what the search needed, if more."""
LONGEST_HOLD = 60.0
LARGEST_ANSWER = 64
"""Runs that are suggested at once, at most, for all that wait."""
RENAMES = 32
"""An offer whose run ids are taken is made that often under other ids."""


class Suggester:
    """Computes offers for one sweep. Belongs to one thread; stays useful as long as the sweep's config is the same.

    Args:
        sweep_id: Run ids follow from it and from the index.
        config: Of the sweep.
        read_runs: What is known of earlier runs, now; called only when the search needs it. Records that did not
            change should be the same objects as before.
        sources: The files of users that may be executed here.

    Raises:
        SearchError: The config asks for what the search cannot do.
    """

    def __init__(
        self,
        sweep_id: str,
        config: SweepConfig,
        *,
        read_runs: Callable[[], Sequence[SearchRecord]],
        sources: Sources = NO_SOURCES,
    ) -> None:
        self._sweep_id = sweep_id
        self._read_runs = read_runs
        self._search = create_search(config, sources, sweep_id)
        self._past: dict[int, tuple[SearchRecord, PastRun]] = {}
        self._salts: dict[int, int] = {}
        self.hold = HOLD
        """Seconds for which the next asking should keep others from it."""

    @property
    def needs_runs(self) -> bool:
        """Whether earlier runs make a difference."""
        return self._search.needs_runs

    def compute(self, first_index: int, count: int, *, asker: str = "") -> Offer:
        """The offer of `count` runs from `first_index` on.

        Raises:
            SearchError: Nothing can be proposed.
            StoreError: The earlier runs cannot be read.
        """
        runs = self._past_runs() if self._search.needs_runs else []
        points = self._search.suggest(first_index=first_index, count=count, runs=runs)
        size = self._search.size
        exhausted = len(points) < count or (size is not None and first_index + len(points) >= size)
        new = tuple(
            NewRun(run_id_for(self._sweep_id, index, self._salts.get(index, 0)), index, params)
            for index, params in enumerate(points, first_index)
        )
        return Offer(first_index, new, exhausted, asker)

    def rename(self, offer: Offer, run_id: str) -> Offer:
        """The same points, where another id takes the place of one that belongs to another run."""
        for run in offer.runs:
            if run.run_id == run_id:
                self._salts[run.index] = self._salts.get(run.index, 0) + 1
        renamed = tuple(
            NewRun(run_id_for(self._sweep_id, run.index, self._salts.get(run.index, 0)), run.index, run.params)
            for run in offer.runs
        )
        return Offer(offer.first_index, renamed, offer.exhausted, offer.asker)

    def supply(
        self,
        add_runs: Callable[[Offer], int],
        first_index: int,
        count: int,
        *,
        asker: str,
        clock: Callable[[], float],
    ) -> int:
        """Compute an offer for those who wait and give it to the store; returns how many runs it has.

        Raises:
            SearchError: Nothing can be proposed.
            StoreError: The earlier runs cannot be read, or the store does not take the offer.
        """
        started = clock()
        offer = self.compute(first_index, min(count, LARGEST_ANSWER), asker=asker)
        self.deliver(add_runs, offer)
        self.hold = min(LONGEST_HOLD, max(HOLD, 3 * (clock() - started)))
        return len(offer.runs)

    def deliver(self, add_runs: Callable[[Offer], int], offer: Offer) -> int:
        """Give the store an offer, under other run ids where they are taken; returns the next index.

        Raises:
            StoreError: The store does not answer, or refuses.
        """
        for _ in range(RENAMES):
            try:
                return add_runs(offer)
            except RunIdTakenError as error:
                offer = self.rename(offer, error.run_id)
        return add_runs(offer)

    def _past_runs(self) -> list[PastRun]:
        records = self._read_runs()
        past: dict[int, tuple[SearchRecord, PastRun]] = {}
        for record in records:
            known = self._past.get(record.index)
            past[record.index] = known if known is not None and known[0] is record else (record, _past_run(record))
        self._past = past
        return [run for _, run in past.values()]


def _past_run(record: SearchRecord) -> PastRun:
    return PastRun(
        index=record.index,
        params=dict(record.params),
        state=record.state.value,
        value=record.metric,
        last=record.last,
        values=record.values,
        stopped=record.stopped,
    )
