"""Starting a child process for a run, and seeing it end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resweep_agent.environment import Surroundings, write_parameter_file
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.logs import event
from resweep_scheduler.config import CommandError, SweepConfig, build_command, needs_args_json_file
from resweep_scheduler.store.records import ClaimedRun

_log = logging.getLogger(__name__)

PYTHON = re.compile(r"\$\{interpreter\}|(.*/)?python[0-9.]*|-[bBdEiIOPqsSuvx]+")
"""A word of a command that runs the file after it with Python, here: the interpreter, or one of its flags."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a child ended: by a status or by a signal. Neither means that nobody could see it."""

    code: int | None
    signal: int | None

    @classmethod
    def from_returncode(cls, returncode: int) -> Exit:
        """From subprocess' form, where -9 means signal 9."""
        return cls(returncode, None) if returncode >= 0 else cls(None, -returncode)

    def __str__(self) -> str:
        if self.signal is not None:
            with contextlib.suppress(ValueError):
                return f"signal {self.signal} ({signal.Signals(self.signal).name})"
            return f"signal {self.signal}"
        return "no exit status" if self.code is None else f"exit code {self.code}"


class UnfitRunError(Exception):
    """A run that no machine could start; the message says why. It is the run's own failure, and no other run's."""


class Child(Protocol):
    """A running child; it leads a process group of its own."""

    @property
    def group(self) -> int:
        """The id of its process group, which is its process id."""

    @property
    def output(self) -> int:
        """The reading end of its output; the receiver closes it."""

    def fileno(self) -> int:
        """A descriptor that becomes readable when the child has ended."""

    def peek(self) -> Exit | None:
        """How it ended, while what is left of its group lives on; None while it runs, or where nobody can tell."""

    def poll(self) -> Exit | None:
        """How it ended, None while it runs. When it ended, what is left of its group has been killed."""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the whole group; nothing happens when it is gone."""

    def close(self) -> None:
        """Free what `fileno` needs, after the end."""


class Launcher(Protocol):
    """Starts children: programs, or Python functions."""

    def check(self) -> None:
        """Raise AgentError when nothing could be launched on this machine, before a run is taken for it."""

    def launch(self, run: ClaimedRun, environment: Mapping[str, str], attempt_directory: Path) -> Child:
        """Start the child of an attempt.

        Raises:
            AgentError: It cannot be started on this machine. The run is not to blame.
            UnfitRunError: It can be started nowhere.
        """

    def close(self) -> None:
        """Free what the launcher holds."""


def check_pin(pinned: Path, config: SweepConfig) -> None:
    """Make sure that a sweep executes the pinned program and nothing else.

    Whoever can write to Redis can change a sweep's program and command. What stands before the program could be another
    one, or make the interpreter execute something else; what stands after it are arguments of the program.

    Raises:
        AgentError: It does not.
    """
    if config.program is None or Path(config.program).resolve() != pinned.resolve():
        raise AgentError(
            f"this agent executes {pinned} only (--program), and the sweep's program is {config.program!r}; create the"
            " sweep with that program, or start the agent without --program",
            ExitCode.USAGE,
        )
    command = list(config.command)
    before = command[: command.index("${program}")] if "${program}" in command else command
    if others := [word for word in before if word not in ("${env}", "${interpreter}")]:
        raise AgentError(
            "an agent with --program executes commands that begin with ${program}, ${env} and ${interpreter} apart, and"
            f" the sweep's has {others[0]!r} there; create the sweep without command:",
            ExitCode.USAGE,
        )


class ProcessLauncher:
    """Launches the command of the sweep.

    Args:
        config: Of the sweep.
        environ: Of the agent.
        pinned: The only program that may be launched; None for whatever the sweep names.
    """

    def __init__(self, config: SweepConfig, environ: Mapping[str, str], *, pinned: Path | None = None) -> None:
        self._config = config
        self._environ = environ
        self._pinned = pinned
        self._interpreter = choose_interpreter(environ, sys.argv[0])
        self._needs_file = needs_args_json_file(config)

    def check(self) -> None:
        """Look for the program and the command before a run is taken for nothing."""
        if self._pinned is not None:
            check_pin(self._pinned, self._config)
        command = list(self._config.command)
        words = command[1:] if command[0] == "${env}" else command
        word = words[0] if words else "${program}"
        if self._config.program is None and "${program}" in command:
            raise AgentError(
                "the sweep names no program; run it with resweep.agent(sweep_id, function=…) in Python, or create it"
                " with program:",
                ExitCode.COMMAND_NOT_FOUND,
            )
        if "${program}" in words and words[0] != "${program}" and "-m" not in words:
            self._look_for_program(words[: words.index("${program}")])
        if word == "${program}":
            word = self._config.program or ""
        if "${" not in word and shutil.which(word, path=self._environ.get("PATH")) is None:
            raise self._not_found(word)

    def _look_for_program(self, before: Sequence[str]) -> None:
        program = Path(self._config.program or "")
        if program.exists():
            return
        missing = f"the sweep's program {str(program)!r} is not in {os.getcwd()}"
        if all(PYTHON.fullmatch(word) for word in before):
            raise AgentError(
                f"{missing}; start the agent where it is, or create the sweep with another program:",
                ExitCode.COMMAND_NOT_FOUND,
            )
        # It may be in a container, or wherever else the command has it executed.
        event(_log, logging.WARNING, "program-not-here", missing=missing, next="the command is tried all the same")

    def launch(self, run: ClaimedRun, environment: Mapping[str, str], attempt_directory: Path) -> Child:
        """Build the command and start it in a session of its own, with standard input closed."""
        json_file = attempt_directory / "args.json" if self._needs_file else None
        try:
            if json_file is not None:
                attempt_directory.mkdir(parents=True, exist_ok=True)
            argv = build_command(
                self._config,
                run.params,
                environ=environment,
                args_json_file=json_file,
                interpreter=self._interpreter,
            )
        except CommandError as error:
            raise AgentError(str(error), ExitCode.COMMAND_NOT_FOUND) from None
        except ValueError as error:  # a text that is no Unicode
            raise _unfit(error) from None
        except OSError as error:
            raise AgentError(f"cannot write the run's arguments: {error}; free the disk", ExitCode.UNEXPECTED) from None
        return self._start(argv, environment)

    def close(self) -> None:
        """Nothing is held."""

    def _start(self, argv: Sequence[str], environment: Mapping[str, str]) -> Child:
        try:
            return _spawn(argv, environment)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            raise self._not_found(argv[0]) from None
        except OSError as error:
            if error.errno == errno.E2BIG:  # no machine takes more
                raise _unfit(error) from None
            raise AgentError(f"cannot start {argv[0]!r}: {error}; see `ulimit -a`", ExitCode.UNEXPECTED) from None
        except ValueError as error:  # a NUL byte
            raise _unfit(error) from None

    def _not_found(self, word: str) -> AgentError:
        return AgentError(
            f"the command of the sweep cannot be run here: {word!r} is not found or not executable; install it, put"
            " it on the PATH, or start the agent in another folder",
            ExitCode.COMMAND_NOT_FOUND,
        )


def _spawn(argv: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start a child. Whatever fails, nothing is left open, and nothing runs.

    Raises:
        OSError: The machine cannot, or the command is not there.
        ValueError: The arguments are none.
    """
    receiver, sender = os.pipe()
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=sender,
            stderr=sender,
            env=environment,
            start_new_session=True,
        )
        try:
            return ProcessChild(process, receiver)
        except OSError:
            # Nobody would see its end.
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    except (OSError, ValueError):
        os.close(receiver)
        raise
    finally:
        os.close(sender)


def _unfit(error: Exception) -> UnfitRunError:
    return UnfitRunError(
        f"the run's parameters cannot be arguments of a command ({error}); pass them by ${{args_json_file}}, or take"
        " the value out of the sweep"
    )


class ProcessChild:
    """A child that subprocess started."""

    def __init__(self, process: subprocess.Popen[bytes], output: int) -> None:
        self._process = process
        self._output = output
        self._descriptor = _exit_descriptor(process)

    @property
    def group(self) -> int:
        """The id of its process group."""
        return self._process.pid

    @property
    def output(self) -> int:
        """The reading end of its output."""
        return self._output

    def fileno(self) -> int:
        """Readable when the child has ended."""
        return self._descriptor

    def peek(self) -> Exit | None:
        """How it ended; its group can still be signalled, for nobody has waited for it."""
        if self._process.returncode is not None or not hasattr(os, "waitid"):
            return None
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
        if ended is None:
            return None
        by_itself = ended.si_code == os.CLD_EXITED
        return Exit(ended.si_status, None) if by_itself else Exit(None, ended.si_status)

    def poll(self) -> Exit | None:
        """How it ended; the rest of its group is killed first, while the number cannot belong to anybody else yet."""
        if self._process.returncode is None and hasattr(os, "waitid"):
            if self.peek() is None:
                return None
        elif self._process.poll() is None:
            return None
        self.send(signal.SIGKILL)
        return Exit.from_returncode(self._process.wait())

    def send(self, number: signal.Signals) -> None:
        """Signal the whole group. A process that is stopped wakes up to see the signal."""
        for each in (number, signal.SIGCONT):
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, each)

    def close(self) -> None:
        """Free the descriptor."""
        os.close(self._descriptor)


def _exit_descriptor(process: subprocess.Popen[bytes]) -> int:
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(process.pid)
    receiver, sender = os.pipe()

    def wait() -> None:
        # Whoever polls may see the end first and take the child's status away.
        with contextlib.suppress(ChildProcessError):
            if hasattr(os, "waitid"):
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            else:
                process.wait()
        os.close(sender)

    threading.Thread(target=wait, name=f"resweep-wait-{process.pid}", daemon=True).start()
    return receiver


def choose_interpreter(environ: Mapping[str, str], command: str) -> str:
    """What ${interpreter} means: the `python` of the PATH, or our own if the agent was called by its path.

    Who calls `.venv/bin/sweep-agent` means that environment although it is not activated; who calls `sweep-agent`
    means the `python` that he would get by the same PATH, as with W&B.
    """
    path = environ.get("PATH")
    on_path = shutil.which(Path(command).name, path=path)
    if on_path is None or shutil.which("python", path=path) is None:
        return sys.executable
    try:
        return "python" if os.path.samefile(on_path, command) else sys.executable
    except OSError:
        return sys.executable


def prepare(surroundings: Surroundings, run: ClaimedRun, agent: str, slot: int) -> dict[str, str]:
    """Write what the child finds, and return its environment. A full disk is said, and stops nothing."""
    environment = surroundings.child_environment(run, agent, slot)
    surroundings.notice_file(run).prepare()
    try:
        write_parameter_file(surroundings.parameter_file(run), run.params)
    except OSError as error:
        event(
            _log,
            logging.WARNING,
            "parameter-file-failed",
            run=run.token.run_id,
            error=error,
            next="the run is started without the file that WANDB_SWEEP_PARAM_PATH names",
        )
    return environment
