"""What the main loop works with, and how other threads reach it."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from resweep_agent.ask import Asker
from resweep_agent.environment import Surroundings
from resweep_agent.guard import Guard
from resweep_agent.heartbeat import Beat, Heart
from resweep_agent.identity import Identity
from resweep_agent.launch import Launcher
from resweep_agent.link import Link
from resweep_agent.notices import NoticeSource, SignalSource
from resweep_agent.options import Policy
from resweep_agent.output import OutputPump
from resweep_scheduler.store import Store


class Wakeup:
    """A pipe whose reading end the main loop watches."""

    def __init__(self) -> None:
        self.receiver, self.sender = os.pipe()
        os.set_blocking(self.receiver, False)
        os.set_blocking(self.sender, False)

    def wake(self) -> None:
        """From any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.sender, b"!")

    def clear(self) -> None:
        """What came has been seen."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.receiver, 65536)

    def close(self) -> None:
        """Close both ends."""
        os.close(self.receiver)
        os.close(self.sender)


class Inbox:
    """What the heartbeat thread tells the main thread."""

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._beats: deque[Beat] = deque()

    def post(self, beat: Beat) -> None:
        """From the heartbeat thread."""
        self._beats.append(beat)
        self._wakeup.wake()

    def take(self) -> list[Beat]:
        """Everything that came."""
        beats = []
        while self._beats:
            beats.append(self._beats.popleft())
        return beats


@dataclass(frozen=True, slots=True)
class Parts:
    """What the loop works with; `resweep_agent.assembly` puts it together."""

    store: Store
    sweep_id: str
    identity: Identity
    policy: Policy
    surroundings: Surroundings
    launcher: Launcher
    asker: Asker
    heart: Heart
    guard: Guard
    pump: OutputPump
    link: Link
    wakeup: Wakeup
    inbox: Inbox
    signals: SignalSource
    sources: Sequence[NoticeSource]
    count: int | None
    max_wait: float | None
