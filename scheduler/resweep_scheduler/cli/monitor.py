"""A sweep as it changes: `watch` and `start` ask it again and again what is new."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from resweep_scheduler.cli.access import config_of, planned_runs
from resweep_scheduler.cli.progress import Progress, measure
from resweep_scheduler.cli.render import best_of
from resweep_scheduler.store.errors import StoreRefusedError, StoreUnavailableError
from resweep_scheduler.store.states import RunState

if TYPE_CHECKING:
    from resweep_scheduler.store import Store
    from resweep_scheduler.store.records import AgentRecord, Event, Lease, Run


class Monitor:
    """Keeps a copy of a sweep's records and follows its events.

    Attributes:
        sweep, runs, agents, leases: The records as of the last `step`; `runs` by id, in the order of their creation.
        planned: How many runs the search will make; None for endless.
        now: Milliseconds since the epoch on the Redis clock, as of the last `step`.
        away: Why Redis could not be asked in the last `step`; None when it could.
    """

    def __init__(self, store: Store, sweep_id: str) -> None:
        """Read the whole sweep once; raises what the store raises."""
        self._store = store.patient(0)  # `step` is called again anyway, and a picture must not freeze
        self.now = self._store.redis_time()
        # Ids of events begin with the time of Redis: what happens from here on is read again at worst, never missed.
        self._after = f"{self.now - 1}-0"
        self.sweep = self._store.sweep(sweep_id)
        self.planned = planned_runs(config_of(self.sweep))
        self.runs: dict[str, Run] = {}
        self.agents: Sequence[AgentRecord] = ()
        self.leases: Sequence[Lease] = ()
        self.away: str | None = None
        self.runs = {run.run_id: run for run in self._store.runs(sweep_id)}
        self._read_others()

    def step(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for events, bring the records up to date, return the events.

        While Redis is away there are none, and `away` says why.
        """
        sweep_id = self.sweep.sweep_id
        try:
            events = self._store.events(sweep_id, after=self._after, count=1000, block_ms=max(1, round(timeout * 1000)))
            self.sweep = self._store.sweep(sweep_id)
            self._read_changed_runs(events)
            self._read_others()
        except (StoreUnavailableError, StoreRefusedError) as error:
            if isinstance(error, StoreRefusedError) and not error.temporary:
                raise
            self.away = str(error)
            time.sleep(timeout)
            return []
        self.away = None
        if events:
            self._after = events[-1].event_id
        return events

    def _read_changed_runs(self, events: Sequence[Event]) -> None:
        """Read the runs that events tell of, and those that log: not all, a sweep may have ten thousand."""
        told = [event.run_id for event in events if event.run_id]
        changed = list(dict.fromkeys((*told, *(run.run_id for run in self.owned()))))
        found = self._store.runs_by_id(changed)
        for run_id in changed:
            if run_id not in found:
                self.runs.pop(run_id, None)
        self.runs |= found

    def _read_others(self) -> None:
        self.agents = self._store.agents(self.sweep.sweep_id)
        self.leases = self._store.leases(self.sweep.sweep_id)
        self.now = self._store.redis_time()

    def owned(self) -> list[Run]:
        """Runs that an attempt owns, those that began first at the head."""
        runs = [run for run in self.runs.values() if run.state.is_owned]
        return sorted(runs, key=lambda run: run.started_at or 0)

    def best(self) -> Run | None:
        """The best run so far by the sweep's metric."""
        ordered = best_of(self.runs.values(), self.sweep.metric_goal) if self.sweep.metric_name else []
        return ordered[0] if ordered else None

    def progress(self) -> Progress:
        ends = [run.ended_at for run in self.runs.values() if run.ended_at and run.state.is_terminal]
        return measure(self.sweep.counts, self.planned, ends, self.now)

    def unsuccessful(self) -> int:
        """How many runs failed or crashed."""
        return sum(self.sweep.counts.get(state, 0) for state in (RunState.FAILED, RunState.CRASHED))
