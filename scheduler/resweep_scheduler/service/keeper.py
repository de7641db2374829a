"""Keeps one sweep supplied with suggested runs, ahead of its agents as far as it must.

How far ahead: a suggestion that is computed before it is needed cannot know the results that come in between, so the
fewer wait, the better the search; but a claim that finds none waits for the search. With one agent nothing is computed
ahead: each suggestion knows every result. With several, one run waits; whenever agents find none although one had been
waiting, twice as many do from then on, up to the number of agents; after a minute without that, one fewer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.search.source import NO_SOURCES, Sources
from resweep_scheduler.search.suggester import Suggester
from resweep_scheduler.store import AskOutcome, Demand, Store
from resweep_scheduler.store.search_history import SearchHistory

CALM = 60.0
"""Seconds without a claim that had to wait, after which one run fewer is kept ready."""


class Keeper:
    """One sweep of a service. Its methods may be called by any thread, one works at a time.

    Args:
        store: Of the project.
        sweep_id: The sweep.
        config: Of the sweep; the search must be one that is asked by `Keeper`s.
        session: Of the service.
        ahead: How many runs are kept ready; None decides by itself, see above.
        sources: The files of users that may be executed here.

    Raises:
        SearchError: The config asks for what the search cannot do.
    """

    def __init__(
        self,
        store: Store,
        sweep_id: str,
        config: SweepConfig,
        *,
        session: str,
        ahead: int | None = None,
        sources: Sources = NO_SOURCES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._sweep_id = sweep_id
        self._session = session
        self._fixed = ahead
        self._clock = clock
        self._suggester = Suggester(sweep_id, config, read_runs=SearchHistory(store, sweep_id).refresh, sources=sources)
        self._lock = threading.Lock()
        self._ahead = 1
        self._had_ready = False
        self._calm_since = clock()

    def ahead_of(self, demand: Demand) -> int:
        """How many runs are to be ready besides those for agents that wait."""
        if self._fixed is not None:
            return self._fixed
        return 0 if demand.agents <= 1 else min(self._ahead, demand.agents)

    def supply(self, *, seen_since: int) -> int:
        """Suggest what is missing; returns how many runs were suggested.

        Args:
            seen_since: See `Store.demand`.

        Raises:
            SearchError: The search cannot propose anything.
            StoreError: Redis does not answer, or refuses, or has no such sweep.
        """
        with self._lock:  # the demand belongs inside: what another thread has supplied is not missing any more
            demand = self._store.demand(self._sweep_id, seen_since=seen_since)
            return self._supply(demand) if demand.is_open else 0

    def _supply(self, demand: Demand) -> int:
        self._adapt(demand)
        # Those who wait come first; what is to be ready for later is a question of its own.
        missing = max(0, demand.waiting - demand.ready) or self.ahead_of(demand) - max(0, demand.ready - demand.waiting)
        if demand.left is not None:
            missing = min(missing, demand.left)
        if missing <= 0:
            return 0
        begun = self._store.begin_asking(
            self._sweep_id, session=self._session, hold_ms=round(self._suggester.hold * 1000), service=True
        )
        if begun.outcome is not AskOutcome.ASK or begun.next_index != demand.next_index:
            return 0  # somebody else computes, or has done so since we looked
        return self._suggester.supply(
            lambda offer: self._store.add_runs(self._sweep_id, offer),
            begun.next_index,
            missing,
            asker=self._session,
            clock=self._clock,
        )

    def _adapt(self, demand: Demand) -> None:
        now = self._clock()
        if demand.ready > demand.waiting:
            self._had_ready = True
        elif demand.waiting and self._had_ready:
            self._ahead, self._had_ready, self._calm_since = min(2 * self._ahead, max(1, demand.agents)), False, now
        if now - self._calm_since >= CALM:
            self._ahead, self._calm_since = max(1, self._ahead - 1), now
