"""Histories that were read a moment ago: clients ask for them page by page, and each page takes the whole history."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

from resweep_scheduler.store import ClaimToken, HistoryRow, Store

MOST_ROWS = 100_000
"""Rows that are kept, of all histories together; a longer history is read anew for each page."""


class Histories:
    """What is kept between two pages is a convenience: it is used while no row was added."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], tuple[ClaimToken, int, Sequence[HistoryRow]]] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, store: Store, run_id: str) -> Sequence[HistoryRow]:
        """The rows of a run by ascending step, as ``Store.history`` gives them; they are shared: do not change them."""
        seat = store.seat(run_id)
        if seat is None:
            return []
        place = (str(store.scope), run_id)
        with self._lock:
            token, seq, rows = self._kept.get(place, (None, 0, ()))
            if (token, seq) == (seat.token, seat.seq):
                self._kept.move_to_end(place)
                return rows
        # Looked at before the rows are: what is added meanwhile makes the next page read them again.
        found = store.history(run_id)
        with self._lock:
            self._kept.pop(place, None)
            self._kept[place] = (seat.token, seat.seq, found)
            while sum(len(rows) for _, _, rows in self._kept.values()) > MOST_ROWS:
                self._kept.popitem(last=False)
        return found
