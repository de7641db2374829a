"""What a user gets from samplers by name, several goals and prior runs: the whole way, with real agents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk, desk_in
from support.servers import Server

TRAIN = """\
    import resweep
    with resweep.init() as run:
        x = run.config["x"]
        for step in range(3):
            run.log({"loss": (x - 3) ** 2 + 2 - step, "cost": float(x), "note": "text"})
"""


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as desk:
        desk.write("train.py", TRAIN)
        yield desk


def config(**keys: Any) -> dict[str, Any]:
    return {"program": "train.py", "method": "bayes", "seed": 3, "parameters": {"x": {"min": 0, "max": 5}}, **keys}


METRICS = [{"name": "loss"}, {"name": "cost"}]


def test_several_goals_end_in_a_front(desk: Desk) -> None:
    """loss is least at 3 and cost at 0, so the front is 0 to 3; brute force ends when it had all six."""
    scheduler = {"engine": "optuna", "optimizer": "brute_force"}
    sweep = desk.create(config(method="custom", metrics=METRICS, scheduler=scheduler))
    assert "No finished run" in desk.resweep("best", sweep).err
    desk.agent(sweep)
    assert sorted(run["params"]["x"] for run in desk.runs(sweep)) == [0, 1, 2, 3, 4, 5]
    front = json.loads(desk.read_by("best", sweep, "--json"))
    assert [(run["params"]["x"], run["values"]) for run in front] == [
        (3, [0.0, 3.0]), (2, [1.0, 2.0]), (1, [4.0, 1.0]), (0, [9.0, 0.0]),
    ]  # fmt: skip
    assert len(json.loads(desk.read_by("best", sweep, "-n", "2", "--json"))) == 2
    ordered = json.loads(desk.read_by("runs", sweep, "--best-first", "--json"))
    assert [run["params"]["x"] for run in ordered] == [3, 2, 1, 0, 4, 5]
    shown = desk.show(sweep)
    assert shown["front"] == [run["id"] for run in front]
    assert shown["metrics"] == [{"name": "loss", "goal": "minimize"}, {"name": "cost", "goal": "minimize"}]
    table = desk.resweep("best", sweep, env={"COLUMNS": "160"}).out
    assert all(word in table for word in ("loss", "cost", front[0]["id"]))
    shown_text = desk.resweep("show", sweep).out
    assert "4 runs (resweep best" in shown_text
    assert "bayes by brute_force, 6 runs" in shown_text


def test_a_sampler_of_several_goals_is_asked_by_the_agent(desk: Desk) -> None:
    sweep = desk.create(config(metrics=METRICS, run_cap=5))
    desk.agent(sweep)
    assert len({run["params"]["x"] for run in desk.runs(sweep)}) == 5


def test_a_new_sweep_learns_from_runs_of_before(desk: Desk) -> None:
    old = desk.create(config(metric={"name": "loss"}, search={"sampler": "brute_force"}))
    desk.agent(old)
    single = desk.runs(old)[0]
    path = str(
        desk.write("new.yaml", json.dumps(config(metric={"name": "loss"}, parameters={"x": {"min": 0, "max": 9}})))
    )
    created = desk.resweep("create", path, "--id", "warm", "--warm-start", old, "-R", single["id"])
    assert "Prior runs: 6" in created.out
    priors = desk.show("warm")["config"]["priors"]
    assert [prior["params"]["x"] for prior in priors] == [run["params"]["x"] for run in desk.runs(old)]
    assert {prior["value"] for prior in priors} == {float((x - 3) ** 2) for x in range(6)}
    assert "bayes, with 6 prior runs, endless" in desk.resweep("show", "warm").out
    desk.agent("warm", "--count", "2")
    assert all(run["params"]["x"] > 5 for run in desk.runs("warm"))

    narrow = str(
        desk.write("narrow.yaml", json.dumps(config(metric={"name": "loss"}, parameters={"x": {"min": 0, "max": 4}})))
    )
    said = desk.resweep("create", narrow, "--warm-start", old).err
    assert "is left out: its x does not fit the config (got 5)" in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--prior-run", "nobody"), "no run 'nobody'"),
        (("--warm-start", "nothing"), "no sweep has the id 'nothing'"),
        (("--warm-start", "a/b/c/d"), "Expected sweep_id in form of"),
        (("--prior-run", "a//b"), "a run is given as RUN"),
    ],
)
def test_prior_runs_that_are_not_there_are_one_line(desk: Desk, options: tuple[str, ...], says: str) -> None:
    path = str(desk.write("new.yaml", json.dumps(config(metric={"name": "loss"}))))
    assert says in desk.resweep("create", path, *options, code=3).line()


def test_prior_runs_for_a_grid_are_refused(desk: Desk) -> None:
    path = str(desk.write("grid.yaml", json.dumps(config(method="grid"))))
    assert "a search that learns from runs" in desk.resweep("create", path, "--prior-run", "x", code=2).line()


def test_prior_runs_from_python(desk: Desk) -> None:
    """Outside any sweep a run has its parameters from init(config=…), and its values in its history."""
    desk.write(
        "make.py",
        """
        import logging, resweep
        logging.basicConfig()
        for name, x in (("good", 4), ("bad", 99)):
            with resweep.init(id=name, config={"x": x}) as run:
                run.log({"loss": 1.0})
        config = {"method": "bayes", "metric": {"name": "loss"}, "parameters": {"x": {"min": 0, "max": 5}}}
        print(resweep.sweep(config, prior_runs=["good", "bad"]))
        """,
    )
    done = desk.python("make.py")
    assert "prior run bad is left out: its x does not fit the config (got 99)" in done.err
    (prior,) = desk.show(done.out.split()[-1])["config"]["priors"]
    assert (prior["run"], prior["params"], prior["value"]) == ("good", {"x": 4}, 1.0)
