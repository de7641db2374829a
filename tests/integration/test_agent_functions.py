"""Runs that are calls of a Python function, by `resweep.agent`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.agents import wait_for_death
from support.children import HELPERS
from support.servers import Server
from support.waiting import wait_until

from resweep.errors import CommError, UsageError
from resweep.sweeps import agent, sweep
from resweep_scheduler.store import Run, RunState, Scope, Store, open_store

HEAD = (
    HELPERS
    + """
import logging
from resweep.sweeps import agent, sweep
logging.basicConfig(level="INFO")

sweep_id = sweep({"method": "grid", "parameters": {"a": {"values": [0, 1, 2]}}})
Path("sweep").write_text(sweep_id)
"""
)


@contextmanager
def notebook(server: Server, folder: Path, code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code` after `HEAD` in `folder`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        cwd=folder,
        env={**os.environ, "RESWEEP_URL": server.url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def output(process: subprocess.Popen[str], timeout: float = 60.0) -> str:
    """What it printed until it ended."""
    return process.communicate(timeout=timeout)[0]


def store_of(server: Server) -> Store:
    return open_store(server.url, Scope())


def runs(server: Server, folder: Path) -> list[Run]:
    return store_of(server).runs((folder / "sweep").read_text())


def trace(folder: Path, name: str) -> dict[str, int]:
    path = folder / f"{name}.json"
    wait_until(path.exists, timeout=30, description=f"the trace {name}")
    found: dict[str, int] = json.loads(path.read_text())
    return found


def test_each_run_is_a_call_in_a_process_of_its_own(shared_server: Server, tmp_path: Path) -> None:
    code = """
calls = []
def train():
    calls.append(os.getpid())
    print("call", len(calls), "attempt", os.environ["RESWEEP_ATTEMPT"])
    trace(os.environ["WANDB_RUN_ID"], parent=os.getppid(), group=os.getpgid(0))
agent(sweep_id, lambda: train())
print("calls here:", len(calls))
"""
    with notebook(shared_server, tmp_path, code) as process:
        printed = output(process)
    assert process.returncode == 0, printed
    assert [run.state for run in runs(shared_server, tmp_path)] == [RunState.FINISHED] * 3
    assert printed.count("call 1 attempt 1") == 3
    assert "calls here: 0" in printed
    traces = [trace(tmp_path, run.run_id) for run in runs(shared_server, tmp_path)]
    assert len({found["pid"] for found in traces}) == 3
    assert all(found["group"] == found["pid"] and found["parent"] != process.pid for found in traces)


def test_the_way_a_call_ends_decides_the_state_of_its_run(shared_server: Server, tmp_path: Path) -> None:
    code = """
ends = [lambda: None, lambda: 1 / 0, lambda: os.kill(os.getpid(), signal.SIGKILL)]
agent(sweep_id, lambda: ends[int(os.environ["RESWEEP_CLAIM"].split(".")[-1]) - 1]())
"""
    with notebook(shared_server, tmp_path, code) as process:
        printed = output(process)
    assert process.returncode == 0, printed
    found = [(run.state, run.exit_code, run.signal) for run in runs(shared_server, tmp_path)]
    assert found == [(RunState.FINISHED, 0, None), (RunState.FAILED, 1, None), (RunState.CRASHED, None, 9)]
    assert "ZeroDivisionError" in printed


def test_what_a_call_logs_is_kept_however_it_ends(shared_server: Server, tmp_path: Path) -> None:
    code = """
import resweep
def train():
    run = resweep.init()
    for step in range(3):
        resweep.log({"loss": run.config.a + step})
    if run.config.a == 1:
        raise ValueError("no")
agent(sweep_id, train)
"""
    with notebook(shared_server, tmp_path, code) as process:
        printed = output(process)
    assert process.returncode == 0, printed
    found = [(run.state, run.step, run.summary["loss"]) for run in runs(shared_server, tmp_path)]
    assert found == [(RunState.FINISHED, 2, 2), (RunState.FAILED, 2, 3), (RunState.FINISHED, 2, 4)]


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit()", 0), ("sys.exit(7)", 7), ("sys.exit('no data')", 1), ("raise KeyboardInterrupt", 255)],
)
def test_exits_have_the_status_that_the_interpreter_gives_them(
    shared_server: Server, tmp_path: Path, end: str, code: int
) -> None:
    with notebook(shared_server, tmp_path, f"def train():\n    {end}\nagent(sweep_id, train, count=1)") as process:
        printed = output(process)
    assert process.returncode == 0, printed
    assert [run.exit_code for run in runs(shared_server, tmp_path)] == [code]


def test_a_notice_reaches_the_function_and_ends_the_process_with_75(shared_server: Server, tmp_path: Path) -> None:
    code = """
def train():
    def save(number, frame):
        trace("saved")
        sys.exit(1)
    signal.signal(signal.SIGTERM, save)
    trace("begun")
    wait_for("go")
agent(sweep_id, train)
print("never reached")
"""
    with notebook(shared_server, tmp_path, code) as process:
        trace(tmp_path, "begun")
        process.send_signal(signal.SIGTERM)
        printed = output(process)
    assert process.returncode == 75, printed
    assert "never reached" not in printed
    assert trace(tmp_path, "saved")
    assert [run.state for run in runs(shared_server, tmp_path)] == [RunState.PREEMPTED]


def test_signal_handlers_are_put_back(shared_server: Server, tmp_path: Path) -> None:
    code = """
before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
agent(sweep_id, lambda: None)
assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
"""
    with notebook(shared_server, tmp_path, code) as process:
        printed = output(process)
    assert process.returncode == 0, printed


def test_an_agent_in_another_thread_works_without_signals(shared_server: Server, tmp_path: Path) -> None:
    code = """
import threading
thread = threading.Thread(target=agent, args=(sweep_id, lambda: None))
thread.start()
thread.join()
"""
    with notebook(shared_server, tmp_path, code) as process:
        printed = output(process)
    assert process.returncode == 0, printed
    assert [run.state for run in runs(shared_server, tmp_path)] == [RunState.FINISHED] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a grandchild in a session of its own is not found")
def test_the_calls_die_with_the_process_that_is_killed(shared_server: Server, tmp_path: Path) -> None:
    code = """
def train():
    import subprocess
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
    trace("begun", grandchild=child.pid, zygote=os.getppid())
    wait_for("go")
agent(sweep_id, train)
"""
    with notebook(shared_server, tmp_path, code) as process:
        begun = trace(tmp_path, "begun")
        process.kill()
        wait_for_death([begun["pid"], begun["zygote"]])
        # What a call starts carries the environment of the call: that is how the guard knows it.
        wait_for_death([begun["grandchild"]])


def test_a_zygote_that_dies_is_an_error_and_costs_no_run(shared_server: Server, tmp_path: Path) -> None:
    code = """
def train():
    trace("begun", zygote=os.getppid())
    wait_for("go")
agent(sweep_id, train)
"""
    with notebook(shared_server, tmp_path, code) as process:
        begun = trace(tmp_path, "begun")
        os.kill(begun["zygote"], signal.SIGKILL)
        printed = output(process)
    assert process.returncode == 1
    assert "start the agent again" in printed
    assert RunState.PREEMPTED in {run.state for run in runs(shared_server, tmp_path)}


def test_a_sweep_is_created_from_a_mapping_or_a_file(shared_server: Server, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("method: grid\nprogram: t.py\nproject: filed\nparameters: {a: {value: 1}}\n")
    config = {"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}, "run_cap": 4}
    named = sweep(config, entity="team", project="vision", url=shared_server.url)
    filed = sweep(path, url=shared_server.url)
    assert open_store(shared_server.url, Scope("team", "vision")).sweep(named).counts[RunState.PENDING] == 0
    assert open_store(shared_server.url, Scope("local", "filed")).sweep(filed).config_text == path.read_text()


def test_what_cannot_work_is_an_error_of_the_sdk(shared_server: Server) -> None:
    with pytest.raises(UsageError, match="method"):
        sweep({"metod": "grid", "parameters": {"a": {"value": 1}}}, url=shared_server.url)
    with pytest.raises(UsageError, match="no sweep has the id"):
        agent("nosuch", lambda: None, url=shared_server.url)
    with pytest.raises(UsageError, match="no such option"):
        agent("nosuch", lambda: None, url=shared_server.url, speed=9)
    with pytest.raises(CommError, match="cannot be reached"):
        sweep({"method": "grid", "parameters": {"a": {"value": 1}}}, url="redis://127.0.0.1:1/0")


def test_runs_do_not_share_their_random_numbers(shared_server: Server, tmp_path: Path) -> None:
    """They are forked from one process, whose generators have a state."""
    code = """
import random
import numpy
random.seed(0), numpy.random.seed(0)
def train():
    trace(f"run-{os.environ['WANDB_RUN_ID']}", drawn=[random.getrandbits(62), int(numpy.random.randint(2**62))])
agent(sweep_id, function=train)
"""
    with notebook(shared_server, tmp_path, code) as process:
        output(process)
        assert process.returncode == 0
    drawn = [number for run in runs(shared_server, tmp_path) for number in drawn_by(tmp_path, run)]
    assert len(set(drawn)) == len(drawn) == 6


def drawn_by(folder: Path, run: Run) -> list[int]:
    found: list[int] = json.loads((folder / f"run-{run.run_id}.json").read_text())["drawn"]
    return found


def test_numpy_is_not_imported_for_its_random_numbers(shared_server: Server, tmp_path: Path) -> None:
    code = """
assert "numpy" not in sys.modules
agent(sweep_id, function=lambda: trace("run", numpy=int("numpy" in sys.modules)), count=1)
"""
    with notebook(shared_server, tmp_path, code) as process:
        assert process.wait(60) == 0, output(process)
    assert trace(tmp_path, "run")["numpy"] == 0
