"""Checkpoints in an object store: whole or not at all, committed under the claim, found again on another machine."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.buckets import FailingBucket
from support.checks import check_promises
from support.sdk import ScriptsLink, begin_attempt, enter_attempt, fake_sdk, run_script
from support.stores import SWEEP, Agent
from support.waiting import wait_until

import resweep
from resweep import bucket as bucket_module
from resweep import remote_checkpoints, session
from resweep.bucket import Bucket, UnreachableError, open_bucket
from resweep.errors import CommError, UsageError
from resweep.saving import Saving
from resweep.spill import spill_folder
from resweep.sync import sync
from resweep_scheduler.store import Checkpoint, RunState, Store, StoreUnavailableError


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> Iterator[Store]:
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "20")
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "20")
    monkeypatch.setenv("RESWEEP_CHECKPOINT_URL", url)
    bucket_module._memories.clear()
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


@pytest.fixture
def bucket(store: Store, url: str) -> Bucket:
    return open_bucket(url)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    path.write_text("weights")
    return path


class Gate:
    """Lets the objects of a bucket pass one after the other, or all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waiting = threading.Semaphore(0)
        self._open = threading.Semaphore(0)
        put = Bucket.put

        def slow_put(bucket: Bucket, key: str, data: bytes) -> None:
            self.waiting.release()
            assert self._open.acquire(timeout=30)
            put(bucket, key, data)

        monkeypatch.setattr(Bucket, "put", slow_put)

    def wait(self) -> None:
        """Until one more object is about to be written."""
        assert self.waiting.acquire(timeout=30)

    def let_pass(self, objects: int = 1000) -> None:
        self._open.release(objects)


def folders(bucket: Bucket, run_id: str = "r1") -> list[str]:
    """The checkpoints of a run in the store, without what makes their names unique."""
    return sorted(name.rpartition("-")[0] for name in bucket.folders(f"local/uncategorized/{run_id}"))


def committed(store: Store, run_id: str = "r1") -> Checkpoint:
    checkpoint = store.run(run_id).checkpoint
    assert checkpoint is not None
    return checkpoint


def go_to_another_machine(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    monkeypatch.chdir(folder)


def save_steps(run: resweep.Run, model: Path, steps: range, run_id: str = "r1") -> None:
    """Log each step and save a checkpoint whose text is the step."""
    for step in steps:
        run.log({"loss": step}, step=step)
        model.write_text(str(step))
        run.save_checkpoint(model, step=step, metadata={"epoch": step})


def spoil(bucket: Bucket, step: int, run_id: str = "r1") -> None:
    """What was saved at a step has other bytes than before."""
    prefix = f"local/uncategorized/{run_id}"
    (name,) = [name for name in bucket.folders(prefix) if name.startswith(f"step-{step}-")]
    bucket.put(f"{prefix}/{name}/files/model.pt", b"x")


def test_a_checkpoint_is_sent_and_committed(store: Store, bucket: Bucket, model: Path, url: str) -> None:
    run = resweep.init(id="r1")
    run.log({"loss": 1})
    run.log({"loss": 2})
    assert run.save_checkpoint(model, metadata={"epoch": 3}) == model
    checkpoint = committed(store)
    assert checkpoint.path.startswith(f"{url}/local/uncategorized/r1/step-1-attempt-1-")
    assert (checkpoint.step, checkpoint.attempt, checkpoint.metadata) == (1, 1, {"epoch": 3})
    assert store.run("r1").step == 1, "the rows before it are stored first"


def test_the_last_k_are_kept(store: Store, bucket: Bucket, model: Path) -> None:
    with resweep.init(id="r1", checkpoint_keep=3) as run:
        save_steps(run, model, range(6))
    assert folders(bucket) == [f"step-{step}-attempt-1" for step in (3, 4, 5)]
    assert [one.step for one in committed(store).kept] == [4, 3]


def test_another_machine_goes_on_from_the_last_one(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch)
    with resweep.init() as run:
        assert run.restore_checkpoint() is None
        save_steps(run, model, range(3))
        run.log({"loss": 3}, step=3)
    agent.end(None, preempted=True)
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    go_to_another_machine(monkeypatch, tmp_path / "two")
    with resweep.init() as run:
        assert run.starting_step == 4
        path = run.restore_checkpoint()
        assert path is not None
        assert path.relative_to(tmp_path / "two").parts[:3] == ("resweep", "restored", "run0")
        assert path.read_text() == "2"
        assert (run.step, run.checkpoint_step) == (3, 2)
        run.log({"loss": 33})
    assert not path.exists(), "what was brought here goes when the run is finished"
    assert [(row.step, row.attempt) for row in store.history("run0")] == [(0, 1), (1, 1), (2, 1), (3, 2)]
    check_promises(store, SWEEP, complete=False)


def test_a_damaged_one_is_passed_over_and_the_steps_since_the_one_before_are_replaced(
    store: Store,
    bucket: Bucket,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    agent = begin_attempt(store, monkeypatch)
    with resweep.init() as run:
        save_steps(run, model, range(5))
    agent.end(None, preempted=True)
    spoil(bucket, 4, "run0")
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    with resweep.init() as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert path.read_text() == "3"
        assert (run.step, run.checkpoint_step) == (4, 3)
        assert (committed(store, "run0").step, committed(store, "run0").metadata) == (3, {"epoch": 3})
        for step in range(4, 7):
            run.log({"loss": 10 * step})
        run.save_checkpoint(model)
        assert [one.step for one in committed(store, "run0").kept] == [3], "the damaged one is off the list"
    assert "'model.pt' has another digest than when it was saved; going on from that of step 3" in caplog.text
    (event,) = [event for event in store.events(SWEEP) if event.kind == "fallback"]
    assert (event.attempt, event.data["lost"], event.data["step"]) == (2, 4, 3)
    rows = store.history("run0")
    assert [(row.step, row.attempt) for row in rows] == [(0, 1), (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert [row.values["loss"] for row in rows] == [0, 1, 2, 3, 40, 50, 60]
    assert folders(bucket, "run0") == ["step-3-attempt-1", "step-6-attempt-2"]
    check_promises(store, SWEEP, complete=False)


def test_when_none_can_be_used_the_run_starts_without_and_nothing_is_forgotten(
    store: Store, bucket: Bucket, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with resweep.init(id="r1") as run:
        save_steps(run, model, range(2))
    for step in range(2):
        spoil(bucket, step)
    with resweep.init(id="r1", resume="allow") as run:
        assert run.restore_checkpoint() is None
        assert run.checkpoint_step is None
    assert "starting without one" in caplog.text
    assert [one.step for one in (committed(store), *committed(store).kept)] == [1, 0]


def test_a_checkpoint_of_a_folder_is_not_looked_for_in_the_object_store(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with resweep.init(id="r1", checkpoint_dir=tmp_path / "c") as run:
        run.log({"loss": 1})
        assert run.save_checkpoint(model).parent.parent == tmp_path / "c" / "r1"
    with resweep.init(id="r1", resume="allow") as run:
        assert run.restore_checkpoint() is None
    assert f"it was saved at {tmp_path}/c/r1/step-0-attempt-1/model.pt, and not to memory://" in caplog.text


def test_a_save_that_fails_at_any_call_leaves_the_one_before(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    """Nothing is raised in the training thread for the object store's sake."""
    with resweep.init(id="r1") as run:
        save_steps(run, model, range(1))
    for fails_at in range(3):
        failing = FailingBucket(open_bucket(url), fails_at, UnreachableError("the store is away"))
        with monkeypatch.context() as patched:
            patched.setattr(bucket_module, "open_bucket", lambda url, failing=failing: failing)
            with resweep.init(id="r1", resume="allow") as run:
                model.write_text("newer")
                assert run.save_checkpoint(model, step=1) == model
        if fails_at < 2:
            assert "the checkpoint of step 1 was not saved: the store is away" in caplog.text
            assert committed(store).step == 0
            with resweep.init(id="r1", resume="allow") as run:
                path = run.restore_checkpoint()
                assert path is not None
                assert path.read_text() == "0"
    assert committed(store).step == 1, "what fails after the commit is the clearing away"


def test_a_store_that_cannot_be_reached_is_waited_for_and_the_run_never_starts_anew(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with resweep.init(id="r1") as run:
        save_steps(run, model, range(1))
    get, failures = Bucket.get, 1

    def get_or_fail(bucket: Bucket, key: str) -> bytes:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise UnreachableError("away")
        return get(bucket, key)

    monkeypatch.setattr(Bucket, "get", get_or_fail)
    with resweep.init(id="r1", resume="allow") as run:
        assert run.restore_checkpoint() is not None
    assert "waits up to 20 s: away" in caplog.text
    failures = 1000
    monkeypatch.setenv("RESWEEP_INIT_TIMEOUT", "0.1")
    with (
        pytest.raises(CommError, match=r"cannot restore its checkpoint of step 0: away.*RESWEEP_INIT_TIMEOUT"),
        resweep.init(id="r1", resume="allow") as run,
    ):
        run.restore_checkpoint()
    assert committed(store).step == 0


def test_a_refusal_for_good_is_not_waited_for(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with resweep.init(id="r1") as run:
        save_steps(run, model, range(1))

    def refuse(bucket: Bucket, key: str) -> bytes:
        raise UnreachableError("refuses", hopeless=True)

    monkeypatch.setattr(Bucket, "get", refuse)
    with pytest.raises(CommError, match="refuses"), resweep.init(id="r1", resume="allow") as run:
        run.restore_checkpoint()


def test_a_stale_attempt_commits_nothing_and_touches_nothing_of_its_successor(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    save_steps(run, model, range(2))
    gate = Gate(monkeypatch)
    stale = run.save_checkpoint(model, step=2, wait=False)
    gate.wait()
    agent.end(None, preempted=True)
    successor = Agent(store, "two")
    token = successor.take().token
    store.commit_checkpoint(token, path="memory://x/step-9-attempt-2-00000000", step=9)
    theirs = "local/uncategorized/run0/step-9-attempt-2-00000000/manifest.json"
    bucket._store.put(theirs, b"theirs")
    gate.let_pass()
    assert stale.wait(30) is False
    assert stale.committed is False
    assert committed(store, "run0").step == 9
    run.finish()
    wait_until(
        lambda: folders(bucket, "run0") == ["step-0-attempt-1", "step-1-attempt-1", "step-9-attempt-2"],
        description="the end of what was refused",
    )
    assert bucket.get(theirs) == b"theirs"


def test_what_an_attempt_left_half_sent_is_removed_by_its_successor(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = begin_attempt(store, monkeypatch)
    prefix = "local/uncategorized/run0"
    for name in ("step-7-attempt-1-00000000", "step-8-attempt-2-00000000", "step-9-attempt-3-00000000", "others"):
        bucket.put(f"{prefix}/{name}/files/model.pt", b"half of it")
    agent.end(None, preempted=True)
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    with resweep.init() as run:
        save_steps(run, model, range(1))
    assert sorted(bucket.folders(prefix))[0] == "others"
    assert folders(bucket, "run0")[1:] == ["step-0-attempt-2", "step-9-attempt-3"]


def test_in_the_background_the_script_may_overwrite_its_file_at_once(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gate = Gate(monkeypatch)
    with resweep.init(id="r1") as run:
        run.log({"loss": 1})
        saving = run.save_checkpoint(model, wait=False)
        assert isinstance(saving, Saving)
        gate.wait()
        model.write_text("the next epoch's")
        assert (saving.committed, saving.wait(0)) == (None, False)
        assert "on its way" in repr(saving)
        gate.let_pass()
        assert saving.wait(30) is True
        assert (saving.committed, saving.error, saving.step) == (True, "", 0)
    assert list((tmp_path / "resweep" / "uploads" / "r1").iterdir()) == []
    with resweep.init(id="r1", resume="allow") as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert path.read_text() == "weights"


def test_a_copy_that_fails_leaves_nothing_behind(
    store: Store, bucket: Bucket, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = resweep.init(id="r1")

    def full(source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True)
        target.write_text("half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(remote_checkpoints, "copy_to", full)
    with pytest.raises(OSError, match="No space left"):
        run.save_checkpoint(model, wait=False)
    assert list((tmp_path / "resweep" / "uploads" / "r1").iterdir()) == []
    assert folders(bucket) == []


def test_of_several_that_wait_the_newest_wins(store: Store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    with resweep.init(id="r1") as run:
        first = run.save_checkpoint(model, step=0, wait=False)
        gate.wait()
        waiting = [run.save_checkpoint(model, step=step, wait=False) for step in (1, 2, 3)]
        gate.let_pass()
        assert first.wait(30) is True
        assert [saving.wait(30) for saving in waiting] == [False, False, True]
        assert waiting[0].error == "a newer checkpoint took its place before it was sent"
    assert [one.step for one in (committed(store), *committed(store).kept)] == [3, 0]


def test_one_that_is_waited_for_goes_before_what_is_being_sent(
    store: Store, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that will be taken away has no time for the older one."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "a").write_text("1")
    gate = Gate(monkeypatch)
    with resweep.init(id="r1") as run:
        older = run.save_checkpoint(folder, step=1, wait=False)
        gate.wait()
        done = threading.Event()

        def save() -> None:
            run.save_checkpoint(folder, step=2)
            done.set()

        thread = threading.Thread(target=save)
        thread.start()
        wait_until(lambda: not run._checkpoints._uploads._urgent.empty(), description="the newer one")  # type: ignore[attr-defined]
        gate.let_pass()
        assert done.wait(30)
        thread.join(30)
        assert older.wait(30) is False
    assert folders(bucket) == ["step-2-attempt-1"]


def test_finish_waits_for_what_is_on_its_way_and_says_what_it_could_not_wait_for(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(monkeypatch)
    run = resweep.init(id="r1")
    run.save_checkpoint(model, step=1, wait=False)
    gate.wait()
    timer = threading.Timer(0.05, gate.let_pass)
    timer.start()
    run.finish()
    timer.join(30)
    assert committed(store).step == 1

    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.1")
    gate = Gate(monkeypatch)
    run = resweep.init(id="r1", resume="allow")
    lost = run.save_checkpoint(model, step=2, wait=False)
    gate.wait()
    run.finish()
    assert "the checkpoint of step 2 could not be sent within 0.1 s and is lost; save it with wait=True" in caplog.text
    gate.let_pass()
    assert lost.wait(30) is False
    assert committed(store).step == 1


def test_a_slow_checkpoint_leaves_time_for_the_rows_and_the_end(
    store: Store, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.3")
    gate = Gate(monkeypatch)
    run = resweep.init(id="r1")
    run.log({"n": 0})
    run.save_checkpoint(model, wait=False)
    gate.wait()
    run.finish(3)
    gate.let_pass()
    record = store.run("r1")
    assert (record.state, record.exit_code, record.step) == (RunState.FAILED, 3, 0)
    assert "the checkpoint of step 0 could not be sent within 0.3 s" in caplog.text
    assert not list(spill_folder(tmp_path).glob("*.jsonl"))


def test_while_redis_is_away_checkpoints_wait_for_their_commit(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0")
    run = resweep.init(id="r1")
    run.log({"loss": 0})
    run.save_checkpoint(model)
    wait_until(lambda: store.run("r1").checkpoint, description="the first commit")
    log, away = Store.log, True

    def log_or_fail(self: Store, *arguments: Any, **named: Any) -> Any:
        if away:
            raise StoreUnavailableError("away")
        return log(self, *arguments, **named)

    monkeypatch.setattr(Store, "log", log_or_fail)
    for step in range(1, 6):
        run.log({"loss": step})
        run.save_checkpoint(model)
    wait_until(
        lambda: folders(bucket) == [f"step-{step}-attempt-1" for step in (0, 4, 5)], description="room for the newest"
    )
    away = False
    wait_until(lambda: committed(store).step == 5, description="the last commit")
    run.finish()
    assert folders(bucket) == ["step-4-attempt-1", "step-5-attempt-1"]
    assert [one.step for one in committed(store).kept] == [4]


@pytest.mark.parametrize("keep", [1, 2])
def test_what_redis_may_have_named_stays_though_newer_ones_wait(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    """The answer to the commit of step 1 is lost, and with it the link: Redis names it, whatever is saved after it."""
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0")
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "1")
    monkeypatch.setenv("RESWEEP_CHECKPOINT_KEEP", str(keep))
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    save_steps(run, model, range(1), "run0")
    wait_until(lambda: store.run("run0").checkpoint, description="the first commit")
    link = ScriptsLink(monkeypatch, loses="commit_checkpoint")
    save_steps(run, model, range(1, 2), "run0")
    wait_until(lambda: link.cut, description="the lost answer")
    save_steps(run, model, range(2, 6), "run0")
    run.finish()
    assert folders(bucket, "run0") == [f"step-{step}-attempt-1" for step in (0, 1, *range(6 - keep, 6))]
    assert committed(store, "run0").step == 1
    link.mend()
    agent.end(None, preempted=True)
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    with resweep.init() as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert path.read_text() == "1"
        assert run.checkpoint_step == 1


def test_once_the_answer_is_known_the_newer_ones_take_its_place(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0")
    with resweep.init(id="r1", checkpoint_keep=1) as run:
        link = ScriptsLink(monkeypatch, loses="commit_checkpoint")
        save_steps(run, model, range(1))
        wait_until(lambda: link.cut, description="the lost answer")
        save_steps(run, model, range(1, 4))
        link.mend()
        wait_until(lambda: committed(store).step == 3, description="the last commit")
    assert folders(bucket) == ["step-3-attempt-1"]


def test_a_refusal_does_not_remove_what_redis_may_have_named_before(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to a commit is lost, and when it is asked for again, a successor goes on from that checkpoint."""
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    link = ScriptsLink(monkeypatch, loses="commit_checkpoint")
    model.write_text("1")
    saving = run.save_checkpoint(model, step=1, wait=False)
    wait_until(lambda: link.cut, description="the lost answer")
    agent.end(None, preempted=True)
    Agent(store, "two").take()
    link.mend()
    assert saving.wait(30) is False
    assert saving.committed is None, "nobody will know here"
    run.finish()
    assert committed(store, "run0").step == 1
    assert folders(bucket, "run0") == ["step-1-attempt-1"]


def test_nobody_waits_for_ever_for_a_commit_that_this_process_will_not_see(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resweep.init(id="r1", mode="offline") as run:
        assert run.save_checkpoint(model, step=1, wait=False).wait() is False
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0")
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "1")

    def fail(self: Store, *arguments: Any, **named: Any) -> Any:
        raise StoreUnavailableError("away")

    run = resweep.init(id="r2")
    with monkeypatch.context() as away:
        away.setattr(Store, "commit_checkpoint", fail)
        away.setattr(Store, "finish_run", fail)
        savings = [run.save_checkpoint(model, step=step, wait=False) for step in range(4)]
        run.finish()
        assert [saving.wait() for saving in savings] == [False] * 4
    assert savings[-1].committed is None
    assert "on its way" in repr(savings[-1])


def test_offline_checkpoints_are_committed_by_sync(store: Store, model: Path, tmp_path: Path, url: str) -> None:
    with resweep.init(id="r1", mode="offline", checkpoint_keep=3) as run:
        run.log({"loss": 0})
        run.save_checkpoint(model)
    sync(tmp_path)
    assert committed(store).path.startswith(f"{url}/local/uncategorized/r1/step-0-attempt-1-")
    with resweep.init(id="r1", resume="allow") as run:
        assert run.restore_checkpoint() is not None


def test_other_ranks_restore_and_save_nothing(
    store: Store, bucket: Bucket, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resweep.init(id="r1") as run:
        save_steps(run, model, range(1))
    monkeypatch.setenv("RANK", "1")
    with resweep.init(id="r1", resume="allow") as run:
        path = run.restore_checkpoint()
        assert path is not None
        assert path.read_text() == "0"
        saving = run.save_checkpoint(model, step=5, wait=False)
        assert (saving.committed, saving.wait(0)) == (False, False)
        assert "rank 0 does" in saving.error
    assert path.exists(), "rank 0 may still read it"
    assert folders(bucket) == ["step-0-attempt-1"]


def test_two_processes_of_a_machine_bring_it_once(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    with resweep.init(id="r1") as run:
        save_steps(run, model, range(1))
    fetched: list[str] = []
    get_range = Bucket.get_range

    def counted(bucket: Bucket, key: str, start: int, end: int) -> bytes:
        fetched.append(key)
        time.sleep(0.05)
        return get_range(bucket, key, start, end)

    monkeypatch.setattr(Bucket, "get_range", counted)
    monkeypatch.setenv("RANK", "1")
    paths: list[Path | None] = []

    def restore() -> None:
        with session_of_its_own() as run:
            paths.append(run.restore_checkpoint())

    threads = [threading.Thread(target=restore) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(paths) == 3
    assert len(fetched) == 1


def session_of_its_own() -> resweep.Run:
    """A run that is not the active one of this process."""
    from resweep.beginning import begin_run
    from resweep.settings import resolve

    return begin_run(resolve(os.environ, run_id="r1", resume="allow"), lambda run, code: None)


def test_nothing_to_save(store: Store) -> None:
    run = resweep.init(id="r1")
    with pytest.raises(UsageError, match=r"missing\.pt does not exist; save it there first"):
        run.save_checkpoint("missing.pt", wait=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"checkpoint_url": "ftp://x/y"}, r"checkpoint_url must begin with one of s3://.*, got 'ftp://x/y'\. Write"),
        ({"checkpoint_url": "s3://k:geheim@b"}, r"checkpoint_url must have no user and password.*got 's3://…@b'"),
        ({"checkpoint_dir": "s3://b/x"}, "must be a folder on this machine, got 's3://b/x'; give a URL as checkpoint_"),
        ({"checkpoint_dir": "c", "checkpoint_url": "s3://b"}, "checkpoints go to one place, and checkpoint_dir is 'c'"),
        ({"checkpoint_keep": 0}, r"checkpoint_keep must be a whole number from 1 on, got '0'; leave it out for 2"),
    ],
)
def test_places_that_cannot_be_are_refused(store: Store, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        resweep.init(**arguments)
    assert "geheim" not in str(refused.value)
    assert session.active_run() is None


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("RESWEEP_CHECKPOINT_URL", "s3:/b", r"RESWEEP_CHECKPOINT_URL must begin with one of s3://"),
        ("RESWEEP_CHECKPOINT_KEEP", "two", r"RESWEEP_CHECKPOINT_KEEP must be a whole number from 1 on, got 'two'"),
        ("RESWEEP_CHECKPOINT_DIR", "x", r"RESWEEP_CHECKPOINT_DIR is 'x' and RESWEEP_CHECKPOINT_URL 'memory://"),
    ],
)
def test_so_are_those_of_the_environment(
    store: Store, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UsageError, match=message):
        resweep.init()


def test_secrets_are_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    error = RuntimeError("GET http://h/b?X-Amz-Signature=abc failed with very-secret\nDebug source: very-secret")
    assert bucket_module.plain_error(error) == "GET http://h/b?… failed with …"


def test_run_ids_with_odd_characters_have_a_place_of_their_own(store: Store, bucket: Bucket, model: Path) -> None:
    for run_id in ("Übung 7", "..a%", "x" * 128):
        with resweep.init(id=run_id) as run:
            run.save_checkpoint(model, step=1)
        with resweep.init(id=run_id, resume="allow") as run:
            assert run.restore_checkpoint() is not None


def test_obstore_is_loaded_when_a_url_is_given_and_not_before(tmp_path: Path) -> None:
    script = """
        import sys, resweep
        resweep.init(mode="offline").finish()
        assert "obstore" not in sys.modules
        run = resweep.init(mode="offline", checkpoint_url="memory://")
        assert "obstore" in sys.modules
    """
    assert run_script(script, tmp_path) == (0, "", "")
