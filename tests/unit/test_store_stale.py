"""Calls of a stale attempt, and of long ago, change nothing at all (promise 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from support.checks import check_promises
from support.stores import (
    LEASE,
    SWEEP,
    Agent,
    Clock,
    begin_and_lapse,
    begin_run,
    dump,
)

from resweep_scheduler.store import (
    ClaimToken,
    EndAnswer,
    EndRequest,
    HeartbeatAnswer,
    Hold,
    RunMeta,
    Store,
    WriteAnswer,
)

LEASE_MS = round(LEASE * 1000)


def _second_attempt_runs(store: Store, clock: Clock) -> ClaimToken:
    """The first attempt's token, while a second attempt owns the run."""
    first = begin_and_lapse(store, clock)
    other = Agent(store, "other")
    other.take()
    other.log(0)
    return first.run.token


def _second_attempt_ended(store: Store, clock: Clock, *, exit_code: int, preempted: bool = False) -> ClaimToken:
    first = begin_and_lapse(store, clock)
    other = Agent(store, "other")
    other.take()
    other.end(exit_code, preempted=preempted)
    return first.run.token


def _other_nonce(store: Store, clock: Clock) -> ClaimToken:
    """The same attempt number in other hands, as after a rollback of Redis."""
    return replace(begin_run(store).run.token, nonce="somebody.1")


def _gone(store: Store, clock: Clock) -> ClaimToken:
    begin_run(store)
    return ClaimToken("no-such-run", 1, "session-a.1")


def _removed_sweep(store: Store, clock: Clock) -> ClaimToken:
    agent = begin_run(store)
    agent.end(0)
    store.remove_sweep(SWEEP)
    return agent.run.token


def _killed_while_away(store: Store, clock: Clock) -> ClaimToken:
    agent = begin_and_lapse(store, clock)
    store.stop_run("run0", reason="stopped by user")
    return agent.run.token


def _replaced(store: Store, clock: Clock) -> ClaimToken:
    agent = begin_run(store)
    Agent(store, "a", session="newer")
    return agent.run.token


STALE: dict[str, Callable[[Store, Clock], ClaimToken]] = {
    "another attempt runs": _second_attempt_runs,
    "another attempt finished": lambda store, clock: _second_attempt_ended(store, clock, exit_code=0),
    "another attempt failed": lambda store, clock: _second_attempt_ended(store, clock, exit_code=1),
    "another attempt was preempted": lambda store, clock: _second_attempt_ended(
        store, clock, exit_code=1, preempted=True
    ),
    "other nonce": _other_nonce,
    "gone": _gone,
    "removed": _removed_sweep,
    "killed while away": _killed_while_away,
    "agent replaced": _replaced,
}

Write = Callable[[Store, ClaimToken], HeartbeatAnswer | WriteAnswer | EndAnswer]
WRITES: dict[str, Write] = {
    "heartbeat": lambda store, token: store.heartbeat(SWEEP, agent="a", token=token, lease_ms=LEASE_MS),
    "short heartbeat": lambda store, token: store.heartbeat(SWEEP, agent="a", token=token, lease_ms=5),
    "mark": lambda store, token: store.mark_preempting(token, reason="script"),
    "log": lambda store, token: store.log(token, first_seq=1, rows=[(7, "{}")], summary="{}", metric=-1.0),
    "prune_run": lambda store, token: store.prune_run(token, iteration=0, reason="weak", data={}),
    "commit_checkpoint": lambda store, token: store.commit_checkpoint(token, path="/tmp/stale", step=99),
    "fall_back": lambda store, token: store.fall_back(token, lost="/tmp/c", path=None, reason="damaged"),
    "update_config": lambda store, token: store.update_config(token, config={"a": 1}, meta=RunMeta(name="x")),
    "append_output": lambda store, token: store.append_output(token, "text", piece=1),
    "end with 0": lambda store, token: store.end_attempt(EndRequest(token, 0)),
    "end with 1": lambda store, token: store.end_attempt(EndRequest(token, 1)),
    "end without status": lambda store, token: store.end_attempt(EndRequest(token, None, preempted=True)),
    "end by a stop": lambda store, token: store.end_attempt(EndRequest(token, None, killed=True)),
    "finish_run": lambda store, token: store.finish_run(token, exit_code=0),
    "adopt": lambda store, token: store.adopt(SWEEP, agent="a", token=token, claimed_at=0, lease_ms=LEASE_MS),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("scene", STALE)
def test_write_of_a_stale_attempt_changes_nothing(store: Store, clock: Clock, scene: str, write: str) -> None:
    """Not one key changes, and the answer says that the attempt is over."""
    token = STALE[scene](store, clock)
    before = dump(store)
    answer = WRITES[write](store, token)
    assert dump(store) == before
    assert answer.hold is (Hold.GONE if scene in ("gone", "removed") else Hold.STALE)


@pytest.mark.parametrize("scene", STALE)
def test_init_of_a_stale_attempt_changes_nothing(store: Store, clock: Clock, scene: str) -> None:
    """A script that starts too late is told so, and begins nothing."""
    token = STALE[scene](store, clock)
    before = dump(store)
    answer = store.init_run(
        run_id=token.run_id, resume="allow", nonce=token.nonce, attempt=token.attempt, config={"a": 1}
    )
    assert (answer.outcome.value, answer.run, answer.token) == ("stale", None, None)
    assert dump(store) == before


@pytest.mark.parametrize("exit_code", [0, 1])
def test_end_that_arrives_after_its_repetition_and_the_next_claim(store: Store, exit_code: int) -> None:
    """A held-up report of the first attempt does not end the second one of the same agent."""
    agent = begin_run(store)
    first = agent.run.token
    agent.end(1, preempted=True)
    agent.take()
    before = dump(store)
    assert store.end_attempt(EndRequest(first, exit_code)).hold is Hold.STALE
    assert dump(store) == before
    check_promises(store, SWEEP, complete=False)


def test_checkpoint_that_arrives_after_a_newer_one_is_not_taken(store: Store) -> None:
    """A held-up commit does not name again what the script has left behind, and may have deleted."""
    token = begin_run(store).run.token
    store.commit_checkpoint(token, path="/tmp/c1", step=1, after=2)
    store.commit_checkpoint(token, path="/tmp/c2", step=2, after=3)
    before = dump(store)
    assert store.commit_checkpoint(token, path="/tmp/c1", step=1, after=2).hold is Hold.OWNER
    assert dump(store) == before


def test_checkpoint_of_a_lower_step_is_taken(store: Store) -> None:
    """A script may count its steps anew, fold by fold: what it saved last is where the next attempt goes on."""
    token = begin_run(store).run.token
    store.commit_checkpoint(token, path="/tmp/c9", step=9, after=10)
    store.commit_checkpoint(token, path="/tmp/c0", step=0, after=10)
    checkpoint = store.run("run0").checkpoint
    assert checkpoint is not None
    assert (checkpoint.path, checkpoint.step) == ("/tmp/c0", 0)


def test_later_attempt_may_commit_an_earlier_step(store: Store) -> None:
    """A script that started from an earlier checkpoint may have fewer steps than the last one of its predecessor."""
    agent = begin_run(store)
    store.commit_checkpoint(agent.run.token, path="/tmp/c9", step=9, after=10)
    agent.end(1, preempted=True)
    store.commit_checkpoint(agent.take().token, path="/tmp/c2", step=2, after=1)
    checkpoint = store.run("run0").checkpoint
    assert checkpoint is not None
    assert (checkpoint.path, checkpoint.attempt) == ("/tmp/c2", 2)


def test_summary_that_arrives_after_a_newer_one_is_not_taken(store: Store) -> None:
    """A held-up batch brings back neither its rows nor its summary."""
    agent = begin_run(store)
    agent.log(0, first_seq=1, summary='{"loss": 9}')
    agent.log(1, first_seq=2, summary='{"loss": 1}')
    assert agent.log(0, first_seq=1, summary='{"loss": 9}').accepted == 0
    assert store.run("run0").summary == {"loss": 1}
    store.log(agent.run.token, first_seq=1, rows=[], summary='{"best": 1}')
    assert store.run("run0").summary == {"best": 1}
