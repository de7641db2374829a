"""Owners whose leases ran out and who come back, also to a Redis that was rolled back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.checks import check_promises
from support.stores import (
    LEASE,
    SWEEP,
    Agent,
    Clock,
    begin_last_run,
    dump,
    lose_lease,
    make_offer,
    make_sweep,
)

from resweep_scheduler.store import EndRequest, Hold, RunState, Store, SweepCommand, SweepState

RUN = "run0"


@pytest.mark.parametrize(("marked", "state"), [(False, RunState.RUNNING), (True, RunState.PREEMPTING)])
def test_owner_adopts_its_run_that_nobody_took(store: Store, clock: Clock, marked: bool, state: RunState) -> None:
    """The run goes on in its attempt, in the state it had, with its rows; the queue does not have it any more."""
    agent = begin_last_run(store, preemptible=True)
    agent.log(0)
    if marked:
        agent.mark()
    assert lose_lease(store, clock).state is RunState.PREEMPTED
    assert agent.log(1, first_seq=2).hold is Hold.LAPSED
    answer = agent.adopt()
    assert (answer.hold, answer.preempting) == (Hold.OWNER, marked)
    run = store.run(RUN)
    assert (run.state, run.attempt, run.agent, run.ended_at, run.reason) == (state, 1, "a", None, "")
    assert store.sweep(SWEEP).queue == ()
    assert agent.heartbeat().hold is Hold.OWNER
    assert agent.log(0, 1, first_seq=1).accepted == 1
    assert agent.end(0).state is RunState.FINISHED
    check_promises(store, SWEEP, steps=range(2))


def test_attempt_that_is_adopted_did_begin(store: Store, clock: Clock) -> None:
    """Its first heartbeats were lost, so it counted as never begun; once adopted, the next lost lease is a crash."""
    make_sweep(store)
    agent = Agent(store)
    agent.take_unconfirmed(make_offer(1))
    assert lose_lease(store, clock).state is RunState.PREEMPTED
    agent.adopt()
    assert lose_lease(store, clock).state is RunState.CRASHED


def test_adoption_opens_a_sweep_that_had_finished_without_the_run(store: Store, clock: Clock) -> None:
    """The last run crashed for want of heartbeats, the sweep was finished; both go on."""
    agent = begin_last_run(store)
    assert lose_lease(store, clock).state is RunState.CRASHED
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    assert agent.adopt().hold is Hold.OWNER
    assert store.sweep(SWEEP).state is SweepState.RUNNING
    agent.end(0)
    check_promises(store, SWEEP)


def test_adoption_after_somebody_else_took_the_run(store: Store, clock: Clock) -> None:
    """Who comes too late is told to end its child, and changes nothing."""
    agent, other = begin_last_run(store, preemptible=True), Agent(store, "other")
    lose_lease(store, clock)
    other.take()
    before = dump(store)
    assert agent.adopt().hold is Hold.STALE
    assert dump(store) == before
    assert other.heartbeat().hold is Hold.OWNER


def test_adoption_of_a_run_that_was_retried_by_hand(store: Store, clock: Clock) -> None:
    """It crashed, somebody put it on the queue, nobody took it: its owner is alive after all, and goes on."""
    agent = begin_last_run(store)
    lose_lease(store, clock)
    store.retry_runs(SWEEP, [RUN])
    assert agent.heartbeat().hold is Hold.LAPSED
    assert agent.adopt().hold is Hold.OWNER
    assert store.sweep(SWEEP).queue == ()
    assert agent.end(0).state is RunState.FINISHED
    check_promises(store, SWEEP)


def test_adoption_in_a_canceled_sweep_tells_the_agent_to_stop(store: Store, clock: Clock) -> None:
    """Canceled while its owner was away: the run does not go on."""
    agent = begin_last_run(store, preemptible=True)
    lose_lease(store, clock)
    store.command_sweep(SWEEP, SweepCommand.CANCEL)
    answer = agent.adopt()
    assert (answer.hold, answer.stop) == (Hold.OWNER, "canceled")
    assert agent.heartbeat().stop == "canceled"
    assert agent.end(None, killed=True).state is RunState.KILLED
    check_promises(store, SWEEP)


def test_stop_of_a_run_whose_owner_is_away(store: Store, clock: Clock) -> None:
    """The owner that comes back learns that somebody stopped its run, whatever the run had become."""
    agent = begin_last_run(store)
    assert lose_lease(store, clock).state is RunState.CRASHED
    store.stop_run(RUN, reason="stopped by user")
    assert agent.adopt().stop == "stopped by user"


def test_late_end_of_a_lost_attempt_counts_while_nobody_took_the_run(store: Store, clock: Clock) -> None:
    """The owner could not be heard for a while, but it knows how its child ended."""
    agent = begin_last_run(store, preemptible=True)
    lose_lease(store, clock)
    answer = agent.end(0)
    assert (answer.hold, answer.state) == (Hold.OWNER, RunState.FINISHED)
    assert store.sweep(SWEEP).queue == ()
    check_promises(store, SWEEP)


def test_late_preemption_opens_a_sweep_that_had_finished_without_the_run(store: Store, clock: Clock) -> None:
    """The last run was given up for crashed; its owner returns and says that it was preempted: somebody must run it."""
    agent = begin_last_run(store)
    assert lose_lease(store, clock).state is RunState.CRASHED
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    assert store.sweep(SWEEP).state is SweepState.RUNNING
    assert agent.take().token.attempt == 2
    agent.end(0)
    check_promises(store, SWEEP)


# A lapse is an assumption: what was counted on it is taken back when the owner returns.


@pytest.mark.parametrize("returns", ["adopts", "ends"])
def test_attempt_without_progress_counts_once(store: Store, clock: Clock, returns: str) -> None:
    """One attempt that lapses, comes back and is preempted is one attempt without progress, not two."""
    agent = begin_last_run(store, preemptible=True, max_attempts_without_progress=2)
    assert lose_lease(store, clock).state is RunState.PREEMPTED
    if returns == "adopts":
        agent.adopt()
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    agent.take()
    assert agent.end(1, preempted=True).state is RunState.FAILED


def test_progress_after_an_adoption_is_progress(store: Store, clock: Clock) -> None:
    """What was held against the attempt when it lapsed does not count once it goes on."""
    agent = begin_last_run(store, preemptible=True, max_attempts_without_progress=2)
    agent.end(1, preempted=True)
    agent.take()
    assert lose_lease(store, clock).state is RunState.FAILED
    assert agent.adopt().hold is Hold.OWNER
    agent.log(0)
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED


@pytest.mark.parametrize("returns", ["adopts", "ends"])
def test_retries_count_once(store: Store, clock: Clock, returns: str) -> None:
    """A lapse that was retried by the policy and turned out to be none leaves all retries."""
    agent = begin_last_run(store, retry_crashed=1, retry_failed=1)
    assert lose_lease(store, clock).state is RunState.PREEMPTED
    if returns == "adopts":
        assert agent.adopt().hold is Hold.OWNER
    assert agent.end(1).state is RunState.PREEMPTED  # a failure, its first
    agent.take()
    assert agent.end(None).state is RunState.PREEMPTED  # a crash, its first
    agent.take()
    assert agent.end(1).state is RunState.FAILED
    check_promises(store, SWEEP)


@pytest.mark.parametrize("returns", ["adopts", "ends"])
def test_run_time_counts_once(store: Store, clock: Clock, returns: str) -> None:
    """The seconds of an attempt that lapsed and came back go from its claim to its end."""
    agent = begin_last_run(store)
    lose_lease(store, clock)
    if returns == "adopts":
        agent.adopt()
    clock.advance(30)
    agent.end(0)
    assert store.run(RUN).seconds == LEASE + 30


# Redis that was rolled back.


def test_newer_claim_wins_over_a_pending_run(store: Store) -> None:
    """Redis forgot the claim: the run is ready again, and its owner takes it back."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2))
    agent = Agent(store)
    run = agent.take()
    forgotten = replace(run, token=replace(run.token, run_id="run1"))
    answer = store.adopt(
        SWEEP, agent="a", token=forgotten.token, claimed_at=forgotten.claimed_at, lease_ms=agent.lease_ms
    )
    assert answer.hold is Hold.OWNER
    assert store.run("run1").state is RunState.RUNNING
    assert store.end_attempt(EndRequest(forgotten.token, 0)).state is RunState.FINISHED
    agent.end(0)
    check_promises(store, SWEEP, complete=False, rolled_back=True)


def test_newer_claim_wins_over_a_queued_run(store: Store) -> None:
    """Redis forgot the second claim: the run is on the queue after its first attempt."""
    agent = begin_last_run(store)
    agent.end(1, preempted=True)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    answer = store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert answer.hold is Hold.OWNER
    run = store.run(RUN)
    assert (run.state, run.attempt, run.agent) == (RunState.RUNNING, 2, "b")
    assert store.sweep(SWEEP).queue == ()
    check_promises(store, SWEEP, complete=False, rolled_back=True)


def test_newer_claim_logs_from_its_own_first_row(store: Store) -> None:
    """Row numbers count within an attempt: those of the recorded attempt do not hide those of the newer one."""
    agent = begin_last_run(store)
    agent.log(0, 1, 2)
    agent.end(1, preempted=True)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert store.log(second, first_seq=1, rows=[(3, "{}"), (4, "{}")]).accepted == 2
    check_promises(store, SWEEP, complete=False, rolled_back=True)


@pytest.mark.parametrize("seen_as", ["running", "preempting", "queued"])
def test_a_script_of_a_forgotten_claim_is_asked_to_wait_for_its_agent(store: Store, seen_as: str) -> None:
    """It may write before its agent has adopted the run: nothing is taken, and nothing is to be thrown away."""
    agent = begin_last_run(store)
    agent.log(0)
    if seen_as == "preempting":
        agent.mark()
    elif seen_as == "queued":
        agent.end(1, preempted=True)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    before = dump(store)
    writes = [
        store.log(second, first_seq=1, rows=[(1, "{}")]),
        store.update_config(second, config={"a": 1}),
        store.commit_checkpoint(second, path="/c", step=1),
        store.mark_preempting(second, reason="script"),
    ]
    assert [answer.hold for answer in writes] == [Hold.LAPSED] * 4
    assert dump(store) == before
    store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert store.log(second, first_seq=1, rows=[(1, "{}")]).hold is Hold.OWNER
    check_promises(store, SWEEP, complete=False, rolled_back=True)


def test_a_script_of_a_forgotten_claim_has_nothing_to_wait_for_once_the_run_is_over(store: Store) -> None:
    agent = begin_last_run(store)
    agent.end(0)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    assert store.log(second, first_seq=1, rows=[(1, "{}")]).hold is Hold.STALE


def test_newer_claim_wins_over_a_mark_of_the_older_attempt(store: Store, clock: Clock) -> None:
    """The older attempt was preempting when its lease ran out; that says nothing about the newer one."""
    agent = begin_last_run(store)
    agent.mark()
    lose_lease(store, clock)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    answer = store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert (answer.hold, answer.preempting) == (Hold.OWNER, False)
    assert store.run(RUN).state is RunState.RUNNING


def test_newer_claim_wins_over_an_older_owner(store: Store, clock: Clock) -> None:
    """Redis shows the first attempt running, which had ended: the second one's owner takes over, the first is stale."""
    agent = begin_last_run(store)
    clock.advance(10)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    answer = store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert answer.hold is Hold.OWNER
    assert agent.heartbeat().hold is Hold.STALE
    assert [record.run_id for record in store.agents(SWEEP) if record.agent == "a"] == [None]
    assert store.end_attempt(EndRequest(second, 0)).state is RunState.FINISHED
    check_promises(store, SWEEP, rolled_back=True)


@pytest.mark.parametrize("claimed_later", [False, True])
def test_of_two_claims_with_one_number_the_recorded_one_wins(store: Store, clock: Clock, claimed_later: bool) -> None:
    """Redis forgot a claim and gave the run to somebody else under the same number: two never own it."""
    agent = begin_last_run(store)
    clock.advance(10)
    forgotten = replace(agent.run.token, nonce="session-b.1")
    claimed_at = store.redis_time() if claimed_later else agent.run.claimed_at - 1000
    before = dump(store)
    answer = store.adopt(SWEEP, agent="b", token=forgotten, claimed_at=claimed_at, lease_ms=60_000)
    assert answer.hold is Hold.STALE
    assert dump(store) == before


def test_older_claim_never_wins(store: Store, clock: Clock) -> None:
    """The first owner does not take the run back from the second, running or queued or ended."""
    agent, other = begin_last_run(store, preemptible=True), Agent(store, "other")
    lose_lease(store, clock)
    other.take()
    assert agent.adopt().hold is Hold.STALE
    other.end(1, preempted=True)
    assert agent.adopt().hold is Hold.STALE
    other.take()
    other.end(0)
    assert agent.adopt().hold is Hold.STALE
    check_promises(store, SWEEP)


def test_ended_run_is_not_adopted_after_a_rollback(store: Store) -> None:
    """A run that is recorded as ended by an older attempt stays ended: nobody owns it, and the newer owner stops."""
    agent = begin_last_run(store)
    agent.end(0)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    before = dump(store)
    answer = store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert answer.hold is Hold.STALE
    assert dump(store) == before
    check_promises(store, SWEEP)
