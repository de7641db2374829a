"""The connection to Redis as people see it: lost once, back once; and how long to wait before the next try."""

from __future__ import annotations

import logging
import random
import threading

from resweep_agent.logs import event

_log = logging.getLogger(__name__)

SHORTEST_PAUSE = 0.05
LONGEST_PAUSE = 2.0


class Backoff:
    """Pauses between tries, in seconds: doubling, with jitter, at most `LONGEST_PAUSE`."""

    def __init__(self) -> None:
        self._pause = SHORTEST_PAUSE

    def next_pause(self) -> float:
        """The pause after one more failure."""
        pause = self._pause * random.uniform(0.5, 1.0)
        self._pause = min(LONGEST_PAUSE, self._pause * 2)
        return pause

    def reset(self) -> None:
        """A try worked."""
        self._pause = SHORTEST_PAUSE


class Link:
    """Whether Redis answers. Shared by the threads of the agent; each loss and each return is said once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._down_since: float | None = None

    @property
    def down_since(self) -> float | None:
        """When the first of the failures in a row happened, None while Redis answers."""
        return self._down_since

    def failed(self, error: Exception, now: float) -> None:
        """A call got no answer, or was refused for a while."""
        with self._lock:
            if self._down_since is not None:
                return
            self._down_since = now
        event(
            _log,
            logging.WARNING,
            "redis-away",
            error=error,
            next="what runs goes on; the agent keeps trying",
        )

    def worked(self, now: float) -> None:
        """A call was answered."""
        if self._down_since is None:
            return
        with self._lock:
            since, self._down_since = self._down_since, None
        if since is not None:
            event(_log, logging.WARNING, "redis-back", seconds=round(now - since, 1))
