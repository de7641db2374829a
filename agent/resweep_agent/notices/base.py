"""What every source of notices keeps to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """This machine will be taken away."""

    source: str  # for people: "SIGTERM", "spot interruption", …
    deadline: float | None = None  # when, on the monotonic clock; None if the source does not say


class NoticeSource(Protocol):
    """Something that may bring a notice.

    `start` and `stop` are called once, from the main thread. A source that needs a thread owns it; `poll` is called
    from the main thread after each wake-up and must not block.
    """

    def start(self, wake_descriptor: int) -> None:
        """Begin to listen; a byte written to `wake_descriptor` makes the agent poll."""

    def poll(self) -> Notice | None:
        """Return the notice if one came, the same one each time."""

    def stop(self) -> None:
        """End listening and undo what `start` did."""
