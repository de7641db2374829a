"""One attempt from its launch to the end of its child: who asked it to end, and when patience is over.

A signal that asks it to end goes to its process group (shells do not forward), and, found by the claim in their
environment, to the processes of its tree that left the group, as torchrun's workers do. A launcher that forwards it
makes it come twice, as SLURM does, too: handlers have to bear that.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass

from resweep_agent.guard_process import marked_processes
from resweep_agent.launch import Child, Exit
from resweep_agent.noticefile import NoticeFile
from resweep_agent.output import OutputStream
from resweep_scheduler.store.records import ClaimedRun

LINGER_POLL = 0.2
"""Seconds between two looks at the tree of a child that died of the signal."""
SETTLING = 0.3
"""Seconds after a bad end in which a notice still explains it. What takes a machine away (SLURM, systemd, a shutdown)
signals all processes one by one: a script may be gone before its agent knows why."""


@dataclass(slots=True, eq=False)
class Attempt:
    """A running attempt. All times are seconds on the agent's clock.

    Attributes:
        notice_file: Tells its processes what is asked of them.
        stopped: Why a person or the sweep wants it to end; empty otherwise.
        notice: The notice that made it end; empty otherwise.
        fenced: Its run belongs to another attempt: nothing is reported.
        kill_at: When SIGKILL follows the signal.
        settles: Whether a notice that comes a moment after a bad end counts.
        lingers: The child has ended, and its end is not final: a notice may explain it yet, or others of its tree use
            the time that they were given.
    """

    run: ClaimedRun
    child: Child
    output: OutputStream
    started: float
    notice_file: NoticeFile
    stopped: str = ""
    notice: str = ""
    fenced: bool = False
    kill_at: float | None = None
    settles: bool = False
    lingers: bool = False
    _settled_at: float | None = None
    _waited_for: bool = False  # its group is gone, and the number may be another's
    _sent: signal.Signals | None = None

    def stop(self, reason: str, grace: float, now: float) -> None:
        """A person or the sweep ends it: SIGTERM, and SIGKILL after `grace` seconds. Repeating changes nothing."""
        if self.stopped:
            return
        self.stopped = reason
        self.notice_file.write("stop", reason)
        self._ask(signal.SIGTERM, now + grace)

    def give_notice(self, source: str, number: signal.Signals | None, kill_at: float) -> None:
        """Its machine goes: the file, the signal unless the script looks at the file, and SIGKILL at `kill_at`.

        A later notice changes nothing, but that SIGKILL may come earlier.
        """
        if self.notice:
            self._ask(None, kill_at)
            return
        self.notice = source
        told = not self.stopped and self.notice_file.write("preempting", source) and self.notice_file.watched
        self._ask(None if told else number, kill_at)

    def fence(self) -> None:
        """It lost its run: it ends at once, and nobody is told."""
        self.fenced = True
        self.kill()

    def kill(self) -> None:
        """SIGKILL, now."""
        self.kill_at = None
        self.child.send(signal.SIGKILL)

    def due(self, now: float) -> float:
        """When to look at it again if nothing wakes the agent before."""
        kill_at = float("inf") if self.kill_at is None else self.kill_at
        if not self.lingers:
            return kill_at
        settled_at = self._settled_at or 0.0
        return min(kill_at, settled_at if settled_at > now else now + LINGER_POLL)

    def step(self, now: float) -> Exit | None:
        """How the child ended, None while it runs or `lingers`. Sends SIGKILL when the time has come."""
        ended = self.child.peek()
        self.lingers = ended is not None and (self._may_be_explained(ended, now) or self._rest_works(ended, now))
        if self.lingers:
            return None
        ended = self.child.poll()
        if ended is None:
            if self.kill_at is not None and now >= self.kill_at:
                self.kill()
            return None
        self._waited_for = True
        self.lingers = self._may_be_explained(ended, now)
        return None if self.lingers else ended

    def _ask(self, number: signal.Signals | None, kill_at: float) -> None:
        if number is not None and not self._waited_for:
            self._sent = number
            self.child.send(number)
            self._send_beyond_the_group(number)
        self.kill_at = kill_at if self.kill_at is None else min(self.kill_at, kill_at)

    def _may_be_explained(self, ended: Exit, now: float) -> bool:
        if not self.settles or ended.code == 0 or self.notice or self.stopped or self.fenced:
            return False
        if self._settled_at is None:
            self._settled_at = now + SETTLING
        return now < self._settled_at

    def _send_beyond_the_group(self, number: signal.Signals) -> None:
        for pid in marked_processes(self._claim):
            with contextlib.suppress(OSError):
                if os.getpgid(pid) != self.child.group:
                    os.kill(pid, number)

    def _rest_works(self, ended: Exit, now: float) -> bool:
        """A launcher or a shell that died of the signal must not take its workers along while they save."""
        if self._sent is None or self.kill_at is None or now >= self.kill_at:
            return False
        return ended.signal == self._sent and any(marked_processes(self._claim))

    @property
    def _claim(self) -> dict[bytes, bytes]:
        return {self.run.token.encode().encode(): self.run.token.run_id.encode()}
