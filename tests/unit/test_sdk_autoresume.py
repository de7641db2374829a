"""resume="auto": which run goes on in a directory."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sdk import begin_attempt, fake_sdk

import resweep
from resweep.autoresume import AutoResume, Entry, _start_of
from resweep_scheduler.store import Store

SCOPE = "local/uncategorized"
DEAD = 2**22 + 1  # above the largest pid


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


def file_of(directory: Path) -> Path:
    return directory / "resweep" / "auto-resume.json"


def write_entries(directory: Path, *entries: Entry) -> None:
    file_of(directory).parent.mkdir(parents=True, exist_ok=True)
    records = [{name: getattr(entry, name) for name in Entry.__slots__} for entry in entries]
    file_of(directory).write_text(json.dumps({"runs": records}))


def entry(run_id: str, **changes: object) -> Entry:
    """A dead run of train.py on this host."""
    fields: dict[str, object] = {
        "run_id": run_id,
        "scope": SCOPE,
        "host": socket.gethostname(),
        "pid": DEAD,
        "started": "1",
        "command": ["train.py"],
    }
    return Entry(**{**fields, **changes})  # type: ignore[arg-type]


def living(run_id: str) -> Entry:
    """A run of another living process of this host."""
    return entry(run_id, pid=os.getppid(), started=_start_of(os.getppid()))


def entries(directory: Path) -> dict[str, int]:
    """Pids by run id."""
    if not file_of(directory).exists():
        return {}
    return {record["run_id"]: record["pid"] for record in json.loads(file_of(directory).read_text())["runs"]}


def test_a_run_that_failed_goes_on_and_one_that_ended_well_does_not(store: Store, tmp_path: Path) -> None:
    with resweep.init(resume="auto") as run:
        first = run.id
        run.log({"n": 0})
        run.finish(1)
    assert entries(tmp_path) == {first: os.getpid()}
    with resweep.init(resume=True) as run:
        assert (run.id, run.resumed, run.starting_step) == (first, True, 1)
    assert entries(tmp_path) == {}
    assert resweep.init(resume="auto").id != first


def test_a_run_of_a_living_process_is_never_taken_over(store: Store, tmp_path: Path) -> None:
    write_entries(tmp_path, living("alive"))
    run = resweep.init(resume="auto")
    assert run.id != "alive"
    assert entries(tmp_path) == {"alive": os.getppid(), run.id: os.getpid()}
    run.finish()
    assert entries(tmp_path) == {"alive": os.getppid()}


def test_a_pid_that_was_given_to_another_process_is_dead(store: Store, tmp_path: Path) -> None:
    write_entries(tmp_path, entry("dead", pid=os.getppid(), started="1"))
    assert resweep.init(resume="auto").id == "dead"


def test_of_several_dead_runs_the_one_of_the_same_command_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr=1"])
    write_entries(
        tmp_path,
        entry("old", command=["train.py", "--lr=1"]),
        entry("same", command=["train.py", "--lr=1"]),
        entry("newest", command=["train.py", "--lr=2"]),
    )
    assert resweep.init(resume="auto").id == "same"
    assert set(entries(tmp_path)) == {"old", "same", "newest"}


def test_a_run_of_another_host_goes_on(store: Store, tmp_path: Path) -> None:
    write_entries(tmp_path, entry("elsewhere", host="another-host", pid=os.getppid()))
    assert resweep.init(resume="auto").id == "elsewhere"


def test_a_run_of_another_project_does_not(store: Store, tmp_path: Path) -> None:
    write_entries(tmp_path, entry("other", scope="local/other"))
    assert resweep.init(resume="auto").id != "other"
    assert "other" in entries(tmp_path)


def test_an_explicit_id_wins_with_a_warning(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_entries(tmp_path, entry("dead"))
    assert resweep.init(resume="auto", id="mine").id == "mine"
    assert "Ignoring ID dead loaded due to resume='auto' because the run ID is set to mine." in caplog.text


def test_a_run_without_resume_forgets_its_scripts_dead_runs_only(store: Store, tmp_path: Path) -> None:
    write_entries(tmp_path, entry("dead"), living("alive"), entry("eval", command=["eval.py"]))
    resweep.init()
    assert set(entries(tmp_path)) == {"alive", "eval"}


@pytest.mark.parametrize("resume", ["allow", "never"])
def test_other_ways_of_resuming_leave_the_file_alone(store: Store, tmp_path: Path, resume: str) -> None:
    write_entries(tmp_path, entry("dead"))
    resweep.init(id="mine", resume=resume)
    assert set(entries(tmp_path)) == {"dead"}


def test_inside_an_attempt_the_file_is_not_looked_at(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_entries(tmp_path, entry("dead"))
    begin_attempt(store, monkeypatch)
    with resweep.init(resume="auto") as run:
        assert run.id == "run0"
    assert set(entries(tmp_path)) == {"dead"}
    assert caplog.text == ""


@pytest.mark.parametrize("content", ["", "{", "[]", '{"runs": [{"run_id": "x"}]}', '{"runs": 5}'])
def test_a_file_that_cannot_be_read_is_as_good_as_none(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    file_of(tmp_path).parent.mkdir(parents=True)
    file_of(tmp_path).write_text(content)
    run = resweep.init(resume="auto")
    assert entries(tmp_path) == {run.id: os.getpid()}
    assert "which cannot be read" in caplog.text


def test_a_directory_that_cannot_be_written(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "resweep").write_text("a file is in the way")
    with resweep.init(resume="auto") as run:
        run.log({"n": 0})
    assert store.run(run.id).step == 0
    assert "resume='auto' cannot write to" in caplog.text


def test_a_finished_run_is_forgotten_by_its_own_entry_only(tmp_path: Path) -> None:
    write_entries(tmp_path, entry("a"), entry("b", scope="local/other"))
    AutoResume(tmp_path, "local/other").ended("a")
    AutoResume(tmp_path, SCOPE).ended("b")
    assert set(entries(tmp_path)) == {"a", "b"}
    AutoResume(tmp_path, SCOPE).ended("a")
    assert set(entries(tmp_path)) == {"b"}
