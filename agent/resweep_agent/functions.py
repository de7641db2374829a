"""Runs that are calls of a Python function: `resweep.agent(sweep_id, function=train)`."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.launch import Child, Exit
from resweep_agent.options import AgentOptions
from resweep_agent.zygote import Zygote
from resweep_scheduler.store.records import ClaimedRun

FORK_PATIENCE = 30.0
"""Seconds in which the zygote must have forked a child."""


class FunctionLauncher:
    """Launches calls of the zygote's function."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    def check(self) -> None:
        """Nothing can be missing: the function is here."""

    def launch(self, run: ClaimedRun, environment: Mapping[str, str], attempt_directory: Path) -> Child:
        """Call the function in a process of its own."""
        with contextlib.ExitStack() as senders, contextlib.ExitStack() as receivers:
            try:
                output, output_sender = _pipe(receivers, senders)
                status, status_sender = _pipe(receivers, senders)
                self._zygote.spawn(environment, output_sender, status_sender)
            except OSError as error:
                raise _no_zygote(error) from None
            receivers.pop_all()
        ready, _, _ = select.select([status], [], [], FORK_PATIENCE)
        what, _, pid = (_read_line(status) if ready else "").partition(" ")
        if what != "began":
            os.close(output)
            os.close(status)
            raise _no_zygote("it could not fork a child")
        return FunctionChild(int(pid), output, status)

    def close(self) -> None:
        """The zygote belongs to whoever made it."""


class FunctionChild:
    """A child of the zygote; its status descriptor says how it ended."""

    def __init__(self, pid: int, output: int, status: int) -> None:
        self._pid = pid
        self._output = output
        self._status = status
        self._ended: Exit | None = None
        os.set_blocking(status, False)

    @property
    def group(self) -> int:
        """The id of its process group."""
        return self._pid

    @property
    def output(self) -> int:
        """The reading end of its output."""
        return self._output

    def fileno(self) -> int:
        """Readable when the child, or the zygote, has ended."""
        return self._status

    def peek(self) -> Exit | None:
        """Nobody can tell: the zygote ends the group with its leader."""
        return None

    def poll(self) -> Exit | None:
        """How it ended; without any status if the zygote died, and then its children with it."""
        if self._ended is None:
            try:
                line = _read_line(self._status)
            except BlockingIOError:
                return None
            if line:
                self._ended = Exit.from_returncode(os.waitstatus_to_exitcode(int(line.split()[1])))
            else:
                self.send(signal.SIGKILL)
                self._ended = Exit(None, None)
        return self._ended

    def send(self, number: signal.Signals) -> None:
        """Signal the whole group."""
        if self._ended is not None:
            return
        for each in (number, signal.SIGCONT):
            with contextlib.suppress(OSError):
                os.killpg(self._pid, each)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._status)


def run_function_agent(
    options: AgentOptions, function: Callable[[], object], finish: Callable[[int], None]
) -> ExitCode:
    """Run an agent whose runs are calls of `function`, until it ends.

    Args:
        options: As of the command.
        function: Called without arguments for each run, in a process of its own.
        finish: Called there after the function with the exit status, to flush what was logged.

    Raises:
        AgentError: The agent ended for a reason that somebody must do something about.
    """
    zygote = Zygote(function, finish)  # before anything else: it is forked from what is here now
    try:
        from resweep_agent.assembly import Work, run_agent
        from resweep_agent.output import StandardOutput

        return run_agent(
            Work(
                options=options,
                environ=dict(os.environ),
                make_launcher=lambda config: FunctionLauncher(zygote),
                terminal=StandardOutput(),
            )
        )
    finally:
        zygote.close()


def _pipe(receivers: contextlib.ExitStack, senders: contextlib.ExitStack) -> tuple[int, int]:
    receiver, sender = os.pipe()
    receivers.callback(os.close, receiver)
    senders.callback(os.close, sender)
    return receiver, sender


def _no_zygote(reason: object) -> AgentError:
    return AgentError(
        f"the process that calls the function cannot be reached ({reason}); start the agent again", ExitCode.UNEXPECTED
    )


def _read_line(descriptor: int) -> str:
    """Read up to a newline, byte by byte: the next line belongs to the next reader."""
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 1)
        if not part:
            return ""
        line += part
    return line.decode()
