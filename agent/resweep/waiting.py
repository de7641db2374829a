"""Waiting that a signal handler may interrupt, and wait for the same."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 0.01  # seconds between two looks


def wait_for(condition: Callable[[], bool], timeout: float) -> bool:
    """Wait until `condition` holds, at most `timeout` seconds; whether it does.

    ``Event.wait`` and ``Event.set`` take a lock that is not reentrant: a signal handler that interrupted one of them at
    the wrong moment would wait for ever. This takes none.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(PAUSE, left))
    return True
