"""The table of exit states, played by real agents: how an attempt ends and who marked it decide about its run.

One agent plays a column of it with one run for each row, all at the same time; then it is killed, and a second agent
takes what is on the run queue.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.checks import check_promises
from support.children import PATIENCE, Small, small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode

TABLE = """
    the attempt ends with | marked by nobody | by the script | by a notice
    0                     | finished         | finished      | finished
    3                     | failed           | queue         | queue
    a signal              | crashed          | queue         | queue
    its agent             | crashed          | queue         | queue
"""

WITH_RESWEEP = """
import resweep
run = resweep.init()
if attempt == 2:
    run.log({"loss": 0.5})
    facts = dict(id=run.id, params=run.config["a"], resumed=run.resumed, step=run.starting_step)
    run.finish()
    trace(f"resumed-{run.id}", **facts)
    sys.exit(0)
run.log({"loss": 1.0})
if marked_by == "by the script":
    assert run.mark_preempting()
"""

WITHOUT = """
if attempt == 2:
    trace(f"resumed-{run_id}", id=run_id, params=params["a"])
    sys.exit(0)
"""

ENDS = """
def end(*_):
    if params["a"] == "a signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if params["a"] != "its agent":
        sys.exit(params["a"])

signal.signal(signal.SIGTERM, end)
trace(f"begun-{run_id}")
wait_for("go", seconds=120)
end()
wait_for("the end of its agent", seconds=120)
"""


def columns() -> dict[str, dict[object, str]]:
    """Who marks → how the attempt ends → what becomes of the run."""
    (_, *names), *rows = ([cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines())
    return {
        name: {int(row[0]) if row[0].isdigit() else row[0]: row[number] for row in rows}
        for number, name in enumerate(names, start=1)
    }


@pytest.mark.parametrize(
    ("script", "marked_by"),
    [
        ("with resweep", "marked by nobody"),
        ("with resweep", "by the script"),
        ("with resweep", "by a notice"),
        ("without", "marked by nobody"),
        ("without", "by a notice"),
    ],
)
def test_how_an_attempt_ends_and_who_marked_it_decide(
    shared_server: Server, tmp_path: Path, script: str, marked_by: str
) -> None:
    column = columns()[marked_by]
    text = f"marked_by = {marked_by!r}\n" + (WITH_RESWEEP if script == "with resweep" else WITHOUT) + ENDS
    with small_sweep(
        shared_server,
        tmp_path / "w",
        text,
        values=list(column),
        environment={"WANDB_AGENT_DISABLE_FLAPPING": "true", "RESWEEP_MARK_TIMEOUT": "60"},
        lease={"duration": 3, "heartbeat": 0.5},
    ) as sweep:
        first = sweep.agents.start("first", "--slots", "4", "--count", "4", "--grace", "300")
        wait_for_all_to_begin(sweep, logged=script == "with resweep")
        if marked_by == "by a notice":
            first.send(signal.SIGTERM)
        else:
            sweep.open("go")
        wait_until(lambda: len(ends_of(sweep)) == 3, timeout=PATIENCE, description="the ends of all runs but one")
        first.kill()
        assert sweep.agents.start("second").wait(2 * PATIENCE) == ExitCode.OK

        ends = ends_of(sweep)
        assert {run.params["a"]: ends[run.run_id] for run in sweep.runs()} == column
        for run in sweep.runs():
            if column[run.params["a"]] == "queue":
                assert (run.state, run.attempt, run.agent) == ("finished", 2, "second")
                check_resumption(sweep, run.run_id, run.params["a"], logged=script == "with resweep")
            else:
                assert (run.state, run.attempt) == (column[run.params["a"]], 1)
                assert run.exit_code == (run.params["a"] if isinstance(run.params["a"], int) else None)
        check_promises(sweep.store, sweep.sweep_id)


def wait_for_all_to_begin(sweep: Small, *, logged: bool) -> None:
    """Each child runs, its agent was heard since it claimed the run, and what the child logged is stored."""

    def begun() -> bool:
        runs = sweep.runs()
        client, keys = sweep.store.client, sweep.store.keys
        return (
            len(list(sweep.folder.glob("begun-*.json"))) == 4
            and all(client.hget(keys.run(run.run_id), "confirmed") == "1" for run in runs)
            and all(run.step == 0 for run in runs if logged)
        )

    wait_until(begun, timeout=PATIENCE, description="four attempts that have begun")


def ends_of(sweep: Small) -> dict[str, str]:
    """How the first attempt of each run ended."""
    words = {"preempted": "queue", "finished": "finished", "failed": "failed", "crashed": "crashed"}
    events = sweep.store.events(sweep.sweep_id)
    return {
        event.run_id: words[event.kind]
        for event in events
        if event.run_id is not None and event.attempt == 1 and event.kind in words
    }


def check_resumption(sweep: Small, run_id: str, param: object, *, logged: bool) -> None:
    """The same run with the same parameters, and its steps go on."""
    resumed = sweep.wait_for(f"resumed-{run_id}")
    assert (resumed["id"], resumed["params"]) == (run_id, param)
    if logged:
        assert (resumed["resumed"], resumed["step"]) == (True, 1)
        assert [(row.step, row.values["loss"], row.attempt) for row in sweep.store.history(run_id)] == [
            (0, 1.0, 1),
            (1, 0.5, 2),
        ]
