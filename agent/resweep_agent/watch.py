"""One attempt from its launch to the end of its child: who asked it to end, and when patience is over."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from resweep_agent.launch import Child, Exit
from resweep_agent.output import OutputStream
from resweep_scheduler.store.records import ClaimedRun


@dataclass(slots=True, eq=False)
class Attempt:
    """A running attempt. All times are seconds on the agent's clock.

    Attributes:
        stopped: Why a person or the sweep wants it to end; empty otherwise.
        notice: The notice that made it end; empty otherwise.
        fenced: Its run belongs to another attempt: nothing is reported.
        kill_at: When SIGKILL follows the signal.
    """

    run: ClaimedRun
    child: Child
    output: OutputStream
    started: float
    stopped: str = ""
    notice: str = ""
    fenced: bool = False
    kill_at: float | None = None

    def stop(self, reason: str, grace: float, now: float) -> None:
        """A person or the sweep ends it: SIGTERM, and SIGKILL after `grace` seconds. Repeating changes nothing."""
        if self.stopped:
            return
        self.stopped = reason
        self._ask(signal.SIGTERM, now + grace)

    def give_notice(self, source: str, number: signal.Signals, kill_at: float) -> None:
        """Its machine goes: the signal of the config, and SIGKILL at `kill_at`."""
        if self.notice:
            return
        self.notice = source
        self._ask(number, kill_at)

    def fence(self) -> None:
        """It lost its run: it ends at once, and nobody is told."""
        self.fenced = True
        self.kill()

    def kill(self) -> None:
        """SIGKILL, now."""
        self.kill_at = None
        self.child.send(signal.SIGKILL)

    def step(self, now: float) -> Exit | None:
        """How the child ended, None while it runs. Sends SIGKILL when the time has come."""
        ended = self.child.poll()
        if ended is None and self.kill_at is not None and now >= self.kill_at:
            self.kill()
        return ended

    def _ask(self, number: signal.Signals, kill_at: float) -> None:
        self.child.send(number)
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
