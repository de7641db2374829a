"""The agent's side of the guard: one helper process that ends the training processes when the agent cannot."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from resweep_agent.logs import event
from resweep_scheduler.store.records import ClaimToken

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Guarded:
    token: ClaimToken
    group: int | None = None


class Guard:
    """Tells the guard process what runs, and starts it again if it dies.

    Not thread-safe: the main thread owns it.
    """

    def __init__(self) -> None:
        self._guarded: dict[str, _Guarded] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1  # its end that we write to
        self._wanted = False
        self._failed = False

    @property
    def pid(self) -> int | None:
        """The process id of the guard, None while there is none."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the guard; it reads its input as soon as it is up, so nobody waits for it.

        What it must know lies in its pipe before it exists, so that we may die at any moment from its first one on.

        Raises:
            OSError: The machine can start no process now.
        """
        self._wanted = True
        program = Path(__file__).with_name("guard_process.py")
        receiver, self._pipe = os.pipe()
        try:
            os.set_blocking(self._pipe, False)
            known = "".join(_announcement(guarded) for guarded in self._guarded.values()).encode()
            told = os.write(self._pipe, known) if known else 0
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(program)],
                stdin=receiver,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        except OSError:
            os.close(self._pipe)
            raise
        finally:
            os.close(receiver)
        if told < len(known):  # more than a pipe holds: the guard makes room while it reads
            os.set_blocking(self._pipe, True)
            os.write(self._pipe, known[told:])
            os.set_blocking(self._pipe, False)

    def step(self) -> None:
        """Start the guard again if it died, and tell it everything again. What the machine refuses is tried again."""
        if self._process is not None and self._process.poll() is not None:
            event(_log, logging.WARNING, "guard-restarted", status=self._process.returncode)
            self._forget_process()
        if self._process is not None or not self._wanted:
            return
        try:
            self.start()
            self._failed = False
        except OSError as error:
            if not self._failed:
                event(_log, logging.WARNING, "guard-failed", error=error, next="what runs goes on; it is tried again")
            self._failed = True

    def expect(self, token: ClaimToken) -> None:
        """An attempt is about to be launched. Said before the spawn, so that there is no gap."""
        self._tell(_Guarded(token))

    def launched(self, token: ClaimToken, group: int) -> None:
        """The child of the attempt leads this process group."""
        self._tell(_Guarded(token, group))

    def ended(self, token: ClaimToken) -> None:
        """The attempt ended: the guard ends what is left of it, off the agent's critical path."""
        if self._guarded.pop(token.encode(), None) is not None:
            self._write(f"- {token.encode()}\n")

    def close(self) -> None:
        """Let the guard go; it ends what is still registered."""
        self._wanted = False
        self._forget_process()

    def _tell(self, guarded: _Guarded) -> None:
        self._guarded[guarded.token.encode()] = guarded
        self._write(_announcement(guarded))

    def _write(self, lines: str) -> None:
        if self._process is None:
            return
        data = lines.encode()
        try:
            complete = os.write(self._pipe, data) == len(data)
        except OSError:
            complete = False
        if not complete:
            # It is dead, or it hangs (in /proc, say) and its pipe is full: it must not hold up the agent.
            self._process.kill()
            self._process.wait()
            self.step()

    def _forget_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.close(self._pipe)
            if process.poll() is None:
                # It has a few searches to make; whoever started us reaps it, and init does if nobody else.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)


def _announcement(guarded: _Guarded) -> str:
    claim = guarded.token.encode()
    lines = f"+ {guarded.token.run_id} {claim}\n"
    return lines if guarded.group is None else f"{lines}= {claim} {guarded.group}\n"
