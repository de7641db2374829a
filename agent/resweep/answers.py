"""What the store answers to the thread that sends, and that one to those who wait for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from resweep_scheduler.store import Hold


class FencedError(Exception):
    """The store does not take writes of this attempt any more."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(hold)
        self.hold = hold


class LapsedError(Exception):
    """The lease ran out, and the agent has not adopted the run yet."""


class Left(NamedTuple):
    """What `close` could not send, and left in the file."""

    rows: int = 0
    end: bool = False  # the run's end


class Ticket:
    """What somebody waits for.

    Attributes:
        granted: None while nobody knows, then the answer.
    """

    def __init__(self) -> None:
        self.granted: bool | None = None
        self._answered = threading.Event()

    def answer(self, granted: bool | None) -> None:
        self.granted = granted
        self._answered.set()

    def wait(self, timeout: float | None) -> bool:
        """True when it was granted within `timeout` seconds; None is for ever."""
        self._answered.wait(timeout)
        return self.granted is True
