"""Children of an agent that are no processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from resweep_agent.exitcodes import AgentError
from resweep_agent.launch import Child, Exit, UnfitRunError
from resweep_scheduler.store import ClaimedRun


class FakeChild:
    """A child that ends when the test says so.

    Attributes:
        signals: What it was sent.
        ended: How it ended; set by the test, or by SIGKILL.
    """

    def __init__(self, group: int = 2**22 + 1) -> None:
        self._group = group
        self._output, self._sender = os.pipe()
        self._descriptor, self._end = os.pipe()
        self.signals: list[signal.Signals] = []
        self.ended: Exit | None = None

    @property
    def group(self) -> int:
        return self._group

    @property
    def output(self) -> int:
        return self._output

    def fileno(self) -> int:
        return self._descriptor

    def peek(self) -> Exit | None:
        return self.ended

    def poll(self) -> Exit | None:
        return self.ended

    def send(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL and self.ended is None:
            self.ended = Exit(None, signal.SIGKILL)

    def print(self, text: str) -> None:
        """Write to its output."""
        os.write(self._sender, text.encode())

    def close(self) -> None:
        for descriptor in (self._descriptor, self._end, self._sender):
            os.close(descriptor)


class FakeLauncher:
    """Hands out fake children and remembers them.

    Attributes:
        launched: Run and environment of each launch, in order.
        children: Its child.
        error: Raised by the launches that follow.
        unfit: Raised by the launch of a run whose parameter `a` has this value.
    """

    def __init__(self) -> None:
        self.launched: list[tuple[ClaimedRun, Mapping[str, str]]] = []
        self.children: list[FakeChild] = []
        self.error: AgentError | None = None
        self.unfit: object = None

    def check(self) -> None:
        """Nothing is missing."""

    def launch(self, run: ClaimedRun, environment: Mapping[str, str], attempt_directory: Path) -> Child:
        if self.error is not None:
            raise self.error
        if self.unfit is not None and run.params.get("a") == self.unfit:
            raise UnfitRunError("embedded null byte")
        self.launched.append((run, environment))
        self.children.append(FakeChild())
        return self.children[-1]

    def close(self) -> None:
        """Nothing is held."""
