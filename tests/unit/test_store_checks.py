"""The check of the promises finds what it is there to find: each test breaks one thing, and must be told so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.checks import check_promises
from support.stores import SWEEP, Agent, make_offer, make_sweep

from resweep_scheduler.store import Event, RunState, Store

STEPS = range(3)


def half_done(store: Store) -> None:
    """run0 finished, run1 running, run2 on the queue, run3 ready."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(4))
    first, second = Agent(store, "a"), Agent(store, "b")
    for end in ({"exit_code": 0}, {"exit_code": 1, "preempted": True}):
        first.take()
        first.log(*STEPS)
        if end["exit_code"] == 0:
            second.take()
        first.end(**end)


def whole(store: Store) -> None:
    """Two runs, both finished."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(2, exhausted=True))
    agent.log(*STEPS)
    agent.end(0)
    agent.take()
    agent.log(0, 1)
    agent.end(1, preempted=True)
    agent.take()
    agent.log(1, 2)
    agent.end(0)


def tell(store: Store, kind: str, before: str, after: str, *, attempt: int = 1, agent: str = "a") -> None:
    """Writes an event of run0 that no script wrote."""
    fields = {"kind": kind, "run": "run0", "attempt": attempt, "agent": agent, "before": before, "after": after}
    store.client.xadd(store.keys.sweep(SWEEP, "events"), fields | {"data": ""})  # type: ignore[arg-type]


def claim_again(store: Store) -> None:
    """Hands run0 out a second time under the number of its first attempt."""
    tell(store, "retried", "finished", "preempted")
    tell(store, "claimed", "preempted", "running")


def row(store: Store, run_id: str, step: int, attempt: int) -> None:
    fields: Any = {"step": step, "attempt": attempt, "row": "{}"}
    store.client.xadd(store.keys.run(run_id, "history"), fields)


def forget_last_event(store: Store) -> None:
    key = store.keys.sweep(SWEEP, "events")
    store.client.xdel(key, store.events(SWEEP)[-1].event_id)


Break = Callable[[Store], object]
BROKEN_WHOLE: dict[str, tuple[Break, str]] = {
    "an event is missing": (forget_last_event, "finished"),
    "an event came twice": (lambda store: tell(store, "finished", "running", "finished"), "it was finished"),
    "an illegal transition": (lambda store: tell(store, "claimed", "finished", "running"), "is not legal"),
    "a kind that leads elsewhere": (lambda store: tell(store, "failed", "finished", "killed"), "does not lead to"),
    "a note that changes the state": (lambda store: tell(store, "stop", "finished", "killed"), "a note changed"),
    "an attempt that was claimed again": (
        claim_again,
        "attempt 1 was claimed after attempt 1",
    ),
    "a counter": (lambda store: store.client.hincrby(store.keys.sweep(SWEEP), "n:failed", 1), "how many are failed"),
    "a record": (lambda store: store.client.hset(store.keys.run("run0"), "state", "failed"), "run0 is failed"),
    "a record that is gone": (lambda store: store.client.delete(store.keys.run("run0")), "run0 has no record"),
    "a lease that is left": (
        lambda store: store.client.zadd(store.keys.sweep(SWEEP, "leases"), {"run0": 1}),
        "leases are left",
    ),
    "a queue that is not empty": (
        lambda store: store.client.rpush(store.keys.sweep(SWEEP, "queue"), "run0"),
        "the run queue is not empty",
    ),
    "an index that exists twice": (
        lambda store: store.client.hset(store.keys.run("run1"), "index", "0"),
        "the same index: 0",
    ),
    "an index that nobody gave": (
        lambda store: store.client.hset(store.keys.run("run1"), "index", "7"),
        "the search never gave",
    ),
    "a row of a stale attempt": (lambda store: row(store, "run1", 3, 1), "a stale attempt logged"),
    "a row of an attempt that nobody claimed": (lambda store: row(store, "run0", 2, 9), "nobody claimed: [9]"),
    "a step that was logged twice": (lambda store: row(store, "run0", 2, 1), "logged a step twice"),
    "a step too many": (lambda store: row(store, "run0", 5, 1), "its steps should be [0, 1, 2]"),
    "a history that is gone": (
        lambda store: store.client.delete(store.keys.run("run0", "history")),
        "its steps should be",
    ),
    "a sweep that is not over": (
        lambda store: store.client.hset(store.keys.sweep(SWEEP), "state", "running"),
        "the sweep is running",
    ),
}


@pytest.mark.parametrize("name", BROKEN_WHOLE)
def test_breach_in_a_complete_sweep_is_found(store: Store, name: str) -> None:
    """The check passes before, and fails after one thing was broken, with words that name it."""
    whole(store)
    check_promises(store, SWEEP, steps=STEPS)
    break_it, words = BROKEN_WHOLE[name]
    break_it(store)
    with pytest.raises(AssertionError) as raised:
        check_promises(store, SWEEP, steps=STEPS)
    assert words in str(raised.value)


BROKEN_HALF: dict[str, tuple[Break, str]] = {
    "a run that is lost": (
        lambda store: store.client.lrem(store.keys.sweep(SWEEP, "queue"), 0, "run2"),
        "on the run queue are []",
    ),
    "a run that is queued twice": (
        lambda store: store.client.rpush(store.keys.sweep(SWEEP, "queue"), "run2"),
        "on the run queue are ['run2', 'run2']",
    ),
    "a run in two places": (
        lambda store: store.client.rpush(store.keys.sweep(SWEEP, "queue"), "run3"),
        "on the run queue are ['run2', 'run3']",
    ),
    "a ready run that is lost": (
        lambda store: store.client.delete(store.keys.sweep(SWEEP, "ready")),
        "ready are []",
    ),
    "an owner without a lease": (
        lambda store: store.client.zrem(store.keys.sweep(SWEEP, "leases"), "run1"),
        "under a lease are []",
    ),
    "an owner that nobody told of": (
        lambda store: store.client.hset(store.keys.run("run1"), "agent", "c"),
        "attempt 1 of c",
    ),
    "another sweep state": (
        lambda store: store.client.hset(store.keys.sweep(SWEEP), "state", "paused"),
        "the sweep is paused, by its events running",
    ),
}


@pytest.mark.parametrize("name", BROKEN_HALF)
def test_breach_in_a_running_sweep_is_found(store: Store, name: str) -> None:
    """Without `complete` runs may wait or run, but each in its place."""
    half_done(store)
    check_promises(store, SWEEP, complete=False, steps=STEPS)
    break_it, words = BROKEN_HALF[name]
    break_it(store)
    with pytest.raises(AssertionError) as raised:
        check_promises(store, SWEEP, complete=False)
    assert words in str(raised.value)


def test_running_sweep_is_not_complete(store: Store) -> None:
    """All that is left to do is named."""
    half_done(store)
    with pytest.raises(AssertionError) as raised:
        check_promises(store, SWEEP)
    message = str(raised.value)
    for words in ("its search is open", "still owned: run1 by b", "leases are left", "['run2']", "run3 pending"):
        assert words in message


def test_two_owners_at_a_time_are_found(store: Store) -> None:
    """A second claim before the first one's end is what promise 2 forbids."""
    half_done(store)
    key = store.keys.sweep(SWEEP, "events")
    claimed: Event = next(event for event in store.events(SWEEP) if (event.kind, event.run_id) == ("claimed", "run1"))
    fields: Any = {"kind": "claimed", "run": "run1", "attempt": 2, "agent": "c", "data": ""}
    store.client.xadd(key, fields | {"before": claimed.after, "after": RunState.RUNNING.value})
    with pytest.raises(AssertionError, match="two owners at a time"):
        check_promises(store, SWEEP, complete=False)
