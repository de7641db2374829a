"""What the contract says about resuming a run outside sweeps, seen from scripts that a user would write."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk, desk_in
from support.servers import Server
from support.waiting import wait_until

SCRIPT = """\
    import json, sys
    import resweep

    arguments = json.loads(sys.argv[1])
    try:
        run = resweep.init(**arguments)
    except resweep.errors.UsageError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(3)
    with run:
        for _ in range(3):
            run.log({"loss": 1 / (run.step + 1)})
    print(json.dumps({
        "id": run.id, "resumed": run.resumed, "start": run.starting_step, "attempt": run.attempt, "config":
        dict(run.config), "tags": list(run.tags), "notes": run.notes, "name": run.name, "group": run.group,
    }))
"""


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", shared_server.url) as desk:
        desk.write("train.py", SCRIPT)
        yield desk


def train(desk: Desk, *, code: int = 0, env: dict[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """What the script says of its run, or of the error."""
    found: dict[str, Any] = json.loads(desk.python("train.py", json.dumps(arguments), env=env, code=code).out)
    return found


RESUMED = (True, 3, [0, 1, 2, 3, 4, 5])
STARTED = (False, 0, [0, 1, 2])
Expected = tuple[bool, int, list[int]] | str
Cell = tuple[str | None, bool, Expected]
TABLE: Sequence[Cell] = [
    ("must", True, RESUMED),
    ("must", False, "has not been initialized"),
    ("allow", True, RESUMED),
    ("allow", False, STARTED),
    ("never", True, "already exists"),
    ("never", False, STARTED),
    ("auto", True, RESUMED),
    ("auto", False, STARTED),
    (None, True, STARTED),
    (None, False, STARTED),
]


@pytest.mark.parametrize(("resume", "exists", "expected"), TABLE)
def test_table_of_resume_by_environment(desk: Desk, resume: str | None, exists: bool, expected: Expected) -> None:
    if exists:
        train(desk, id="akj172")
    code = 3 if isinstance(expected, str) else 0
    found = train(desk, code=code, env={"WANDB_RUN_ID": "akj172", "WANDB_RESUME": resume or ""})
    check_cell(desk, "akj172", (resume, exists, expected), found)


CELLS = """\
    import json, sys
    import resweep

    def train(**arguments):
        with resweep.init(**arguments) as run:
            for _ in range(3):
                run.log({"loss": 1 / (run.step + 1)})
        return {"id": run.id, "resumed": run.resumed, "start": run.starting_step, "attempt": run.attempt}

    for number, (resume, exists) in enumerate(json.loads(sys.argv[1])):
        if exists:
            train(id=f"cell{number}")
        try:
            print(json.dumps(train(id=f"cell{number}", resume=resume)))
        except resweep.errors.UsageError as error:
            print(json.dumps({"error": str(error)}))
"""


def test_table_of_resume_by_argument(desk: Desk) -> None:
    desk.write("cells.py", CELLS)
    lines = desk.python("cells.py", json.dumps([(resume, exists) for resume, exists, _ in TABLE])).out.splitlines()
    for number, (line, cell) in enumerate(zip(lines, TABLE, strict=True)):
        check_cell(desk, f"cell{number}", cell, json.loads(line))


def check_cell(desk: Desk, run_id: str, cell: Cell, found: dict[str, Any]) -> None:
    resume, exists, expected = cell
    if isinstance(expected, str):
        assert expected in found["error"]
        assert f"'{resume}'" in found["error"]
        assert run_id in found["error"]
        return
    resumed, start, steps = expected
    assert (found["id"], found["resumed"], found["start"]) == (run_id, resumed, start)
    assert [row["_step"] for row in desk.history(run_id)] == steps
    assert found["attempt"] == (2 if exists else 1)


def test_arguments_win_over_the_environment(desk: Desk) -> None:
    found = train(desk, env={"WANDB_RUN_ID": "other", "WANDB_RESUME": "must"}, id="mine", resume="never")
    assert found["id"] == "mine"


@pytest.mark.parametrize("value", ["true", "1"])
def test_words_for_auto(desk: Desk, value: str) -> None:
    assert train(desk, env={"WANDB_RESUME": value, "WANDB_RUN_ID": "akj172"})["resumed"] is False


def test_a_value_that_resume_does_not_have(desk: Desk) -> None:
    for error in (
        train(desk, code=3, resume="maybe")["error"],
        train(desk, code=3, env={"WANDB_RESUME": "maybe"})["error"],
    ):
        assert "'maybe'" in str(error)
        assert all(value in str(error) for value in ("must", "allow", "never", "auto"))


def test_ids_that_cannot_be(desk: Desk) -> None:
    desk.write(
        "ids.py",
        """\
        import resweep
        for run_id in ("", " a", "a ", "  ", "a:b", "a/b", "a#b", "a?b", "a,b", "a;b", "a'b"):
            try:
                resweep.init(id=run_id)
            except resweep.errors.UsageError as error:
                print(error)
        """,
    )
    lines = desk.python("ids.py").out.splitlines()
    assert len(lines) == 11
    assert all(line.startswith("Run ID cannot") for line in lines), lines


def test_the_shell_script_of_the_contract_twice(desk: Desk) -> None:
    """`WANDB_RESUME=allow WANDB_RUN_ID=akj172 python eval.py`: logging goes on from the last step."""
    desk.write(
        "eval.py", 'import resweep\nrun = resweep.init()\nfor loss in (0.5, 0.25):\n    run.log({"loss": loss})\n'
    )
    desk.write(
        "run_experiment.sh", f'RUN_ID="$1"\nWANDB_RESUME=allow WANDB_RUN_ID="$RUN_ID" {sys.executable} eval.py\n'
    )
    desk.call("sh", "run_experiment.sh", "akj172")
    desk.call("sh", "run_experiment.sh", "akj172")
    rows = [(row["_step"], row["loss"]) for row in desk.history("akj172")]
    assert rows == [(0, 0.5), (1, 0.25), (2, 0.5), (3, 0.25)]


AUTO = """\
    import sys, time
    from pathlib import Path
    import resweep

    run = resweep.init(resume="auto", config={"a": 1})
    print(run.id, run.resumed, run.starting_step, flush=True)
    run.log({"loss": 1.0})
    run.log({"loss": 0.5})
    if sys.argv[1] == "hang":
        Path(sys.argv[2]).touch()
        time.sleep(60)
    if sys.argv[1] == "fail":
        raise RuntimeError("planned")
    run.finish()
"""


def test_auto_resumes_after_a_kill_in_the_same_directory_only(desk: Desk) -> None:
    desk.write("auto.py", AUTO)
    (desk.folder / "other").mkdir()
    child = subprocess.Popen(
        [sys.executable, "auto.py", "hang", "logged"], cwd=desk.folder, env=desk.environment, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        run_id = child.stdout.readline().split()[0]
        wait_until(lambda: len(desk.history(run_id)) == 2, description="two rows in Redis")
        beside = desk.python("auto.py", "end").out.split()
        assert (beside[0] != run_id, beside[1]) == (True, "False"), "took the run of a process that lives"
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=10)
    elsewhere = desk.call("sh", "-c", f"cd other && {sys.executable} ../auto.py end").out.split()
    assert elsewhere[0] != run_id
    assert desk.python("auto.py", "end").out.split() == [run_id, "True", "2"]
    assert [row["_step"] for row in desk.history(run_id)] == [0, 1, 2, 3]
    assert desk.python("auto.py", "end").out.split()[0] != run_id, "a run that ended well is not resumed"


def test_auto_resumes_after_an_exception(desk: Desk) -> None:
    desk.write("auto.py", AUTO)
    first = desk.python("auto.py", "fail", code=1)
    assert "planned" in first.err
    run_id = first.out.split()[0]
    assert desk.python("auto.py", "end").out.split() == [run_id, "True", "2"]


def test_what_a_resumed_run_keeps(desk: Desk) -> None:
    train(desk, id="r", config={"a": 1, "b": {"x": 1}}, tags=["one"], notes="first", name="n", group="g")
    found = train(desk, id="r", resume="must", config={"b": {"y": 2}, "c": 3})
    assert found["config"] == {"a": 1, "b": {"y": 2}, "c": 3}
    assert (found["tags"], found["notes"], found["name"], found["group"]) == (["one"], "first", "n", "g")
    found = train(desk, id="r", resume="must", tags=["two"], notes="second")
    assert (found["tags"], found["notes"]) == (["two"], "second")
    shown = desk.resweep("run", "r", "--json").json()
    assert (shown["state"], shown["attempt"], shown["step"], shown["tags"]) == ("finished", 3, 8, ["two"])


STEPS = """\
    import sys
    import resweep

    with resweep.init(id="s", resume="allow") as run:
        for step in map(int, sys.argv[2:]):
            run.log({"by": sys.argv[1]}, step=step)
    """


def test_rows_of_the_later_attempt_win(desk: Desk) -> None:
    """A script that restarts from a checkpoint older than the last row logs some steps again."""
    desk.write("steps.py", STEPS)
    desk.python("steps.py", "first", "0", "1", "2", "3", "4")
    desk.python("steps.py", "second", "2", "3")
    rows = [(row["_step"], row["by"]) for row in desk.history("s")]
    assert rows == [(0, "first"), (1, "first"), (2, "second"), (3, "second"), (4, "first")]


def test_steps_that_go_back_within_an_attempt_are_ignored_with_a_warning(desk: Desk) -> None:
    desk.write("steps.py", STEPS)
    done = desk.python("steps.py", "first", "0", "5", "3", "6")
    assert [row["_step"] for row in desk.history("s")] == [0, 5, 6]
    assert "monotonically" in done.err
    assert "3" in done.err
    assert "5" in done.err


def test_must_while_another_run_is_active(desk: Desk) -> None:
    desk.write(
        "two.py",
        """\
        import resweep
        resweep.init(id="one")
        try:
            resweep.init(id="two", resume="must")
        except resweep.errors.Error as error:
            print(error)
        """,
    )
    assert "Cannot resume a run while another run is active" in desk.python("two.py").out


def test_no_answer_at_init_says_what_to_do(desk: Desk) -> None:
    done = desk.call(
        sys.executable, "-c", "import resweep\nresweep.init(id='x', resume='allow')",
        env={"RESWEEP_URL": "redis://127.0.0.1:1", "RESWEEP_INIT_TIMEOUT": "0.5"}, code=1,
    )  # fmt: skip
    last = done.err.strip().splitlines()[-1]
    assert "CommError" in last
    assert "Failed to get resume status for run ID: x" in done.err or "'x'" in last
    assert "127.0.0.1:1" in done.err
