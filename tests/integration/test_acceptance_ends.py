"""How runs end and come back, through real agents: exit status x mark_preempting, and the queue before the search."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import wait_for_death
from support.desk import Desk, desk_in
from support.servers import Server
from support.waiting import wait_until

COMMAND = [sys.executable, "${program}", "${args_json}"]
QUIET = {"WANDB_AGENT_DISABLE_FLAPPING": "true"}


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as desk:
        yield desk


ENDS = """\
    import json, os, signal, sys
    from pathlib import Path
    import resweep

    params = json.loads(sys.argv[1])

    def on_signal(number, frame):
        run.mark_preempting()
        os._exit(1)

    with resweep.init() as run:
        with open("attempts", "a") as file:
            print(json.dumps([run.id, params["how"], params["mark"], run.attempt, run.resumed, run.starting_step,
                dict(run.config), str(run.restore_checkpoint() or "")]), file=file)
        if run.attempt > 1:
            run.log({"loss": 0.5})
            sys.exit(0)
        if params["mark"] == "init":
            assert run.mark_preempting()
        if params["mark"] == "handler":
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, on_signal)
        run.log({"loss": 1.0})
        Path(f"model-{run.id}").write_text(run.id)
        run.save_checkpoint(f"model-{run.id}", step=0)
        if params["how"].startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, params["how"]))
            signal.pause()
    sys.exit(int(params["how"]))
"""

HOW = ["0", "1", "3", "SIGKILL", "SIGINT", "SIGTERM", "SIGUSR1"]
CAUGHT = {"SIGINT", "SIGTERM", "SIGUSR1"}


def expected_end(how: str, mark: str) -> str:
    """wandb.md's table, but for its deviation that a script which nobody stopped is never `killed`."""
    if how == "0":
        return "finished"
    if mark == "init" or (mark == "handler" and how in CAUGHT):
        return "preempted"
    return "crashed" if how.startswith("SIG") else "failed"


def test_exit_status_and_mark_decide_what_becomes_of_a_run(desk: Desk) -> None:
    desk.write("ends.py", ENDS)
    marks = ["never", "handler", "init"]
    sweep = desk.create(
        {"program": "ends.py", "method": "grid", "command": COMMAND, "metric": {"name": "loss"},
         "parameters": {"how": {"values": HOW}, "mark": {"values": marks}}},
    )  # fmt: skip
    desk.agent(sweep, "--name", "one", env=QUIET)
    events = desk.events(sweep)
    runs = {run["id"]: run for run in desk.runs(sweep)}
    first_end = {}
    for event in events:
        if event["kind"] in {"finished", "failed", "crashed", "killed", "preempted"} and event["run"] not in first_end:
            first_end[event["run"]] = event["kind"]
    cells = {(run["params"]["how"], run["params"]["mark"]): run for run in runs.values()}
    assert {cell: first_end[run["id"]] for cell, run in cells.items()} == {
        (how, mark): expected_end(how, mark) for how in HOW for mark in marks
    }
    for (how, mark), run in cells.items():
        end = expected_end(how, mark)
        assert run["attempt"] == (2 if end == "preempted" else 1), run
        assert run["state"] == ("finished" if end == "preempted" else end), run
        assert run["exit_code"] == (None if end == "crashed" else int(how) if end != "preempted" else 0), run
    check_second_attempts(desk, runs)
    check_queue_before_search([(event["kind"], event["run"]) for event in events])
    counts = desk.show(sweep)["counts"]
    assert sum(counts.values()) == len(HOW) * len(marks)
    assert desk.show(sweep)["queue"] == []


def check_second_attempts(desk: Desk, runs: dict[str, dict[str, object]]) -> None:
    """Same id and parameters; steps go on; the checkpoint is there."""
    second = [entry for line in desk.lines("attempts") if (entry := json.loads(line))[3] == 2]
    assert len(second) == 9
    for run_id, how, mark, _, resumed, starting_step, config, checkpoint in second:
        assert runs[run_id]["params"] == config == {"how": how, "mark": mark}
        assert (resumed, starting_step) == (True, 1)
        assert Path(checkpoint).read_text() == run_id
    rows = [(row["_step"], row["loss"]) for row in desk.history(second[0][0])]
    assert rows == [(0, 1.0), (1, 0.5)]


def check_queue_before_search(events: list[tuple[str, str]]) -> None:
    """While a run waits on the queue no other is claimed, nor anything new suggested."""
    waiting: list[str] = []
    for kind, run in events:
        if kind == "preempted":
            waiting.append(run)
        elif kind == "claimed" and waiting:
            assert run == waiting.pop(0)
        elif kind == "suggested":
            assert not waiting, f"{run} was suggested while {waiting} waited"


def test_several_queued_runs_are_drained_in_their_order_before_a_new_one_begins(desk: Desk) -> None:
    """Three slots are preempted together; a later agent takes their runs first, oldest preemption first."""
    desk.write(
        "train.py",
        """\
        import os, sys, time
        with open("claims", "a") as file:
            print(os.environ["WANDB_RUN_ID"], os.environ["RESWEEP_ATTEMPT"], file=file)
        time.sleep(60 if os.environ["RESWEEP_ATTEMPT"] == "1" and "second" not in os.environ else 0)
        """,
    )
    sweep = desk.create(
        {"program": "train.py", "method": "random", "run_cap": 5, "parameters": {"a": {"min": 0.0, "max": 1.0}}}
    )
    agent = desk.start_agent(sweep, "--slots", "3", "--grace", "5")
    wait_until(lambda: len(desk.lines("claims")) == 3, description="three children")
    agent.send(signal.SIGTERM)
    assert agent.wait() == 75
    queue = desk.show(sweep)["queue"]
    assert len(queue) == 3
    assert sorted(queue) == sorted(line.split()[0] for line in desk.lines("claims"))
    desk.agent(sweep, env={"second": "1"})
    later = [line.split() for line in desk.lines("claims")[3:]]
    assert [line[0] for line in later[:3]] == queue
    assert [line[1] for line in later] == ["2", "2", "2", "1", "1"]
    assert {run["state"] for run in desk.runs(sweep)} == {"finished"}


VANISH = """\
    import json, os, sys, time
    from pathlib import Path
    import resweep
    mark = json.loads(sys.argv[1])["mark"]
    with resweep.init() as run:
        if run.attempt == 1:
            if mark:
                run.mark_preempting()
            run.log({"loss": 1.0})
            Path(f"pid-{run.id}").write_text(str(os.getpid()))
            time.sleep(60)
"""


@pytest.mark.parametrize(
    ("mark", "options", "state"),
    [(True, [], "finished"), (False, [], "crashed"), (False, ["--preemptible"], "finished")],
)
def test_no_status_of_an_agent_that_vanished(desk: Desk, mark: bool, options: list[str], state: str) -> None:
    """The agent is killed with SIGKILL: its child dies, and another agent sees the lease run out."""
    desk.write("vanish.py", VANISH)
    sweep = desk.create(
        {"program": "vanish.py", "method": "grid", "command": COMMAND, "lease": {"duration": 1.5, "heartbeat": 0.5},
         "parameters": {"mark": {"value": mark}}},
    )  # fmt: skip
    agent = desk.start_agent(sweep, "--name", "first", *options)
    wait_until(lambda: list(desk.folder.glob("pid-*")), description="a child")
    (pid_file,) = desk.folder.glob("pid-*")
    run_id = pid_file.name.removeprefix("pid-")
    wait_until(lambda: len(desk.history(run_id)) == 1, description="a row")
    agent.kill()
    desk.agent(sweep, "--name", "second")
    run = desk.only_run(sweep)
    assert (run["id"], run["state"], run["attempt"]) == (run_id, state, 2 if state == "finished" else 1)
    wait_for_death([int(pid_file.read_text())])


def test_endless_preemption_without_progress_is_ended_and_says_why(desk: Desk) -> None:
    desk.write("bug.py", "import sys, resweep\nresweep.init().mark_preempting()\nsys.exit(1)\n")
    sweep = desk.create(
        {"program": "bug.py", "method": "grid", "parameters": {"a": {"value": 1}},
         "preemption": {"max_attempts_without_progress": 2}},
    )  # fmt: skip
    desk.agent(sweep, env=QUIET)
    run = desk.only_run(sweep)
    assert (run["state"], run["attempt"]) == ("failed", 2)
    assert "max_attempts_without_progress" in run["reason"]


def test_retry_policy_of_the_config(desk: Desk) -> None:
    desk.write("train.py", "import os, sys\nsys.exit(os.environ['RESWEEP_ATTEMPT'] != '3')\n")
    desk.write("dies.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    failing = {"program": "train.py", "method": "grid", "parameters": {"a": {"value": 1}}}
    for retry, end in (
        ({"failed": 1}, ("failed", 2)),
        ({"failed": 2}, ("finished", 3)),
        ({"crashed": 3}, ("failed", 1)),
    ):
        sweep = desk.create({**failing, "retry": retry})
        desk.agent(sweep, env=QUIET)
        run = desk.only_run(sweep)
        assert (run["state"], run["attempt"]) == end, retry
    sweep = desk.create({**failing, "program": "dies.py", "retry": {"crashed": 1}})
    desk.agent(sweep, env=QUIET)
    run = desk.only_run(sweep)
    assert (run["state"], run["attempt"], run["signal"]) == ("crashed", 2, signal.SIGKILL)


NOTICE = """\
    import json, os, signal, sys, time
    from pathlib import Path
    import resweep
    how = json.loads(sys.argv[1])["how"]

    def save_and_go(number, frame):
        Path("state").write_text("saved")
        run.save_checkpoint("state", step=0)
        sys.exit(1)

    with resweep.init() as run:
        if run.attempt == 2:
            print("found", run.restore_checkpoint() is not None, flush=True)
            sys.exit(0)
        if how == "saves":
            signal.signal(signal.SIGTERM, save_and_go)
        if how == "ignores":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        run.log({"loss": 1.0})
        Path("ready").touch()
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("how", "number"), [("saves", signal.SIGTERM), ("dies", signal.SIGHUP), ("ignores", signal.SIGTERM)]
)
def test_notice_requeues_at_once_whatever_the_script_does(desk: Desk, how: str, number: signal.Signals) -> None:
    desk.write("notice.py", NOTICE)
    sweep = desk.create(
        {"program": "notice.py", "method": "grid", "command": COMMAND, "parameters": {"how": {"value": how}}}
    )
    agent = desk.start_agent(sweep, "--grace", "0.5" if how == "ignores" else "20")
    wait_until((desk.folder / "ready").exists, description="the child")
    agent.send(number)
    assert agent.wait() == 75
    shown = desk.show(sweep)
    run = desk.only_run(sweep)
    assert (run["state"], shown["queue"]) == ("preempted", [run["id"]])
    assert "preempting" in {event["kind"] for event in desk.events(sweep)}
    desk.agent(sweep)
    run = desk.only_run(sweep)
    assert (run["state"], run["attempt"]) == ("finished", 2)
    assert f"found {how == 'saves'}" in desk.resweep("logs", run["id"], "--attempt", "2").out


def test_no_preemptible_ends_without_a_mark(desk: Desk) -> None:
    desk.write("notice.py", NOTICE)
    sweep = desk.create(
        {"program": "notice.py", "method": "grid", "command": COMMAND, "parameters": {"how": {"value": "dies"}}}
    )
    agent = desk.start_agent(sweep, "--no-preemptible")
    wait_until((desk.folder / "ready").exists, description="the child")
    agent.send(signal.SIGTERM)
    agent.wait()
    run = desk.only_run(sweep)
    assert run["state"] in {"crashed", "killed"}, run
    assert desk.show(sweep)["queue"] == []


def test_ctrl_c_once_finishes_the_run_and_twice_gives_it_back(desk: Desk) -> None:
    desk.write(
        "slow.py",
        """\
        import os, sys, time
        from pathlib import Path
        Path("ready").touch()
        while not Path("go").exists():
            time.sleep(0.02)
        """,
    )
    sweep = desk.create({"program": "slow.py", "method": "grid", "parameters": {"a": {"values": [1, 2, 3]}}})
    agent = desk.start_agent(sweep)
    wait_until((desk.folder / "ready").exists, description="the child")
    agent.send(signal.SIGINT)
    wait_until(lambda: "Ctrl-C" in agent.printed() or "interrupt" in agent.printed().lower(), description="a word")
    (desk.folder / "go").touch()
    assert agent.wait() == 0
    assert [run["state"] for run in desk.runs(sweep)] == ["finished"]
    os.unlink(desk.folder / "go")
    os.unlink(desk.folder / "ready")
    agent = desk.start_agent(sweep)
    wait_until((desk.folder / "ready").exists, description="the child")
    agent.send(signal.SIGINT)
    wait_until(lambda: "Ctrl-C" in agent.printed() or "interrupt" in agent.printed().lower(), description="a word")
    agent.send(signal.SIGINT)
    assert agent.wait() == 75
    assert [run["state"] for run in desk.runs(sweep)] == ["finished", "preempted"]
