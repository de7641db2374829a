"""The `resweep` command beside real agents: what it says comes true, JSON stands alone, exit codes are as in help."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import Desk, desk_in
from support.servers import Server
from support.waiting import wait_until

WAITING = """\
    import os, sys, time
    from pathlib import Path
    import resweep
    with resweep.init() as run:
        run.log({"loss": 1.0 / run.config["a"]})
        Path(f"ready-{run.config['a']}").touch()
        while not Path("go").exists():
            time.sleep(0.02)
"""


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as desk:
        desk.write("wait.py", WAITING)
        yield desk


def waiting_sweep(desk: Desk, points: int = 3) -> str:
    return desk.create(
        {"program": "wait.py", "method": "grid", "metric": {"name": "loss", "goal": "minimize"},
         "lease": {"duration": 5, "heartbeat": 0.5}, "preemption": {"grace": 5},
         "parameters": {"a": {"min": 1, "max": points}} if points > 1 else {"a": {"value": 1}}}
    )  # fmt: skip


def ready(desk: Desk, number: int) -> None:
    wait_until((desk.folder / f"ready-{number}").exists, description=f"child {number}")


def states(desk: Desk, sweep: str) -> list[str]:
    return [run["state"] for run in desk.runs(sweep)]


def test_pause_lets_runs_end_and_resume_goes_on(desk: Desk) -> None:
    sweep = waiting_sweep(desk, 2)
    agent = desk.start_agent(sweep)
    ready(desk, 1)
    assert "is paused" in desk.resweep("pause", sweep).line()
    (desk.folder / "go").touch()
    wait_until(lambda: states(desk, sweep) == ["finished"], description="the end of the run")
    assert agent.running
    desk.resweep("resume", sweep)
    assert agent.wait() == 0
    assert states(desk, sweep) == ["finished", "finished"]


def test_stop_of_a_sweep_lets_runs_end_and_begins_none(desk: Desk) -> None:
    sweep = waiting_sweep(desk)
    agent = desk.start_agent(sweep)
    ready(desk, 1)
    desk.resweep("stop", sweep)
    (desk.folder / "go").touch()
    assert agent.wait() == 0
    assert states(desk, sweep) == ["finished"]
    assert desk.show(sweep)["state"] == "finished"


def test_stop_of_a_run_kills_it_and_the_sweep_goes_on(desk: Desk) -> None:
    sweep = waiting_sweep(desk)
    agent = desk.start_agent(sweep)
    ready(desk, 1)
    run = desk.only_run(sweep)
    desk.resweep("stop", "--run", run["id"])
    ready(desk, 2)
    (desk.folder / "go").touch()
    assert agent.wait() == 0
    assert states(desk, sweep) == ["killed", "finished", "finished"]
    assert [point["params"]["a"] for point in desk.resweep("missing", sweep, "--json").json()] == [1]
    desk.resweep("retry", sweep, "--killed")
    desk.agent(sweep)
    assert states(desk, sweep) == ["finished"] * 3
    assert desk.runs(sweep)[0]["attempt"] == 2


def test_cancel_kills_what_runs(desk: Desk) -> None:
    sweep = waiting_sweep(desk)
    agent = desk.start_agent(sweep)
    ready(desk, 1)
    desk.resweep("cancel", sweep)
    assert agent.wait() == 0
    assert states(desk, sweep) == ["killed"]
    assert desk.show(sweep)["state"] == "canceled"
    done = desk.resweep("pause", sweep, code=6)
    assert "canceled" in done.line()
    desk.resweep("rm", "-y", sweep)
    desk.resweep("show", sweep, code=3)
    assert desk.resweep("ls", "--json").json() == []


def test_retry_of_failed_crashed_and_named_runs(desk: Desk) -> None:
    desk.write(
        "ends.py",
        """\
        import os, signal, sys
        if os.environ["RESWEEP_ATTEMPT"] == "1":
            if sys.argv[1] == "--a=2":
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit(sys.argv[1] != "--a=4")
        """,
    )
    config = {"program": "ends.py", "method": "grid", "parameters": {"a": {"min": 1, "max": 4}}}
    sweep = desk.create(config)
    quiet = {"WANDB_AGENT_DISABLE_FLAPPING": "1"}
    desk.agent(sweep, env=quiet)
    assert states(desk, sweep) == ["failed", "crashed", "failed", "finished"]
    ids = [run["id"] for run in desk.runs(sweep)]
    desk.resweep("retry", sweep, ids[2])
    assert desk.show(sweep)["queue"] == [ids[2]]
    desk.resweep("retry", sweep, "--crashed")
    assert desk.show(sweep)["queue"] == [ids[2], ids[1]]
    desk.resweep("retry", sweep, "--failed")
    assert desk.show(sweep)["queue"] == [ids[2], ids[1], ids[0]]
    desk.agent(sweep)
    assert [(run["state"], run["attempt"]) for run in desk.runs(sweep)] == [("finished", 2)] * 3 + [("finished", 1)]
    assert desk.resweep("retry", sweep, ids[0], code=6).line().startswith("error: ")
    desk.resweep("retry", sweep, "nosuchid", code=3)
    desk.resweep("retry", sweep, code=2)


def test_reads_print_json_alone_and_the_promised_fields(desk: Desk) -> None:
    (desk.folder / "go").touch()
    sweep = waiting_sweep(desk)
    desk.agent(sweep)
    runs = desk.runs(sweep)
    for run in runs:
        assert {"id", "state", "attempt", "agent", "params", "step", "exit_code", "summary"} <= set(run)
    assert {"id", "state", "queue", "counts"} <= set(desk.show(sweep))
    assert desk.resweep("best", sweep, "--json").json()["params"] == {"a": 3}
    best_first = [run["params"]["a"] for run in desk.resweep("runs", sweep, "--best-first", "--json").json()]
    assert best_first == [3, 2, 1]
    assert [found["id"] for found in desk.resweep("ls", "--json").json()] == [sweep]
    run_id = runs[0]["id"]
    assert desk.resweep("run", run_id, "--json").json()["id"] == run_id
    for words in (["logs", run_id], ["history", run_id], ["missing", sweep], ["doctor"]):
        done = desk.resweep(*words, "--json", code=None)
        json.loads(done.out)
    lines = desk.resweep("export", sweep).out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [run["id"] for run in runs]
    table = list(csv.DictReader(io.StringIO(desk.resweep("export", sweep, "--format", "csv").out)))
    assert [(row["id"], row["params.a"], row["state"]) for row in table] == [
        (run["id"], str(run["params"]["a"]), "finished") for run in runs
    ]
    kinds = [event["kind"] for event in desk.events(sweep) if event["run"] == run_id]
    assert kinds == ["suggested", "claimed", "finished"]


def test_watch_tells_what_happens_from_now_on(desk: Desk) -> None:
    sweep = waiting_sweep(desk, 2)
    agent = desk.start_agent(sweep)
    ready(desk, 1)
    with (desk.folder / "events").open("wb") as sink:
        watch = subprocess.Popen(["resweep", "watch", sweep, "--json"], env=desk.environment, stdout=sink)

    def listens() -> bool:
        desk.read_by("pause", sweep)
        desk.read_by("resume", sweep)
        return bool(desk.lines("events"))

    try:
        wait_until(listens, interval=0.1, description="a first event")
        (desk.folder / "go").touch()
        assert (agent.wait(), watch.wait(30)) == (0, 0)
    finally:
        watch.kill()
        watch.wait(10)
    events = [json.loads(line) for line in desk.lines("events")]
    assert [event["kind"] for event in events if event["run"]] == ["finished", "suggested", "claimed", "finished"]
    assert (events[-1]["kind"], events[-1]["after"]) == ("state", "finished")
    assert "finished" in desk.read_by("watch", sweep)


def test_start_with_a_sweep_that_is_there(desk: Desk) -> None:
    (desk.folder / "go").touch()
    sweep = waiting_sweep(desk)
    done = desk.resweep("start", sweep, "--agents", "2")
    assert "best run" in done.out
    assert states(desk, sweep) == ["finished"] * 3


def test_rows_that_were_kept_in_files_are_sent_later(desk: Desk) -> None:
    desk.write(
        "off.py", "import resweep\nwith resweep.init(id='off') as run:\n    run.log({'x': 1})\n    run.log({'x': 2})\n"
    )
    desk.python("off.py", env={"RESWEEP_MODE": "offline", "RESWEEP_URL": "redis://127.0.0.1:1"})
    desk.resweep("run", "off", code=3)
    assert "2 rows stored" in desk.resweep("sync").line()
    assert [(row["_step"], row["x"]) for row in desk.history("off")] == [(0, 1), (1, 2)]
    desk.resweep("sync")
    assert len(desk.history("off")) == 2


def test_disabled_does_nothing(desk: Desk) -> None:
    desk.write(
        "off.py", "import resweep\nwith resweep.init(id='off') as run:\n    run.log({'x': 1})\n    print(run.id)\n"
    )
    desk.python("off.py", env={"WANDB_MODE": "disabled", "RESWEEP_URL": "redis://127.0.0.1:1"})
    desk.resweep("run", "off", code=3)


def test_embedded_server_of_its_own(desk: Desk) -> None:
    """Without any URL; the data outlives a stop."""
    own = {"RESWEEP_URL": "", "REDIS_URL": ""}
    assert "not" in desk.resweep("server", "status", env=own, code=None).out
    desk.resweep("server", "start", env=own)
    assert "unix://" in desk.resweep("server", "status", env=own).out
    text = json.dumps({"program": "t.py", "method": "grid", "parameters": {"a": {"value": 1}}})
    sweep = desk.resweep("create", "-q", "-", env=own, text=text).out.strip()
    desk.resweep("doctor", env=own)
    desk.resweep("server", "stop", env=own)
    desk.write("t.py", "import os\nprint(os.environ['RESWEEP_URL'])\n")
    done = desk.agent(sweep, env=own)
    assert "unix://" in done.out + done.err
    assert desk.resweep("show", sweep, "--json", env=own).json()["state"] == "finished"
    desk.resweep("server", "stop", env=own)


def test_validate_schema_and_completion(desk: Desk) -> None:
    desk.write("good.yaml", "program: t.py\nmethod: grid\nparameters: {a: {value: 1}}\n")
    desk.write("bad.yaml", "program: t.py\nmethod: grid\nparameters: {a: {valeu: 1}}\n")
    desk.resweep("validate", "good.yaml")
    done = desk.resweep("validate", "good.yaml", "bad.yaml", code=2)
    assert "bad.yaml:3:" in done.err
    assert "value" in done.err
    assert desk.resweep("schema").json()["type"] == "object"
    for shell in ("bash", "zsh", "fish"):
        assert "resweep" in desk.resweep("completion", shell).out
    desk.call("bash", "-c", 'eval "$(resweep completion bash)"')


def test_logs_follow_until_the_run_ends(desk: Desk) -> None:
    desk.write(
        "talk.py",
        """\
        import time
        from pathlib import Path
        print("first", flush=True)
        while not Path("go").exists():
            time.sleep(0.02)
        print("last", flush=True)
        """,
    )
    sweep = desk.create({"program": "talk.py", "method": "grid", "parameters": {"a": {"value": 1}}})
    agent = desk.start_agent(sweep)
    wait_until(lambda: desk.runs(sweep), description="a run")
    run_id = desk.only_run(sweep)["id"]
    wait_until(lambda: "first" in desk.resweep("logs", run_id).out, description="output in Redis")
    (desk.folder / "go").touch()
    assert desk.resweep("logs", run_id, "-f").out.splitlines() == ["first", "last"]
    assert agent.wait() == 0


def test_ctrl_c_in_start_gives_the_runs_back(desk: Desk) -> None:
    """A person at the terminal: Ctrl-C reaches `start` and its agents alike."""
    desk.write(
        "sweep.yaml", f"program: wait.py\nmethod: grid\nparameters: {{a: {{min: 1, max: 2}}}}\n# {sys.version}\n"
    )
    words = ["resweep", "start", "sweep.yaml"]
    with subprocess.Popen(words, cwd=desk.folder, env=desk.environment, process_group=0) as start:
        wait_until(lambda: any(desk.folder.glob("ready-*")), description="a run")
        os.killpg(start.pid, signal.SIGINT)
        assert start.wait(60) == 130
    (sweep,) = desk.resweep("ls", "--json").json()
    assert sweep["counts"]["running"] == 0
    assert len(sweep["queue"]) == sweep["counts"]["preempted"] >= 1
    (desk.folder / "go").touch()
    desk.resweep("start", sweep["id"])
    assert states(desk, sweep["id"]) == ["finished"] * 2
