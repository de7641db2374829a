"""Starting children and seeing them end."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import processes
from support.waiting import wait_until

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.launch import Child, Exit, ProcessLauncher, UnfitRunError, choose_interpreter
from resweep_scheduler.config import SweepConfig, parse_sweep
from resweep_scheduler.store import ClaimedRun, ClaimToken

RUN = ClaimedRun(ClaimToken("r", 1, "n.1"), 0, {"a": 1}, resumed=False, step=None, checkpoint=None, claimed_at=1)


def config(command: Sequence[str], program: str | None = None) -> SweepConfig:
    extra = {} if program is None else {"program": program}
    return parse_sweep({"method": "grid", "parameters": {"a": {"value": 1}}, "command": list(command), **extra})


@contextmanager
def launched(folder: Path, script: str) -> Iterator[Child]:
    launcher = ProcessLauncher(config([sys.executable, "-I", "-S", "-c", script]), os.environ)
    child = launcher.launch(RUN, os.environ, folder)
    try:
        yield child
    finally:
        child.send(signal.SIGKILL)
        ended(child)
        child.close()
        os.close(child.output)


def ended(child: Child) -> Exit:
    """How the child ends; its descriptor says when."""
    selector = selectors.DefaultSelector()
    selector.register(child, selectors.EVENT_READ)
    while (found := child.poll()) is None:
        assert selector.select(30), "the child has not ended in 30 s"
    selector.close()
    return found


@pytest.fixture(params=["pidfd", "thread"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways to see an end: Linux' process descriptors, and a thread that waits."""
    if request.param == "thread" and hasattr(os, "pidfd_open"):
        monkeypatch.delattr(os, "pidfd_open")
    return str(request.param)


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("pass", Exit(0, None)),
        ("raise SystemExit(3)", Exit(3, None)),
        ("import os; os.kill(os.getpid(), 9)", Exit(None, 9)),
    ],
)
def test_the_end_of_a_child_is_seen_and_kept(way: str, tmp_path: Path, script: str, how: Exit) -> None:
    with launched(tmp_path, script) as child:
        assert ended(child) == how
        assert child.poll() == how


def test_an_end_that_is_polled_before_it_is_waited_for_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without process descriptors a thread waits; here it comes only after the child's status was taken."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    waiting: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: waiting.append(thread))  # noqa: PLW0108 - a builtin is no method
    with launched(tmp_path, "pass") as child:
        wait_until(lambda: child.poll() is not None, description="the end of the child")
        waiting[0].run()
        assert os.read(child.fileno(), 1) == b""


def test_a_signal_reaches_the_whole_group(way: str, tmp_path: Path) -> None:
    script = "import os, time; os.fork(); os.write(1, b'!'); time.sleep(600)"
    with launched(tmp_path, script) as child:
        assert child.poll() is None
        assert {os.read(child.output, 1), os.read(child.output, 1)} == {b"!"}
        child.send(signal.SIGTERM)
        assert ended(child) == Exit(None, signal.SIGTERM)
        assert os.read(child.output, 1) == b"", "the grandchild has closed the pipe by its end"


def test_the_rest_of_the_group_ends_with_the_child(tmp_path: Path) -> None:
    script = "import os, time; pid = os.fork(); pid or time.sleep(600)"
    with launched(tmp_path, script) as child:
        assert ended(child) == Exit(0, None)
        assert os.read(child.output, 1) == b""


@pytest.mark.parametrize(
    ("how", "text"),
    [(Exit(4, None), "exit code 4"), (Exit(None, 15), "signal 15 (SIGTERM)"), (Exit(None, 63), "signal 63")],
)
def test_an_end_is_told_in_words(how: Exit, text: str) -> None:
    assert str(how) == text


@pytest.mark.parametrize(
    ("command", "program", "says"),
    [
        (["${env}", "${interpreter}", "${program}"], None, "names no program"),
        (["${env}", "${interpreter}", "${program}"], "missing.py", "program 'missing.py' is not in"),
        (["${env}", "python", "-u", "${program}"], "missing.py", "program 'missing.py' is not in"),
        ([sys.executable, "${program}"], "missing.py", "program 'missing.py' is not in"),
        (["no-such-command"], None, "'no-such-command' is not found"),
        (["${env}", "no-such-command"], None, "'no-such-command' is not found"),
        (["${program}", "${args}"], "no-such-program", "'no-such-program' is not found"),
    ],
)
def test_what_is_missing_is_found_before_a_run_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], program: str | None, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = SweepConfig.model_validate({**config(["x"]).model_dump(), "command": command, "program": program})
    with pytest.raises(AgentError, match=says) as caught:
        ProcessLauncher(sweep, os.environ).check()
    assert caught.value.exit_code is ExitCode.COMMAND_NOT_FOUND


@pytest.mark.parametrize(
    ("command", "program"),
    [
        (["${env}", "${interpreter}", "${program}"], "here.py"),
        (["${interpreter}", "-m", "${program}"], "package.module"),
        (["sh", "-c", "echo ${a}"], None),
        (["${envvar:TOOL}", "${args}"], None),
    ],
)
def test_what_may_be_there_is_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], program: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.py").touch()
    sweep = SweepConfig.model_validate({**config(["x"]).model_dump(), "command": command, "program": program})
    ProcessLauncher(sweep, os.environ).check()
    assert list(tmp_path.iterdir()) == [tmp_path / "here.py"]


@pytest.mark.parametrize("before", [["sh", "run", "img", "python"], ["${env}", "sh", "-c", "cd elsewhere; python $0"]])
def test_a_program_that_may_be_elsewhere_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, before: list[str]
) -> None:
    """In a container, say: `docker run img python train.py`."""
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        ProcessLauncher(config([*before, "${program}"], "missing.py"), os.environ).check()
    assert [record.getMessage().split()[0] for record in caplog.records] == ["program-not-here"]
    assert "'missing.py' is not in" in caplog.text


def test_a_program_that_is_not_executable_is_named(tmp_path: Path) -> None:
    program = tmp_path / "plain.txt"
    program.touch()
    with pytest.raises(AgentError, match="not found or not executable") as caught:
        ProcessLauncher(config([str(program)]), os.environ).launch(RUN, os.environ, tmp_path)
    assert caught.value.exit_code is ExitCode.COMMAND_NOT_FOUND


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


@pytest.mark.parametrize(
    ("macro", "value", "cause"),
    [
        ("${args}", "x\0y", "null byte"),
        ("${args}", "x" * 3_000_000, "Argument list too long"),
        ("${args}", "\ud800", "surrogates not allowed"),
        ("${args_json_file}", "\ud800", "surrogates not allowed"),
    ],
)
def test_parameters_that_no_command_can_have_are_the_fault_of_their_run(
    tmp_path: Path, macro: str, value: str, cause: str
) -> None:
    run = dataclasses.replace(RUN, params={"a": value})
    before = open_descriptors()
    with pytest.raises(UnfitRunError, match=f"{cause}.*args_json_file"):
        ProcessLauncher(config(["true", macro]), os.environ).launch(run, os.environ, tmp_path)
    assert open_descriptors() == before


@pytest.mark.parametrize("allowed", [0, 1])
def test_a_machine_without_descriptors_starts_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """The pipe of the output fails, or after the spawn the one that tells of the end."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    pids: list[int] = []
    real_pipe, real_popen = os.pipe, subprocess.Popen
    pipes = iter([real_pipe] * allowed)

    def pipe() -> tuple[int, int]:
        if (make := next(pipes, None)) is None:
            raise OSError(errno.EMFILE, "Too many open files")
        return make()

    def popen(*arguments: Any, **more: Any) -> subprocess.Popen[bytes]:
        with monkeypatch.context() as context:
            context.setattr(os, "pipe", real_pipe)
            process = real_popen(*arguments, **more)
        pids.append(process.pid)
        return process

    before = open_descriptors()
    with monkeypatch.context() as context:
        context.setattr(os, "pipe", pipe)
        context.setattr(subprocess, "Popen", popen)
        with pytest.raises(AgentError, match="Too many open files"):
            ProcessLauncher(config(["sleep", "600"]), os.environ).launch(RUN, os.environ, tmp_path)
    assert open_descriptors() == before
    assert len(pids) == allowed
    assert not [pid for pid in pids if processes.alive(pid)]


def test_arguments_in_a_file_are_written_to_the_folder_of_the_attempt(tmp_path: Path) -> None:
    launcher = ProcessLauncher(config(["cat", "${args_json_file}"]), os.environ)
    child = launcher.launch(RUN, os.environ, tmp_path / "attempt-1")
    assert ended(child) == Exit(0, None)
    assert os.read(child.output, 100) == b'{"a": 1}\n'
    os.close(child.output)
    child.close()


def executable(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o755)
    return path


@pytest.mark.parametrize(
    ("on_path", "called", "has_python", "interpreter"),
    [
        (True, "bin", True, "python"),  # `sweep-agent`, found on the PATH
        (True, "bin", False, sys.executable),  # the same, but only `python3` exists
        (True, "venv", True, sys.executable),  # `venv/bin/sweep-agent`, another one is on the PATH
        (False, "venv", True, sys.executable),  # `venv/bin/sweep-agent`, none is on the PATH
    ],
)
def test_the_interpreter_is_the_one_that_goes_with_the_way_the_agent_was_called(
    tmp_path: Path, on_path: bool, called: str, has_python: bool, interpreter: str
) -> None:
    folder = tmp_path / "bin"
    command = executable(tmp_path / called / "sweep-agent")
    if on_path:
        executable(folder / "sweep-agent")
    if has_python:
        executable(folder / "python")
    environ: Mapping[str, str] = {"PATH": str(folder)}
    assert choose_interpreter(environ, str(command)) == interpreter


@pytest.mark.parametrize(
    "command",
    [
        ["${env}", "${interpreter}", "${program}", "${args}"],
        ["${interpreter}", "${program}", "--quiet", "${args_no_equals}"],
        ["${program}"],
    ],
)
def test_a_pinned_program_may_have_any_arguments(tmp_path: Path, command: list[str]) -> None:
    program = tmp_path / "train.py"
    program.write_text("")
    program.chmod(0o755)
    ProcessLauncher(config(command, str(program)), os.environ, pinned=program).check()


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["${interpreter}", "-c", "print()", "${program}"], "'-c'"),
        (["${env}", "${args}", "${interpreter}", "${program}"], r"'\${args}'"),
        (["${env}", "PYTHONSTARTUP=x.py", "${interpreter}", "${program}"], "'PYTHONSTARTUP=x.py'"),
        (["rm", "${args_no_hyphens}"], "'rm'"),
    ],
)
def test_nothing_gets_before_a_pinned_program(tmp_path: Path, command: list[str], word: str) -> None:
    program = tmp_path / "train.py"
    program.write_text("")
    with pytest.raises(AgentError, match=word) as error:
        ProcessLauncher(config(command, str(program)), os.environ, pinned=program).check()
    assert error.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("named", ["other.py", None])
def test_a_pinned_agent_refuses_another_program(tmp_path: Path, named: str | None) -> None:
    program = tmp_path / "train.py"
    program.write_text("")
    with pytest.raises(AgentError, match=r"executes .*train\.py only \(--program\)") as error:
        ProcessLauncher(config(["python", "${args}"], named), os.environ, pinned=program).check()
    assert error.value.exit_code is ExitCode.USAGE
