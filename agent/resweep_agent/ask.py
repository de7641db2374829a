"""Asking the search for new runs. The only module of the agent that knows the search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_scheduler.config import SweepConfig
from resweep_scheduler.store.records import NewRun, Offer, SearchRecord

LARGEST_BATCH = 16
"""Runs in one offer at most, when many agents ask at once."""


class Asker:
    """Computes offers for one sweep. All slots of an agent share it; the main thread owns it.

    A search that needs no history is asked ahead, while runs execute: then a claim carries the next runs with it. Each
    time that other agents were faster the offers get longer, so that many agents settle to asking rarely.

    Args:
        sweep_id: Run ids follow from it and from the index.
        config: Of the sweep.
        read_runs: Reads what the search must know of earlier runs; called only for searches that need it.
        next_index: Where the search goes on, as far as known.
    """

    def __init__(
        self,
        sweep_id: str,
        config: SweepConfig,
        *,
        read_runs: Callable[[], Sequence[SearchRecord]],
        next_index: int = 0,
    ) -> None:
        from resweep_scheduler.search import SearchError, create_search

        self._sweep_id = sweep_id
        self._read_runs = read_runs
        self._next_index = next_index
        self._offer: Offer | None = None
        self._ready = 0
        self._batch = 1
        self._salts: dict[int, int] = {}
        try:
            self._search = create_search(config)
        except SearchError as error:
            raise AgentError(str(error), ExitCode.USAGE) from None

    def learn(self, next_index: int, ready: int = 0) -> None:
        """Take in where the search goes on and how many suggested runs wait, as every answer to a claim says."""
        self._next_index = next_index
        self._ready = ready
        if self._search.needs_runs:
            self._offer = None  # by the next claim there may be more to learn from

    @property
    def offer(self) -> Offer | None:
        """What was computed ahead, None if it no longer fits or is not needed."""
        if self._ready or (self._offer is not None and self._offer.first_index != self._next_index):
            return None
        return self._offer

    def prepare(self) -> None:
        """Compute the next offer ahead, if that needs no history."""
        if not self._search.needs_runs and not self._ready and self.offer is None:
            self._offer = self._compute()

    def ask(self) -> None:
        """The store has no run and wants an offer: compute one with what is known now.

        Raises:
            AgentError: The search cannot propose anything.
            StoreError: The earlier runs cannot be read.
        """
        if self._offer is not None and not self._search.needs_runs:
            self._batch = min(LARGEST_BATCH, self._batch * 2)
        self._offer = self._compute()

    def rename(self, run_id: str) -> None:
        """A run id of the offer belongs to another run: offer the same points under other ids."""
        for run in self._offer.runs if self._offer is not None else ():
            if run.run_id == run_id:
                self._salts[run.index] = self._salts.get(run.index, 0) + 1
        self._offer = self._compute()

    def _compute(self) -> Offer:
        from resweep_scheduler.search import PastRun, SearchError, run_id_for

        first = self._next_index
        past = []
        if self._search.needs_runs:
            past = [
                PastRun(
                    index=record.index,
                    params=dict(record.params),
                    state=record.state.value,
                    value=record.metric,
                    last=record.last,
                    values=record.values,
                    stopped=record.stopped,
                )
                for record in self._read_runs()
            ]
        try:
            points = self._search.suggest(first_index=first, count=self._batch, runs=past)
        except SearchError as error:
            raise AgentError(str(error), ExitCode.UNEXPECTED) from None
        runs = tuple(
            NewRun(run_id_for(self._sweep_id, index, self._salts.get(index, 0)), index, params)
            for index, params in enumerate(points, first)
        )
        size = self._search.size
        exhausted = len(points) < self._batch or (size is not None and first + len(points) >= size)
        return Offer(first, runs, exhausted)
