"""What a run needs of the place where its checkpoints are, be it a folder or an object store."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from resweep.errors import UsageError

if TYPE_CHECKING:
    from resweep.answers import Ticket
    from resweep.offline import Channel
    from resweep_scheduler.store import Checkpoint

Name = TypeVar("Name")


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint on this machine."""

    path: Path  # of the file or folder
    step: int | None
    attempt: int


class Saving:
    """A checkpoint on its way, as ``save_checkpoint(…, wait=False)`` returns it.

    Attributes:
        path: Where it is on this machine: the copy in the checkpoint folder, else what was given.
        step: The step that it completes.
        error: Why it was not saved; empty otherwise.
    """

    def __init__(self, path: Path, step: int | None) -> None:
        self.path = path
        self.step = step
        self.error = ""
        self._ticket: Ticket | None = None
        self._handed_over = threading.Event()

    @property
    def committed(self) -> bool | None:
        """True when it is the one to go on from; False when it never will be; None while that is open."""
        if self.error:
            return False
        return None if self._ticket is None else self._ticket.granted

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is settled, at most `timeout` seconds; whether it is committed."""
        begun = time.monotonic()
        if self._handed_over.wait(timeout) and self._ticket is not None:
            self._ticket.wait(None if timeout is None else max(0.0, timeout - (time.monotonic() - begun)))
        return self.committed is True

    def handed_over(self, ticket: Ticket) -> None:
        """All of it is where it belongs, and Redis is asked to name it."""
        self._ticket = ticket
        self._handed_over.set()

    def failed(self, why: str) -> None:
        """It will not be saved."""
        self.error = why
        self._handed_over.set()

    def wait_for_transfer(self, timeout: float) -> bool:
        """Wait until it has left this machine, or will not; False when that takes longer than `timeout` seconds."""
        return self._handed_over.wait(timeout)

    def __repr__(self) -> str:
        state = {True: "committed", False: self.error or "refused", None: "on its way"}[self.committed]
        return f"<checkpoint of step {self.step}: {state}>"


class Checkpoints(Protocol):
    """The checkpoints of one run, as one attempt saves and restores them."""

    def begin(self, channel: Channel, committed: Checkpoint | None) -> None:
        """Connect it to what commits, and say which checkpoint was committed last, before ``init``."""

    def save(self, source: Path, step: int | None, metadata: dict[str, Any], *, wait: bool) -> Saving:
        """Save a file or folder as it is now, and have it committed; with `wait` when that is done.

        Raises:
            UsageError: There is nothing at `source`.
            OSError: It cannot be read, or copied on this machine.
        """

    def restore(self) -> Found | None:
        """The checkpoint to go on from, on this machine; None when there is none.

        Raises:
            CommError: The object store cannot be reached.
        """

    def is_there(self, path: str) -> bool:
        """Whether a checkpoint that waits for its commit still counts; newer ones may have taken its place.

        When it does, Redis is asked next, and may name it though no answer comes: it stays until `committed` is told
        of it or of a newer one.
        """

    def committed(self, path: str, kept: Sequence[str]) -> None:
        """Told by the thread that sends: `path` is the one to go on from, and only what is in `kept` is needed."""

    def finish(self, timeout: float) -> None:
        """Wait for what is on its way, at most `timeout` seconds, and clear away what only this attempt needed."""


def existing(source: Path) -> Path:
    """The absolute path of what is to be saved.

    Raises:
        UsageError: There is nothing.
    """
    source = source.resolve()
    if not source.exists():
        raise UsageError(f"save_checkpoint copies a file or a folder, and {source} does not exist; save it there first")
    return source


def superseded(waiting: Sequence[Name], keep: int, tried: Set[Name]) -> list[Name]:
    """During a long outage only the newest that wait are worth their room; which of them, oldest first, are not.

    What Redis was asked to name is not among them: it may be the one that the next attempt goes on from.
    """
    return [one for one in waiting[:-keep] if one not in tried]


def folder_name(step: int | None, attempt: int) -> str:
    """What the folder of a checkpoint is called, but for what makes it unique."""
    return f"step-{'none' if step is None else step}-attempt-{attempt}"
