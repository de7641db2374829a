"""The `sweep-agent` processes that `start` runs on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure

LAST_WORDS = 400
"""So many bytes of an agent's log are searched for its last line."""


def agent_program() -> str:
    """The `sweep-agent` that was installed together with this command."""
    beside = Path(sys.executable).with_name("sweep-agent")
    found = str(beside) if beside.is_file() else shutil.which("sweep-agent")
    if found is None:
        raise Failure(
            f"there is no sweep-agent beside {sys.executable} or on PATH: install resweep again",
            ExitCode.COMMAND_NOT_FOUND,
        )
    return found


class LocalAgents:
    """A few agents of one sweep, each with a log file of its own.

    They have process groups of their own, so that Ctrl-C reaches only the one who watches over them; it passes on
    what is meant.
    """

    def __init__(self, number: int, path: str, *, url: str, logs: Path, arguments: Sequence[str] = ()) -> None:
        """Start `number` agents of the sweep at `path` (entity/project/sweep).

        Raises:
            Failure: `logs` cannot be written, or there is no sweep-agent.
        """
        program = agent_program()
        # The URL travels in the environment: the words of a command line can be read by every user of the machine.
        environment = {**os.environ, "RESWEEP_URL": url}
        self.logs = [logs / f"agent-{os.getpid()}-{index}.log" for index in range(number)]
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            logs.mkdir(parents=True, exist_ok=True)
            with ExitStack() as files:
                for log in self.logs:
                    output = files.enter_context(log.open("wb"))
                    self._processes.append(
                        subprocess.Popen(
                            [program, path, *arguments],
                            env=environment,
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=subprocess.STDOUT,
                            process_group=0,
                        )
                    )
        except OSError as error:
            self.kill()
            raise Failure(
                f"agents cannot be started in {logs} ({error.strerror}): call from a folder that you can write to",
                ExitCode.USAGE,
            ) from error

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def alive(self) -> int:
        """How many have not ended."""
        return sum(process.poll() is None for process in self._processes)

    def notify(self) -> None:
        """Tell them that they have to go (SIGTERM): they put their runs back on the run queue."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End them at once; their runs go back on the run queue when the leases run out."""
        self._send(signal.SIGKILL)
        for process in self._processes:
            process.wait()

    def end(self, seconds: float) -> None:
        """Notify those that live, wait up to `seconds` for them, kill the rest."""
        self.notify()
        deadline = time.monotonic() + seconds
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.001))
        self.kill()

    def troubles(self) -> list[tuple[ExitCode, str]]:
        """For each agent that ended badly: what that means for our exit code, and one line about it."""
        found = []
        for process, log in zip(self._processes, self.logs, strict=True):
            status = process.poll()
            if status in (None, ExitCode.OK):
                continue
            code = next((code for code in ExitCode if code == status), ExitCode.UNEXPECTED)
            how = f"ended with {status} ({code.meaning})" if status > 0 else f"was ended by {_signal_name(-status)}"
            words = _last_line(log)
            found.append((code, f"agent {process.pid} {how}{f': {words}' if words else ''} (see {log})"))
        return found

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_line(log: Path) -> str:
    try:
        text = log.read_bytes()[-LAST_WORDS:].decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
