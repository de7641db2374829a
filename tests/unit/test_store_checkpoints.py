"""The record of a run's checkpoints: which are kept, and what a run goes on from when the newest is damaged."""

from __future__ import annotations

from support.checks import check_promises
from support.stores import SWEEP, begin_run

from resweep_scheduler.store import Checkpoint, Hold, Store


def checkpoint_of(store: Store, run_id: str = "run0") -> Checkpoint:
    checkpoint = store.run(run_id).checkpoint
    assert checkpoint is not None
    return checkpoint


def trail(checkpoint: Checkpoint) -> list[tuple[str, int | None, int]]:
    """Path, step and attempt of all that are kept, newest first."""
    return [(one.path, one.step, one.attempt) for one in (checkpoint, *checkpoint.kept)]


def test_the_last_k_are_remembered_over_all_attempts(store: Store) -> None:
    agent = begin_run(store)
    for step in range(4):
        answer = store.commit_checkpoint(agent.run.token, path=f"c{step}", step=step, after=step, keep=3)
    assert answer.kept == ("c3", "c2", "c1")
    agent.end(1, preempted=True)
    answer = store.commit_checkpoint(agent.take().token, path="d4", step=4, metadata={"epoch": 2}, keep=3)
    assert answer.kept == ("d4", "c3", "c2")
    checkpoint = checkpoint_of(store)
    assert trail(checkpoint) == [("d4", 4, 2), ("c3", 3, 1), ("c2", 2, 1)]
    assert checkpoint.metadata == {"epoch": 2}
    check_promises(store, SWEEP, complete=False)


def test_the_next_attempt_is_told_of_all_that_are_kept(store: Store) -> None:
    agent = begin_run(store)
    for step in (1, 2):
        store.commit_checkpoint(agent.run.token, path=f"c{step}", step=step)
    agent.end(1, preempted=True)
    told = agent.take().checkpoint
    assert told is not None
    assert trail(told) == [("c2", 2, 1), ("c1", 1, 1)]


def test_with_keep_1_only_the_newest_is_remembered(store: Store) -> None:
    token = begin_run(store).run.token
    for step in (1, 2):
        answer = store.commit_checkpoint(token, path=f"c{step}", step=step, keep=1)
    assert answer.kept == ("c2",)
    assert checkpoint_of(store).kept == ()


def test_a_late_commit_is_told_what_counts(store: Store) -> None:
    token = begin_run(store).run.token
    store.commit_checkpoint(token, path="c1", step=1, after=1)
    store.commit_checkpoint(token, path="c2", step=2, after=2)
    assert store.commit_checkpoint(token, path="c1", step=1, after=1).kept == ("c2", "c1")


def test_records_of_before_there_was_a_list_are_read_and_kept(store: Store) -> None:
    """A run that an older version of resweep began goes on."""
    token = begin_run(store).run.token
    key = store.keys.run("run0", "checkpoint")
    store.client.set(key, '{"path":"old","metadata":"{}","after":1,"step":3,"attempt":1,"saved_at":5}')
    assert trail(checkpoint_of(store)) == [("old", 3, 1)]
    store.commit_checkpoint(token, path="new", step=4, after=2)
    assert trail(checkpoint_of(store)) == [("new", 4, 1), ("old", 3, 1)]


def test_falling_back_takes_the_damaged_ones_off_the_list(store: Store) -> None:
    """Else the next commit would push the good one out, and keep the damaged one."""
    agent = begin_run(store)
    for step in (1, 2, 3):
        store.commit_checkpoint(agent.run.token, path=f"c{step}", step=step, after=step, keep=3)
    agent.end(1, preempted=True)
    token = agent.take().token
    answer = store.fall_back(token, lost="c3", path="c2", metadata={"epoch": 2}, reason="its digest is wrong")
    assert answer.hold is Hold.OWNER
    assert trail(checkpoint_of(store)) == [("c2", 2, 1), ("c1", 1, 1)]
    assert checkpoint_of(store).metadata == {"epoch": 2}
    assert store.commit_checkpoint(token, path="d3", step=3, keep=3).kept == ("d3", "c2", "c1")
    (event,) = [event for event in store.events(SWEEP) if event.kind == "fallback"]
    assert (event.run_id, event.attempt) == ("run0", 2)
    assert event.data == {"lost": 3, "step": 2, "reason": "its digest is wrong"}
    check_promises(store, SWEEP, complete=False)


def test_when_none_can_be_used_it_is_told_once_and_the_list_stays(store: Store) -> None:
    """Who looked may have looked at the wrong place: nothing is forgotten on its word."""
    token = begin_run(store).run.token
    store.commit_checkpoint(token, path="c1", step=1)
    for _ in range(2):
        store.fall_back(token, lost="c1", path=None, reason="missing")
    assert trail(checkpoint_of(store)) == [("c1", 1, 1)]
    (event,) = [event for event in store.events(SWEEP) if event.kind == "fallback"]
    assert event.data == {"lost": 1, "reason": "missing"}


def test_a_fall_back_from_what_is_not_the_newest_any_more_changes_nothing(store: Store) -> None:
    token = begin_run(store).run.token
    for step in (1, 2, 3):
        store.commit_checkpoint(token, path=f"c{step}", step=step, after=step, keep=3)
    store.fall_back(token, lost="c2", path="c1", reason="damaged")
    assert trail(checkpoint_of(store)) == [("c3", 3, 1), ("c2", 2, 1), ("c1", 1, 1)]
    assert [event for event in store.events(SWEEP) if event.kind == "fallback"] == []
