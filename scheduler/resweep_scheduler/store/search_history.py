"""What the search must know of a sweep's runs, kept in memory and brought up to date by reading what changed."""

from __future__ import annotations

import time
from collections.abc import Callable

from resweep_scheduler.store.records import SearchRecord
from resweep_scheduler.store.store import Store

LATE_ROWS = 60.0
"""Seconds after the end of a run in which rows that were held up may still change its metric."""
FULL_READ = 600.0
"""Seconds after which everything is read again, whatever the events say."""
_EVENTS = 2000


class SearchHistory:
    """The records of one sweep's runs. Belongs to one thread.

    Reading a sweep of 10,000 runs takes a second; what changed since the last look takes a flight or two: the runs that
    the events name, and those whose metric changes without an event, because they are open or have ended just now.
    """

    def __init__(self, store: Store, sweep_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._sweep_id = sweep_id
        self._clock = clock
        self._records: dict[str, SearchRecord] = {}
        self._unsettled: dict[str, float] = {}  # run id → until when it is read each time
        self._cursor = ""
        self._read_at = float("-inf")

    def refresh(self) -> list[SearchRecord]:
        """All records as Redis has them now, in the order of their indices.

        Raises:
            StoreError: They cannot be read.
        """
        now = self._clock()
        if now - self._read_at >= FULL_READ or not self._goes_on():
            self._read_all(now)
        else:
            self._read_changes(now)
        return sorted(self._records.values(), key=lambda record: record.index)

    def _goes_on(self) -> bool:
        """Whether Redis still has the event that was read last: after a rollback it may not."""
        return bool(self._cursor) and self._store.has_event(self._sweep_id, self._cursor)

    def _read_all(self, now: float) -> None:
        # The cursor first: what happens while the runs are read is read again next time.
        cursor = self._store.last_event_id(self._sweep_id)
        self._records, self._unsettled = {}, {}
        self._take_in(self._store.search_run_ids(self._sweep_id), now)
        self._cursor, self._read_at = cursor, now

    def _read_changes(self, now: float) -> None:
        changed = dict.fromkeys(self._unsettled)
        cursor = self._cursor
        while True:
            events = self._store.events(self._sweep_id, after=cursor, count=_EVENTS)
            changed.update(dict.fromkeys(event.run_id for event in events if event.run_id is not None))
            if events:
                cursor = events[-1].event_id
            if len(events) < _EVENTS:
                break
        self._take_in(list(changed), now)
        self._cursor = cursor

    def _take_in(self, run_ids: list[str], now: float) -> None:
        found = self._store.search_records(self._sweep_id, run_ids)
        for run_id in run_ids:
            record, known = found.get(run_id), self._records.get(run_id)
            if record is None:
                self._records.pop(run_id, None)
                self._unsettled.pop(run_id, None)
                continue
            if record != known:
                self._records[run_id] = record  # what did not change stays the same object
            if not record.state.is_terminal:
                self._unsettled[run_id] = float("inf")
            elif known is None or not known.state.is_terminal or record != known:
                self._unsettled[run_id] = now + LATE_ROWS
            elif now >= self._unsettled.get(run_id, now):
                self._unsettled.pop(run_id, None)
