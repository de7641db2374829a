"""One attempt from its launch to the end of its child: who asked it to end, and when patience is over."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass

from resweep_agent.launch import Child, Exit
from resweep_agent.output import OutputStream
from resweep_scheduler.store.records import ClaimedRun

SETTLING = 0.3
"""Seconds after a bad end in which a notice still explains it. What takes a machine away (SLURM, systemd, a shutdown)
signals all processes one by one: a script may be gone before its agent knows why."""


@dataclass(slots=True, eq=False)
class Attempt:
    """A running attempt. All times are seconds on the agent's clock.

    Attributes:
        stopped: Why a person or the sweep wants it to end; empty otherwise.
        notice: The notice that made it end; empty otherwise.
        fenced: Its run belongs to another attempt: nothing is reported.
        kill_at: When SIGKILL follows the signal.
        settles: Whether a notice that comes a moment after a bad end counts.
        settled_at: After the child's end: when its end is final.
    """

    run: ClaimedRun
    child: Child
    output: OutputStream
    started: float
    stopped: str = ""
    notice: str = ""
    fenced: bool = False
    kill_at: float | None = None
    settles: bool = False
    settled_at: float | None = None

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

    @property
    def due(self) -> float:
        """When `step` has something to do at the latest; infinity while only the child knows."""
        return min(self.kill_at or math.inf, self.settled_at or math.inf)

    def step(self, now: float) -> Exit | None:
        """How the child ended, None while it runs or its end is not final. Sends SIGKILL when the time has come."""
        ended = self.child.poll()
        if ended is None:
            if self.kill_at is not None and now >= self.kill_at:
                self.kill()
            return None
        if self.settled_at is None:
            self.settled_at = now + SETTLING if self.settles and ended.code != 0 else now
        explained = self.notice or self.stopped or self.fenced
        return ended if explained or now >= self.settled_at else None

    def _ask(self, number: signal.Signals, kill_at: float) -> None:
        if self.settled_at is None:
            self.child.send(number)
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)
