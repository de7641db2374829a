"""Runs in the order in which a client began to page through them.

A page of runs chosen and ordered anew would repeat some and leave out others where runs began or ended since the page
before, and it would take all runs of the project to be read. So the first page keeps the ids of all, and the others
read their own runs only.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence

MOST_IDS = 200_000
"""Ids that are kept, of all listings together; what a gateway does not have is chosen and ordered again."""


class Listings:
    """What is kept for later pages, the ones used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Sequence[str]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, scope: str, run_ids: Sequence[str]) -> str:
        """Keep the ids of a project's runs; returns the name under which `find` gives them."""
        name = secrets.token_hex(6)
        with self._lock:
            self._kept[scope, name] = run_ids
            while sum(map(len, self._kept.values())) > MOST_IDS:
                self._kept.popitem(last=False)
        return name

    def find(self, scope: str, name: str) -> Sequence[str] | None:
        """The ids of this project that were kept under a name; None if they are not here (any more)."""
        with self._lock:
            found = self._kept.get((scope, name))
            if found is not None:
                self._kept.move_to_end((scope, name))
            return found
