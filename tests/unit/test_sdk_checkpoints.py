"""Checkpoints: whole or not at all, committed under the claim, found again on this or another machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sdk import ScriptsLink, begin_attempt, enter_attempt, fake_sdk
from support.waiting import wait_until

import resweep
from resweep import checkpoints
from resweep.checkpoints import CheckpointFolder
from resweep.errors import UsageError
from resweep.sync import sync
from resweep_scheduler.store import Store, StoreUnavailableError


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.5")
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0.5")
    monkeypatch.setenv("RESWEEP_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_text("weights")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_is_copied_and_committed(store: Store, tmp_path: Path, model: Path) -> None:
    run = resweep.init(id="r1")
    run.log({"loss": 1})
    run.log({"loss": 2})
    path = run.save_checkpoint(model, metadata={"epoch": 3})
    assert path == tmp_path / "checkpoints" / "r1" / "step-1-attempt-1" / "model.pt"
    assert path.read_text() == "weights"
    committed = store.run("r1").checkpoint
    assert committed is not None
    assert (committed.path, committed.step, committed.attempt, committed.metadata) == (str(path), 1, 1, {"epoch": 3})
    assert store.run("r1").step == 1, "the rows before it are stored first"


def test_a_folder_is_copied_with_all_that_is_in_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "state" / "deep").mkdir(parents=True)
    (tmp_path / "state" / "deep" / "a").write_text("1")
    (tmp_path / "state" / "latest").symlink_to("deep")
    (tmp_path / "state" / "dangling").symlink_to("nowhere")
    run = resweep.init(id="r1")
    path = run.save_checkpoint("state", step=7)
    assert path.name == "state"
    assert path.parent.name == "step-7-attempt-1"
    assert (path / "deep" / "a").read_text() == (path / "latest" / "a").read_text() == "1"


def test_the_last_two_are_kept(store: Store, tmp_path: Path, model: Path) -> None:
    run = resweep.init(id="r1")
    assert run.save_checkpoint(model).parent.name == "step-none-attempt-1"
    for step in range(4):
        run.log({"loss": step})
        run.save_checkpoint(model)
    assert run.save_checkpoint(model).parent.name == "step-3-attempt-1-2"
    assert names(tmp_path / "checkpoints" / "r1") == ["step-3-attempt-1", "step-3-attempt-1-2"]


def test_the_next_attempt_goes_on_from_it(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch)
    with resweep.init() as run:
        assert run.restore_checkpoint() is None
        run.log({"loss": 0}, step=10)
        saved = run.save_checkpoint(model)
        run.log({"loss": 0}, step=11)
    agent.end(None, preempted=True)
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    with resweep.init() as run:
        assert run.starting_step == 12
        assert run.restore_checkpoint() == saved
        assert run.step == 11
        run.log({"loss": 1})
        run.save_checkpoint(model)
        assert names(tmp_path / "checkpoints" / "run0") == ["step-10-attempt-1", "step-11-attempt-2"]


def test_a_run_that_starts_anew_has_no_checkpoint(store: Store, model: Path) -> None:
    with resweep.init(id="r1") as run:
        run.log({"loss": 0}, step=99)
        run.save_checkpoint(model)
    with resweep.init(id="r1") as run:
        assert (run.starting_step, run.checkpoint_step, run.restore_checkpoint()) == (0, None, None)
        run.log({"loss": 1})
    with resweep.init(id="r1", resume="allow") as run:
        assert (run.starting_step, run.restore_checkpoint()) == (1, None)


def test_a_checkpoint_that_is_not_here_is_replaced_by_an_older_one(
    store: Store, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with resweep.init(id="r1") as run:
        for step in range(3):
            run.log({"loss": step})
            saved = run.save_checkpoint(model)
    shutil.rmtree(saved.parent)
    with resweep.init(id="r1", resume="allow") as run:
        older = run.restore_checkpoint()
        assert older is not None
        assert older.parent.name == "step-1-attempt-1"
        assert run.step == 2
        shutil.rmtree(older.parent)
        assert run.restore_checkpoint() is None
    assert "(step 2) is not on this machine, going on from" in caplog.text


def test_a_folder_that_is_mounted_elsewhere_is_found(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resweep.init(id="r1") as run:
        run.log({"loss": 0})
        run.save_checkpoint(model)
    (tmp_path / "checkpoints").rename(tmp_path / "moved")
    monkeypatch.setenv("RESWEEP_CHECKPOINT_DIR", str(tmp_path / "moved"))
    with resweep.init(id="r1", resume="allow") as run:
        assert run.restore_checkpoint() == tmp_path / "moved" / "r1" / "step-0-attempt-1" / "model.pt"
        assert run.step == 1


def test_nothing_to_copy(store: Store) -> None:
    run = resweep.init(id="r1")
    with pytest.raises(UsageError, match=r"missing\.pt does not exist; save it there first"):
        run.save_checkpoint("missing.pt")


def test_a_copy_that_fails_leaves_nothing_behind(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resweep.init(id="r1")

    def full(source: Path, target: Path) -> None:
        target.write_text("half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoints, "copy_to", full)
    with pytest.raises(OSError, match="No space left"):
        run.save_checkpoint(model)
    assert names(tmp_path / "checkpoints" / "r1") == []
    assert store.run("r1").checkpoint is None


def test_a_stale_attempt_never_touches_its_successors_copies(tmp_path: Path, model: Path) -> None:
    stale, successor = CheckpointFolder(tmp_path / "c", "r1", 1), CheckpointFolder(tmp_path / "c", "r1", 2)
    first = stale.store(model, 1)
    stale.committed(str(first), [str(first)])
    theirs = [successor.store(model, step) for step in (2, 3)]
    (tmp_path / "c" / "r1" / ".partial-2-abcd").mkdir()
    for step in (4, 5, 6):
        path = str(stale.store(model, step))
        stale.committed(path, [path])
    assert all(path.exists() for path in theirs)
    assert (tmp_path / "c" / "r1" / ".partial-2-abcd").exists()
    assert not first.exists()


def test_what_an_attempt_left_half_copied_is_removed_by_its_successor(tmp_path: Path, model: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", "r1", 2)
    (tmp_path / "c" / "r1" / ".partial-1-abcd").mkdir(parents=True)
    (tmp_path / "c" / "r1" / "users own folder").mkdir()
    path = str(folder.store(model, 1))
    folder.committed(path, [path])
    assert names(tmp_path / "c" / "r1") == ["step-1-attempt-2", "users own folder"]


@pytest.mark.parametrize("why", ["refused", "late", "not kept"])
def test_a_copy_whose_removal_is_broken_off_is_not_gone_on_from(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    folder = CheckpointFolder(tmp_path / "c", "r1", 1, keep=1)
    copy = folder.store(model, 1)

    def remove() -> None:
        if why == "refused":
            folder.drop(copy)
        elif why == "late":
            folder.store(model, 2)
        else:
            folder.committed("/elsewhere/step-2-attempt-1/model.pt", [])

    class KilledError(BaseException):
        pass

    def killed(path: Path, ignore_errors: bool) -> None:
        raise KilledError

    if why == "not kept":
        folder.committed(str(copy), [str(copy)])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KilledError):
            remove()
    successor = CheckpointFolder(tmp_path / "c", "r1", 2)
    assert successor.find("/elsewhere/step-1-attempt-1/weights", 1, 1) is None
    successor.committed("/elsewhere/step-3-attempt-2/model.pt", [])
    assert names(tmp_path / "c" / "r1") == []


def test_during_an_outage_the_newest_copies_wait_for_their_commit(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0")
    run = resweep.init(id="r1")
    run.log({"loss": 0})
    run.save_checkpoint(model)
    wait_until(lambda: store.run("r1").checkpoint, description="the first commit")
    log = Store.log
    away = True

    def log_or_fail(self: Store, *arguments: Any, **named: Any) -> Any:
        if away:
            raise StoreUnavailableError("away")
        return log(self, *arguments, **named)

    monkeypatch.setattr(Store, "log", log_or_fail)
    for step in range(1, 6):
        run.log({"loss": step})
        saved = run.save_checkpoint(model)
        assert saved.exists()
    assert names(tmp_path / "checkpoints" / "r1") == [f"step-{step}-attempt-1" for step in (0, 4, 5)]
    away = False
    wait_until(lambda: (found := store.run("r1").checkpoint) and found.step == 5, description="the last commit")
    run.finish()
    assert names(tmp_path / "checkpoints" / "r1") == ["step-4-attempt-1", "step-5-attempt-1"]
    assert store.run("r1").step == 5


def test_what_redis_may_have_named_stays_though_newer_ones_wait(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to the commit of step 1 is lost, and with it the link: Redis names it, whatever is saved after it."""
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0")
    monkeypatch.setenv("RESWEEP_CHECKPOINT_KEEP", "1")
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    run.save_checkpoint(model, step=0)
    wait_until(lambda: store.run("run0").checkpoint, description="the first commit")
    link = ScriptsLink(monkeypatch, loses="commit_checkpoint")
    named = run.save_checkpoint(model, step=1)
    wait_until(lambda: link.cut, description="the lost answer")
    for step in range(2, 5):
        run.save_checkpoint(model, step=step)
    assert names(tmp_path / "checkpoints" / "run0") == [f"step-{step}-attempt-1" for step in (0, 1, 4)]
    run.finish()
    link.mend()
    agent.end(None, preempted=True)
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    with resweep.init() as run:
        assert run.restore_checkpoint() == named


def test_what_redis_is_asked_to_name_is_not_removed_before_it_has_answered(tmp_path: Path, model: Path) -> None:
    folder = CheckpointFolder(tmp_path / "c", "r1", 1, keep=1)
    asked = folder.store(model, 1)
    assert folder.is_there(str(asked))
    superseded, newest = folder.store(model, 2), folder.store(model, 3)
    assert (asked.exists(), superseded.exists(), newest.exists()) == (True, False, True)
    assert not folder.is_there(str(superseded))
    folder.committed(str(asked), [str(asked)])
    assert folder.is_there(str(newest))
    folder.committed(str(newest), [str(newest)])
    assert names(tmp_path / "c" / "r1") == ["step-3-attempt-1"]


def test_offline_checkpoints_are_committed_by_sync(store: Store, model: Path, tmp_path: Path) -> None:
    with resweep.init(id="r1", mode="offline") as run:
        run.log({"loss": 0})
        saved = run.save_checkpoint(model)
    assert saved.exists()
    sync(tmp_path)
    committed = store.run("r1").checkpoint
    assert committed is not None
    assert committed.path == str(saved)
