"""Runs of the real `wandb` client against the gateway: the contract's table of resuming, and what a run says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.desk import Done
from support.gateways import Gateway, Workplace, workplace
from support.wandb_sdks import NEWEST, VERSIONS, wandb_sdk

import resweep
from resweep_scheduler.store import RunState, Scope, Store, open_store

SCRIPT = """\
    import json, sys
    import wandb

    arguments = json.loads(sys.argv[1]) if sys.argv[1:] else {"project": "p"}
    try:
        run = wandb.init(**arguments)
    except wandb.errors.UsageError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(3)
    first = run.starting_step
    for number in range(first, first + 3):
        run.log({"loss": 1 / (number + 1)})
    print(json.dumps({"id": run.id, "resumed": run.resumed, "start": first, "config": {
        name: value for name, value in dict(run.config).items() if name != "_wandb"}, "tags": list(run.tags or ()),
        "notes": run.notes}))
    run.finish()
"""

RUN_EXPERIMENT = """\
    # run_experiment.sh
    RUN_ID="$1"
    WANDB_RESUME=allow WANDB_RUN_ID="$RUN_ID" python eval.py
"""
"""As W&B's page on resuming has it."""

PATIENCE = 120.0


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, gateway: Gateway, tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path / "desk", wandb_sdk(request.param), gateway.url) as place:
        place.write("train.py", SCRIPT)
        yield place


@pytest.fixture
def store(gateway: Gateway) -> Iterator[Store]:
    store = open_store(gateway.redis_url, Scope("local", "p"))
    yield store
    store.client.close()


@pytest.fixture
def newest(gateway: Gateway, tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path / "desk", wandb_sdk(NEWEST), gateway.url) as place:
        place.write("train.py", SCRIPT)
        yield place


def train(place: Workplace, *, code: int = 0, **arguments: Any) -> dict[str, Any]:
    """What the script says of its run, or of the error."""
    return said(place.python("train.py", json.dumps({"project": "p", **arguments}), code=code))


def said(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next(line for line in done.out.splitlines() if line.startswith("{")))
    return found


def steps(store: Store, run_id: str) -> list[int]:
    return [row.step for row in store.history(run_id)]


def test_table_of_resuming(place: Workplace, store: Store) -> None:
    """Every value of `resume`, by argument and by environment, for a run that exists and one that does not."""
    assert "error" in train(place, id="akj172", resume="must", code=3)
    first = train(place, id="akj172", resume="never", config={"lr": 0.1}, tags=["a"], notes="first")
    assert (first["resumed"], first["start"]) == (False, 0)
    assert "error" in train(place, id="akj172", resume="never", code=3)
    second = train(place, id="akj172", resume="must", config={"bs": 32})
    assert (second["resumed"], second["start"], second["config"]) == (True, 3, {"lr": 0.1, "bs": 32})
    # 0.19 does not ask for the notes; they stay with the run all the same.
    assert (second["tags"], second["notes"]) == (["a"], "first" if place.sdk.number >= (0, 20) else None)
    place.write("eval.py", SCRIPT)
    place.write("run_experiment.sh", RUN_EXPERIMENT)
    third = said(place.call("sh", "run_experiment.sh", "akj172"))
    assert (third["id"], third["resumed"], third["start"]) == ("akj172", True, 6)
    assert steps(store, "akj172") == list(range(9))
    run = store.run("akj172")
    assert (run.state, run.attempt, run.config, run.exit_code) == (RunState.FINISHED, 3, {"lr": 0.1, "bs": 32}, 0)
    assert (run.tags, run.notes, run.step, run.sweep_id) == (("a",), "first", 8, None)
    fresh = train(place, id="other", resume="allow")
    assert (fresh["resumed"], fresh["start"]) == (False, 0)
    again = train(place, id="akj172")
    assert (again["resumed"], again["start"]) == (False, 0)
    assert [row.attempt for row in store.history("akj172")] == [4, 4, 4, 2, 2, 2, 3, 3, 3]


ENDS = """\
    import sys
    import wandb

    run = wandb.init(project="p", id=sys.argv[1], resume="auto", group="g")
    run.define_metric("loss", summary="min")
    run.log({"loss": 1})
    run.log({"loss": 2})
    run.mark_preempting()
    if sys.argv[1] == "finish3":
        run.finish(exit_code=3)
    elif sys.argv[1] == "exit42":
        sys.exit(42)
    elif sys.argv[1] == "error":
        raise ValueError("broken")
"""


def test_exit_codes(place: Workplace, store: Store) -> None:
    """Outside sweeps a marked run is on no queue: it ends by its exit code."""
    place.write("ends.py", ENDS)
    codes = {"finish3": 3, "exit42": 42, "error": 1, "end": 0}
    scripts = [place.start(place.sdk.python, "ends.py", ending) for ending in codes]
    for script in scripts:
        script.wait(PATIENCE)
    for (ending, code), script in zip(codes.items(), scripts, strict=True):
        run = store.run(ending)
        expected = (RunState.FAILED if code else RunState.FINISHED, code)
        assert (run.state, run.exit_code) == expected, script.printed()
        assert (run.summary["loss"], run.group) == ({"min": 1}, "g")


def test_resume_auto_goes_on_after_a_crash_in_the_same_folder(place: Workplace, store: Store) -> None:
    """The client remembers the run of a process that was killed."""
    place.write("crash.py", SCRIPT.replace("run.finish()", "import os, time\n    time.sleep(3)\n    os._exit(9)"))
    arguments = json.dumps({"project": "p", "resume": "auto"})
    place.python("crash.py", arguments, code=9)
    (lost,) = store.project_runs()
    assert lost.state is RunState.RUNNING
    again = train(place, resume="auto")
    assert (again["id"], again["resumed"], again["start"]) == (lost.run_id, True, 3)
    assert steps(store, lost.run_id) == list(range(6))
    assert store.run(lost.run_id).state is RunState.FINISHED


def test_a_run_of_import_resweep_and_one_of_wandb_are_the_same_thing(newest: Workplace, store: Store) -> None:
    """Either may go on with what the other has begun."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESWEEP_URL", store.url)
        patch.chdir(newest.folder)
        with resweep.init(project="p", id="both", config={"lr": 0.1}, tags=["ours"]) as run:
            run.log({"loss": 3.0})
        second = train(newest, id="both", resume="must")
        assert (second["start"], second["config"], second["tags"]) == (1, {"lr": 0.1}, ["ours"])
        with resweep.init(project="p", id="both", resume="must") as run:
            assert (run.starting_step, run.attempt) == (4, 3)
            run.log({"loss": 0.0})
    assert [(row.step, row.attempt) for row in store.history("both")] == [(0, 1), (1, 2), (2, 2), (3, 2), (4, 3)]
