"""The SDK on a real server: the decision table, servers that are killed, and processes that end in every way."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sdk import attempt_environment, clean_session, run_script, start_script
from support.servers import Server
from support.stores import Agent, make_offer, make_sweep
from support.waiting import wait_until

import resweep
from resweep.errors import CommError, UsageError
from resweep.spill import spill_folder
from resweep.sync import SyncOutcome, sync
from resweep_scheduler.store import RunState, Scope, Store, open_store


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the scripts."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def store(shared_server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store of the session's server, which RESWEEP_URL names."""
    yield from _store_of(shared_server, monkeypatch)


@pytest.fixture
def mortal_store(server: Server, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The store of a server that the test may kill, `server`."""
    yield from _store_of(server, monkeypatch)


def _store_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("RESWEEP_URL", server.url)
    store = open_store(server.url, Scope())
    with clean_session():
        yield store
    store.client.close()


def row_steps(store: Store, run_id: str = "r1") -> list[int]:
    return [row.step for row in store.history(run_id)]


def stored_rows(store: Store, run_id: str = "r1") -> int:
    """Entries of the history, repeated steps included."""
    return int(store.client.xlen(store.keys.run(run_id, "history")))


@pytest.mark.parametrize("by_environment", [False, True])
@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("resume", ["must", "allow", "never", "auto", None])
def test_the_decision_table(
    store: Store, monkeypatch: pytest.MonkeyPatch, resume: str | None, exists: bool, by_environment: bool
) -> None:
    if exists:
        with resweep.init(id="r1") as run:
            run.log({"loss": 1})
    arguments: dict[str, Any] = {"id": "r1", "resume": resume}
    if by_environment:
        monkeypatch.setenv("WANDB_RUN_ID", "r1")
        monkeypatch.setenv("WANDB_RESUME", resume or "")
        arguments = {}
    if (resume, exists) in (("must", False), ("never", True)):
        with pytest.raises(UsageError, match=f"The value '{resume}' is not a valid option"):
            resweep.init(**arguments)
        return
    with resweep.init(**arguments) as run:
        resumed = exists and resume is not None
        assert (run.resumed, run.starting_step) == (resumed, 1 if resumed else 0)
        run.log({"loss": 2})
    assert row_steps(store) == ([0, 1] if resumed else [0])
    assert store.history("r1")[-1].values == {"loss": 2}


def test_a_server_that_is_killed_and_started_again(mortal_store: Store, server: Server, directory: Path) -> None:
    run = resweep.init(id="r1")
    for _ in range(100):
        run.log({"loss": 1})
    wait_until(lambda: stored_rows(mortal_store) == 100, description="the first rows")
    server.kill()
    for _ in range(5000):
        run.log({"loss": 2})
    run.config.update({"late": True})
    wait_until(lambda: list(spill_folder(directory).glob("*.jsonl")), description="a spill file")
    for _ in range(900):
        run.log({"loss": 3})
    server.start()
    for _ in range(100):
        run.log({"loss": 4})
    run.finish()
    assert row_steps(mortal_store) == list(range(6100))
    assert stored_rows(mortal_store) == 6100
    assert [row.values["loss"] for row in mortal_store.history("r1")] == [1] * 100 + [2] * 5000 + [3] * 900 + [4] * 100
    assert not list(spill_folder(directory).glob("*.jsonl"))
    record = mortal_store.run("r1")
    assert (record.state, record.config["late"]) == (RunState.FINISHED, True)


def test_a_server_that_is_frozen(mortal_store: Store, server: Server) -> None:
    run = resweep.init(id="r1")
    run.log({"loss": 0})
    wait_until(lambda: stored_rows(mortal_store) == 1, description="the first row")
    server.freeze()
    for step in range(1, 300):
        run.log({"loss": step})
    server.thaw()
    run.finish()
    assert row_steps(mortal_store) == list(range(300))
    assert stored_rows(mortal_store) == 300


def test_a_script_that_ends_while_the_server_is_away_leaves_its_rows_for_sync(
    mortal_store: Store, server: Server, directory: Path
) -> None:
    script = """
        import resweep, sys
        run = resweep.init(id="r1", config={"lr": 1})
        run.log({"n": 0})
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(1, 1000):
            run.log({"n": n})
        run.save_checkpoint(__file__)
        run.finish(4)
    """
    with start_script(script, directory, {"RESWEEP_FINISH_TIMEOUT": "0.5", "RESWEEP_MARK_TIMEOUT": "0.5"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wait_until(lambda: stored_rows(mortal_store) == 1, description="the first row")
        server.kill()
        _, errors = process.communicate("go\n", timeout=60)
    assert process.returncode == 0
    assert "999 rows could not be sent within 0.5 s" in errors
    assert f"resweep sync {directory}" in errors
    server.start()
    report = sync(directory, server.url)
    assert [(file.outcome, file.stored) for file in report.files] == [(SyncOutcome.STORED, 999)]
    assert row_steps(mortal_store) == list(range(1000))
    record = mortal_store.run("r1")
    assert (record.state, record.exit_code, record.summary) == (RunState.FAILED, 4, {"n": 999})
    assert record.checkpoint is not None
    assert Path(record.checkpoint.path).exists()


@pytest.mark.parametrize("handler", ["resweep.finish(1); sys.exit(1)", "sys.exit(1)", "resweep.finish(1); os._exit(1)"])
def test_a_script_that_is_ended_while_finish_waits_for_a_frozen_server_leaves_its_rows(
    mortal_store: Store, server: Server, directory: Path, handler: str
) -> None:
    script = f"""
        import os, resweep, signal, sys, time

        def leave(number, frame):
            {handler}

        signal.signal(signal.SIGTERM, leave)
        run = resweep.init(id="r1")
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(500):
            run.log({{"n": n}})
        time.sleep(1)  # the thread that sends is in a call that gets no answer
        for n in range(500, 1000):
            run.log({{"n": n}})
        print("ends", flush=True)
        run.finish()
    """
    with start_script(script, directory, {"RESWEEP_FINISH_TIMEOUT": "2"}) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        server.freeze()
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ends\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "1000 rows could not be sent" in errors
    server.thaw()
    assert sync(directory, server.url).complete
    assert row_steps(mortal_store) == list(range(1000))


def test_a_script_that_is_killed_while_the_server_is_away_leaves_its_rows_for_the_next_one(
    mortal_store: Store, server: Server, directory: Path
) -> None:
    script = """
        import resweep, sys, threading
        run = resweep.init(id="r1", resume="allow")
        run.log({"n": run.starting_step})
        print("ready", flush=True)
        sys.stdin.readline()
        run.log({"n": 1})
        run.log({"n": 2})
        threading.Event().wait(60)
    """
    with start_script(script, directory) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        wait_until(lambda: stored_rows(mortal_store) == 1, description="the first row")
        server.kill()
        process.stdin.write("go\n")
        process.stdin.flush()
        (file,) = wait_until(lambda: list(spill_folder(directory).glob("*.jsonl")), description="a spill file")
        wait_until(lambda: file.read_text().count('"seq"') == 2, description="the rows in the file")
        assert [found.outcome for found in sync(directory).files] == [SyncOutcome.IN_USE]
        process.kill()
    server.start()
    with resweep.init(id="r1", resume="allow") as run:
        assert run.starting_step == 3
    assert row_steps(mortal_store) == [0, 1, 2]


def test_an_unreachable_server_is_said_at_init(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESWEEP_URL", "redis://user:secret@127.0.0.1:1/0")
    monkeypatch.setenv("RESWEEP_INIT_TIMEOUT", "0.2")
    with pytest.raises(CommError, match="Failed to get resume status for run ID: r1: ") as caught:
        resweep.init(id="r1")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


ENDINGS = {
    "pass": (RunState.FINISHED, 0, 0),
    "run.finish(3)": (RunState.FAILED, 3, 0),
    "raise ValueError('bad')": (RunState.FAILED, 1, 1),
    "raise KeyboardInterrupt": (RunState.FAILED, 255, -signal.SIGINT),
    "sys.exit()": (RunState.FINISHED, 0, 0),
    "with run: sys.exit(7)": (RunState.FAILED, 7, 7),
    "import os; os.fork() or os._exit(0); os.wait()": (RunState.FINISHED, 0, 0),
    "os = __import__('os'); pid = os.fork(); pid or sys.exit(5); os.waitpid(pid, 0)": (RunState.FINISHED, 0, 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_how_a_program_ends_is_how_its_run_ends(store: Store, directory: Path, ending: str) -> None:
    script = f"import resweep, sys\nrun = resweep.init(id='r1')\nrun.log({{'n': 0}})\n{ending}\n"
    status, output, errors = run_script(script, directory)
    record = store.run("r1")
    assert (record.state, record.exit_code, status) == ENDINGS[ending], output + errors
    assert stored_rows(store) == 1


def test_sys_exit_keeps_the_run_for_auto_resume(store: Store, directory: Path) -> None:
    script = "import resweep, sys\nrun = resweep.init(resume='auto')\nrun.log({})\nprint(run.id)\nsys.exit(%s)\n"
    _, first, errors = run_script(script % 1, directory)
    assert "the program ended by sys.exit(), whose code cannot be seen" in errors
    _, second, _ = run_script(script.replace("sys.exit(%s)", "pass"), directory)
    assert first == second
    _, third, _ = run_script(script % 0, directory)
    assert third != first


def test_a_forked_child_does_not_send(store: Store, directory: Path) -> None:
    script = """
        import multiprocessing, resweep
        context = multiprocessing.get_context("fork")

        def child():
            resweep.run is None or run.log({"child": 1})
            run.log({"child": 2})
            assert run.mark_preempting() is False
            run.finish(9)

        with resweep.init(id="r1") as run:
            run.log({"n": 0})
            process = context.Process(target=child)
            process.start()
            process.join()
            assert process.exitcode == 0
            run.log({"n": 1})
    """
    status, _, errors = run_script(script, directory)
    assert status == 0, errors
    assert [dict(row.values) for row in store.history("r1")] == [{"n": 0}, {"n": 1}]
    assert store.run("r1").state is RunState.FINISHED


def test_a_forked_child_may_begin_a_run_of_its_own(store: Store, directory: Path) -> None:
    script = """
        import os, resweep
        parent = resweep.init(id="r1")
        parent.log({"n": 0})
        pid = os.fork()
        if pid == 0:
            with resweep.init(id="r2") as run:
                assert run.id == "r2"
                run.log({"n": 1})
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        parent.log({"n": 2})
    """
    status, _, errors = run_script(script, directory)
    assert status == 0, errors
    assert (stored_rows(store, "r1"), stored_rows(store, "r2")) == (2, 1)


def test_a_signal_handler_marks_saves_and_exits(store: Store, directory: Path) -> None:
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    script = """
        import resweep, signal, sys
        run = resweep.init()

        def leave(number, frame):
            assert run.mark_preempting()
            run.save_checkpoint(__file__)
            run.finish()
            sys.exit(1)

        signal.signal(signal.SIGTERM, leave)
        print("ready", flush=True)
        while True:  # the handler interrupts log() wherever it is
            run.log({"n": run.step})
    """
    with start_script(script, directory, attempt_environment(store, agent)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        wait_until(lambda: stored_rows(store, "run0") > 0, description="rows")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    record = store.run("run0")
    assert record.state is RunState.PREEMPTING
    assert record.checkpoint is not None
    steps = row_steps(store, "run0")
    assert steps == list(range(len(steps)))
    assert record.checkpoint.step is not None
    assert record.checkpoint.step >= steps[-1] - 1
    assert all(row.values == {"n": row.step} for row in store.history("run0"))


def test_two_processes_in_one_directory_with_auto_resume(store: Store, directory: Path) -> None:
    script = """
        import resweep, sys
        run = resweep.init(resume="auto")
        run.log({"n": run.starting_step})
        print(run.id, run.starting_step, flush=True)
        sys.stdin.readline()
        run.finish(int(sys.argv[1]))
    """

    def ready(process: subprocess.Popen[str]) -> tuple[str, int]:
        assert process.stdout is not None
        run_id, step = process.stdout.readline().split()
        return run_id, int(step)

    processes = [start_script(script, directory, None, "1") for _ in range(2)]
    first = [ready(process) for process in processes]
    assert len({run_id for run_id, _ in first}) == 2
    for process, (run_id, _) in zip(processes, first, strict=True):
        wait_until(lambda run_id=run_id: stored_rows(store, run_id) == 1, description="its row")  # type: ignore[misc]
        process.kill()
        process.communicate()
    processes = [start_script(script, directory, None, "0") for _ in range(2)]
    second = [ready(process) for process in processes]
    assert sorted(second) == sorted((run_id, 1) for run_id, _ in first), "each dead run goes on in one process"
    for process in processes:
        process.communicate("\n", timeout=60)
        assert process.returncode == 0
    assert not (directory / "resweep" / "auto-resume.json").exists()


def test_without_a_url_the_embedded_server_is_used(directory: Path) -> None:
    from resweep_scheduler.service.server import ensure_server, stop_server

    try:
        with clean_session(), resweep.init(id="r1") as run:
            run.log({"n": 0})
        store = open_store(ensure_server(), Scope())
        assert stored_rows(store) == 1
        store.client.close()
    finally:
        stop_server()
