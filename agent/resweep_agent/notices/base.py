"""What every source of notices keeps to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """This machine will be taken away.

    Attributes:
        source: Which source says so: "SIGTERM", "aws", "slurm", …
        deadline: When, on the monotonic clock; None if the source does not say.
        detail: What exactly was said, for people.
        hint: It may be taken away: this is told to people, and nothing else follows.
    """

    source: str
    deadline: float | None = None
    detail: str = ""
    hint: bool = False

    def __str__(self) -> str:
        return f"{self.source} {self.detail}" if self.detail else self.source


class NoticeSource(Protocol):
    """Something that may bring a notice.

    `start` and `stop` are called once, from the main thread; `stop` when what ran is on the run queue. A source that
    needs a thread owns it. `poll` and `preemptible` are asked from the main thread after each wake-up and must not
    block.
    """

    @property
    def preemptible(self) -> bool:
        """True once the source knows that this machine is one that may be taken away."""

    def start(self, wake_descriptor: int) -> None:
        """Begin to listen; a byte written to `wake_descriptor` makes the agent poll."""

    def poll(self) -> Notice | None:
        """Return the notice if one came, the same one each time; a hint is replaced by what follows it."""

    def stop(self) -> None:
        """End listening and undo what `start` did."""
