"""W&B's `scheduler` with a `source`, as a user runs it: who executes the file, and what is said where nobody does."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.agents import AgentProcess
from support.desk import Desk, desk_in
from support.servers import Server
from support.waiting import wait_until

from resweep_scheduler.cli.exitcodes import ExitCode

STUDY = Path(__file__).parent.parent / "support" / "study.py"
CONFIG: dict[str, object] = {
    "program": "train.py",
    "method": "custom",
    "metric": {"name": "loss"},
    "run_cap": 6,
    "scheduler": {"engine": "optuna", "source": "study.py", "optimizer": "tpe", "search_space": "draw"},
    "command": ["${env}", "${interpreter}", "${program}", "--x=${x}", "--m=${optimizer.momentum}"],
}
TRAIN = """\
import json, sys
import resweep
with resweep.init() as run:
    with open("arguments", "a") as file:
        file.write(json.dumps(sys.argv[1:]) + chr(10))
    run.log({"loss": (run.config["x"] - 0.3) ** 2})
"""


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as made:
        made.write("train.py", TRAIN)
        shutil.copy(STUDY, made.folder / "study.py")
        made.write("sweep.yaml", json.dumps(CONFIG))
        yield made


@contextmanager
def scheduler(desk: Desk, *words: str) -> Iterator[None]:
    service = AgentProcess(
        "scheduler", ["resweep", "scheduler", *words],
        environment=desk.environment, directory=desk.folder, log=desk.folder / "scheduler.log",
    )  # fmt: skip
    try:
        yield
    finally:
        service.kill()


def created_by(output: str) -> str:
    found = re.search(r"Created sweep (?:with ID: )?(\w+)", output)
    assert found is not None, output
    return found[1]


def test_start_runs_a_sweep_whose_parameters_a_function_draws(desk: Desk) -> None:
    done = desk.resweep("start", "sweep.yaml", "--agents", "2")
    sweep_id = created_by(done.err)
    runs = desk.runs(sweep_id)
    assert [run["state"] for run in runs] == ["finished"] * 6
    assert len({run["params"]["x"] for run in runs}) == 6
    for run in runs:
        assert set(run["params"]) == {"x", "y", "depth", "optimizer", "epochs"}
        assert ("momentum" in run["params"]["optimizer"]) == (run["params"]["optimizer"]["name"] == "sgd")
    words = [json.loads(line) for line in desk.lines("arguments")]
    assert sorted(word[0] for word in words) == sorted(f"--x={run['params']['x']}" for run in runs)
    assert sum(len(word) == 2 for word in words) == sum(run["params"]["optimizer"]["name"] == "sgd" for run in runs)


def test_start_ends_with_a_finite_search(desk: Desk) -> None:
    scheduler = {"engine": "optuna", "source": "study.py", "optimizer": "grid"}
    parameters = {"a": {"min": 1, "max": 3}, "b": {"values": [1, 2]}}
    train = "import resweep\nwith resweep.init() as run:\n    run.log({'loss': run.config['a']})\n"
    desk.write("train.py", train)
    command = ["${env}", "${interpreter}", "${program}", "${args}"]
    config = {**CONFIG, "scheduler": scheduler, "parameters": parameters, "run_cap": None, "command": command}
    desk.write("sweep.yaml", json.dumps(config))
    sweep_id = created_by(desk.resweep("start", "sweep.yaml", "--agents", "2").err)
    points = sorted((run["params"]["a"], run["params"]["b"]) for run in desk.runs(sweep_id))
    assert points == [(a, b) for a in (1, 2, 3) for b in (1, 2)]
    assert desk.show(sweep_id)["state"] == "finished"


def test_agents_without_the_file_wait_for_a_scheduler_that_has_it(desk: Desk) -> None:
    said = desk.resweep("create", "sweep.yaml").out
    sweep_id = created_by(said)
    assert "Run the search with: resweep scheduler --source study.py\n" in said
    must_run = "none; resweep scheduler --source study.py, or agents with --source, must run"
    assert must_run in " ".join(desk.resweep("show", sweep_id).out.split())
    (desk.folder / "elsewhere").mkdir()
    (desk.folder / "study.py").rename(desk.folder / "elsewhere" / "study.py")
    agents = [desk.start_agent(sweep_id, "--name", f"a{number}") for number in range(2)]
    wait_until(lambda: len(desk.show(sweep_id)["agents"]) == 2, timeout=60, description="the agents")
    desk.resweep("scheduler", "--burst")  # one without the file does nothing
    assert desk.runs(sweep_id) == []
    with scheduler(desk, "--source", "elsewhere/study.py"):
        assert [agent.wait(120) for agent in agents] == [0, 0]
    assert [run["state"] for run in desk.runs(sweep_id)] == ["finished"] * 6
    for agent in agents:
        assert agent.printed().count("search-left-to-others") == 1
    assert must_run not in desk.resweep("show", sweep_id).out


def test_one_agent_with_the_file_asks_for_those_without(desk: Desk) -> None:
    sweep_id = desk.create(CONFIG)
    waiting = desk.start_agent(sweep_id, "--name", "waits")
    wait_until(lambda: desk.show(sweep_id)["agents"], timeout=60, description="the agent")
    desk.agent(sweep_id, "--name", "asks", "--source", "study.py")
    assert waiting.wait(60) == 0
    assert [run["state"] for run in desk.runs(sweep_id)] == ["finished"] * 6


def test_start_of_an_existing_sweep_executes_only_what_is_named_again(desk: Desk) -> None:
    sweep_id = desk.create(CONFIG)
    desk.write("study.py", STUDY.read_text() + "\nopen('proof', 'w').close()\n")
    desk.agent(sweep_id, "--max-wait", "2")
    assert not (desk.folder / "proof").exists()
    assert "these agents do not execute" not in (
        desk.resweep("start", sweep_id, "--agents", "1", "--source", "study.py").err
    )
    assert (desk.folder / "proof").exists()
    assert [run["state"] for run in desk.runs(sweep_id)] == ["finished"] * 6


def test_start_of_an_existing_sweep_says_that_its_agents_leave_the_search_to_others(desk: Desk) -> None:
    sweep_id = desk.create(CONFIG)
    with scheduler(desk, "--source", "study.py"):
        said = desk.resweep("start", sweep_id, "--agents", "1").err
    assert (
        "the search is in study.py, which these agents do not execute: they wait for "
        "`resweep scheduler --source study.py`; or add --source study.py here"
    ) in said
    assert [run["state"] for run in desk.runs(sweep_id)] == ["finished"] * 6


def test_what_is_wrong_with_the_file_is_said_at_creation(desk: Desk) -> None:
    desk.write("study.py", "def drow(trial): ...\n")
    done = desk.resweep("create", "sweep.yaml", code=ExitCode.USAGE)
    assert "scheduler.search_space: must be a function that study.py defines at its top level" in done.err
    assert "scheduler.optimizer: must be a function" in done.err
    assert json.loads(desk.resweep("validate", "sweep.yaml", "--json", code=ExitCode.USAGE).out)[0]["valid"] is False
    (desk.folder / "study.py").unlink()
    done = desk.resweep("validate", "sweep.yaml")
    assert done.out == "sweep.yaml: ok, bayes, drawn parameters, 6 runs\n"
    assert f"study.py is not in {desk.folder}: whether it has tpe and draw is not known" in done.err
    done = desk.resweep("start", "sweep.yaml", code=ExitCode.COMMAND_NOT_FOUND)
    assert "the source 'study.py' is not in" in done.err


def test_a_function_that_fails_ends_agents_and_start_with_its_line(desk: Desk) -> None:
    desk.write("study.py", "def tpe(sweep):\n    return sweep.config['nothing']\n\ndef draw(trial): ...\n")
    done = desk.resweep("start", "sweep.yaml", "--agents", "1", code=ExitCode.UNEXPECTED)
    assert "KeyError: 'nothing'" in done.err
    assert "study.py, line 2" in done.err
