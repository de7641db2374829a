"""How attempts end and runs come back: retries, runs without progress, lost leases, owners that return."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, dump, make_offer, make_sweep, pass_time

from resweep_scheduler.store import EndRequest, Hold, Run, RunState, Store, SweepCommand, SweepState

RUN = "run0"


def begin(store: Store, *, preemptible: bool = False, runs: int = 1, exhausted: bool = True, **settings: Any) -> Agent:
    """An agent that owns run0."""
    make_sweep(store, **settings)
    agent = Agent(store, preemptible=preemptible)
    agent.take(make_offer(runs, exhausted=exhausted))
    return agent


def lose_lease(store: Store, clock: Clock) -> Run:
    """Nobody hears of the owner until its lease has run out; returns the run after that."""
    pass_time(store, clock, LEASE)
    return store.run(RUN)


# What the record says of an end.


def test_record_of_an_end(store: Store, clock: Clock) -> None:
    """Exit status, signal, reason, time and duration of the end stand in the record; the next claim clears them."""
    agent = begin(store)
    clock.advance(12.5)
    agent.end(1, reason="exit code 1")
    run = store.run(RUN)
    assert (run.state, run.exit_code, run.signal, run.reason) == (RunState.FAILED, 1, None, "exit code 1")
    assert (run.seconds, run.ended_at) == (12.5, store.redis_time())
    store.retry_runs(SWEEP, [RUN])
    clock.advance(100)
    agent.take()
    run = store.run(RUN)
    assert (run.exit_code, run.reason, run.ended_at, run.seconds) == (None, "", None, 12.5)
    clock.advance(2.5)
    agent.end(None, signal=9, reason="SIGKILL")
    run = store.run(RUN)
    assert (run.state, run.exit_code, run.signal, run.seconds) == (RunState.CRASHED, None, 9, 15.0)


@pytest.mark.parametrize(
    ("end", "state"),
    [({}, RunState.FINISHED), ({"preempted": True}, RunState.FINISHED), ({"killed": True}, RunState.KILLED)],
)
def test_exit_0_is_finished_even_after_a_notice(store: Store, end: dict[str, Any], state: RunState) -> None:
    """A script that exits 0 is done, whatever was said before; only a stop by the agent overrules it."""
    agent = begin(store)
    agent.mark()
    assert agent.end(0, **end).state is state
    check_promises(store, SWEEP)


# The retry policy.


@pytest.mark.parametrize(
    ("exit_code", "setting", "last"), [(1, "retry_failed", "failed"), (None, "retry_crashed", "crashed")]
)
def test_retry_policy(store: Store, exit_code: int | None, setting: str, last: str) -> None:
    """A run that fails is put on the queue as often as the policy allows, then it stays failed."""
    settings: dict[str, Any] = {setting: 2}
    agent = begin(store, **settings)
    for attempt in (1, 2):
        answer = agent.end(exit_code)
        assert (answer.state, answer.reason) == (RunState.PREEMPTED, f"{last}, retried by the sweep's retry policy")
        assert store.events(SWEEP)[-1].data["outcome"] == last
        assert agent.take().token.attempt == attempt + 1
    assert agent.end(exit_code).state == last
    check_promises(store, SWEEP)


def test_retry_policy_is_for_its_own_kind_of_end(store: Store) -> None:
    """Retries of failures are none of crashes, and a stopped run is not retried."""
    agent = begin(store, retry_failed=5)
    assert agent.end(None).state is RunState.CRASHED
    store.retry_runs(SWEEP, [RUN])
    agent.take()
    store.stop_run(RUN, reason="stopped by user")
    assert agent.end(1).state is RunState.KILLED


def test_retry_by_hand_gives_the_policy_a_new_start(store: Store) -> None:
    """Who retries a run wants it to be tried as often as the first time."""
    agent = begin(store, retry_failed=1)
    agent.end(1)
    agent.take()
    assert agent.end(1).state is RunState.FAILED
    assert store.retry_runs(SWEEP, [RUN, "nope"]) == {RUN: RunState.FAILED}
    agent.take()
    assert agent.end(1).state is RunState.PREEMPTED


# Preempted again and again.


def test_run_without_progress_fails_after_three_attempts(store: Store) -> None:
    """A run that is preempted three times in a row without a new step fails, and says why."""
    agent = begin(store)
    agent.log(0, 1)
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED  # this one made progress
    for _ in range(2):
        agent.take()
        assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    agent.take()
    agent.log(0, 1)  # the same steps once more are no progress
    answer = agent.end(1, preempted=True)
    assert answer.state is RunState.FAILED
    assert answer.reason == "preempted 3 times in a row without a new step (preemption.max_attempts_without_progress)"
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    check_promises(store, SWEEP)


def test_progress_starts_the_count_again(store: Store) -> None:
    """One new step is enough to go on for ever."""
    agent = begin(store)
    for step in range(4):
        for _ in range(2):
            assert agent.end(1, preempted=True).state is RunState.PREEMPTED
            agent.take()
        agent.log(step)
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    check_promises(store, SWEEP, complete=False)


def test_retry_by_hand_starts_the_count_again(store: Store) -> None:
    """Somebody has looked at the run, and wants it to be tried as often as the first time."""
    agent = begin(store, max_attempts_without_progress=2)
    for _ in range(2):
        agent.end(1, preempted=True)
        if store.run(RUN).state is RunState.FAILED:
            store.retry_runs(SWEEP, [RUN])
        agent.take()
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED


def test_no_limit_of_attempts_without_progress(store: Store) -> None:
    """Zero means that a run may be preempted for ever."""
    agent = begin(store, max_attempts_without_progress=0)
    for _ in range(8):
        assert agent.end(1, preempted=True).state is RunState.PREEMPTED
        agent.take()


def test_attempt_that_never_began_is_not_counted(store: Store, clock: Clock) -> None:
    """A claim whose answer was lost says nothing about the script, however often that happens."""
    agent = begin(store)
    agent.end(1, preempted=True)
    for number in range(4):
        Agent(store, f"lost{number}").take_unconfirmed()
        assert lose_lease(store, clock).state is RunState.PREEMPTED
    agent.take()
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED


# Leases that ran out.


@pytest.mark.parametrize(
    ("preemptible", "marked", "state"),
    [(False, False, RunState.CRASHED), (False, True, RunState.PREEMPTED), (True, False, RunState.PREEMPTED)],
)
def test_lost_lease(store: Store, clock: Clock, preemptible: bool, marked: bool, state: RunState) -> None:
    """No status: crashed, or back on the queue when it was preempting or its machine is one that may be taken away."""
    agent = begin(store, preemptible=preemptible)
    if marked:
        agent.mark()
    run = lose_lease(store, clock)
    assert (run.state, run.reason) == (state, "the lease ran out")
    assert agent.heartbeat().hold is Hold.LAPSED
    assert store.leases(SWEEP) == []
    check_promises(store, SWEEP, complete=state is RunState.CRASHED)


@pytest.mark.parametrize("sign_of_life", ["heartbeat", "mark", "log", "init", "checkpoint"])
def test_attempt_that_wrote_anything_did_begin(store: Store, clock: Clock, sign_of_life: str) -> None:
    """Whatever an attempt wrote shows that its child ran; when its lease runs out it has crashed."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take_unconfirmed(make_offer(1)).token
    match sign_of_life:
        case "heartbeat":
            agent.heartbeat()
        case "mark":
            agent.mark()
        case "log":
            agent.log(0)
        case "init":
            store.init_run(run_id=RUN, resume="allow", nonce=token.nonce, attempt=token.attempt)
        case "checkpoint":
            store.commit_checkpoint(token, path="/tmp/c", step=1)
    run = lose_lease(store, clock)
    assert run.state is (RunState.PREEMPTED if sign_of_life == "mark" else RunState.CRASHED)
    assert run.reason == "the lease ran out"


def test_many_leases_run_out_at_once(store: Store, clock: Clock) -> None:
    """A whole cluster may die: each call ends some of the attempts, and all are found after a few."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(50))
    for number in range(50):
        Agent(store, f"agent{number}", preemptible=True).take()
    pass_time(store, clock, LEASE + 40)
    assert len(store.sweep(SWEEP).queue) == 50
    check_promises(store, SWEEP, complete=False)


# Owners that come back.


@pytest.mark.parametrize(("marked", "state"), [(False, RunState.RUNNING), (True, RunState.PREEMPTING)])
def test_owner_adopts_its_run_that_nobody_took(store: Store, clock: Clock, marked: bool, state: RunState) -> None:
    """The run goes on in its attempt, in the state it had, with its rows; the queue does not have it any more."""
    agent = begin(store, preemptible=True)
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
    agent = begin(store)
    assert lose_lease(store, clock).state is RunState.CRASHED
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    assert agent.adopt().hold is Hold.OWNER
    assert store.sweep(SWEEP).state is SweepState.RUNNING
    agent.end(0)
    check_promises(store, SWEEP)


def test_adoption_after_somebody_else_took_the_run(store: Store, clock: Clock) -> None:
    """Who comes too late is told to end its child, and changes nothing."""
    agent, other = begin(store, preemptible=True), Agent(store, "other")
    lose_lease(store, clock)
    other.take()
    before = dump(store)
    assert agent.adopt().hold is Hold.STALE
    assert dump(store) == before
    assert other.heartbeat().hold is Hold.OWNER


def test_adoption_of_a_run_that_was_retried_by_hand(store: Store, clock: Clock) -> None:
    """It crashed, somebody put it on the queue, nobody took it: its owner is alive after all, and goes on."""
    agent = begin(store)
    lose_lease(store, clock)
    store.retry_runs(SWEEP, [RUN])
    assert agent.heartbeat().hold is Hold.LAPSED
    assert agent.adopt().hold is Hold.OWNER
    assert store.sweep(SWEEP).queue == ()
    assert agent.end(0).state is RunState.FINISHED
    check_promises(store, SWEEP)


def test_adoption_in_a_canceled_sweep_tells_the_agent_to_stop(store: Store, clock: Clock) -> None:
    """Canceled while its owner was away: the run does not go on."""
    agent = begin(store, preemptible=True)
    lose_lease(store, clock)
    store.command_sweep(SWEEP, SweepCommand.CANCEL)
    answer = agent.adopt()
    assert (answer.hold, answer.stop) == (Hold.OWNER, "canceled")
    assert agent.heartbeat().stop == "canceled"
    assert agent.end(None, killed=True).state is RunState.KILLED
    check_promises(store, SWEEP)


def test_stop_of_a_run_whose_owner_is_away(store: Store, clock: Clock) -> None:
    """The owner that comes back learns that somebody stopped its run, whatever the run had become."""
    agent = begin(store)
    assert lose_lease(store, clock).state is RunState.CRASHED
    store.stop_run(RUN, reason="stopped by user")
    assert agent.adopt().stop == "stopped by user"


def test_late_end_of_a_lost_attempt_counts_while_nobody_took_the_run(store: Store, clock: Clock) -> None:
    """The owner could not be heard for a while, but it knows how its child ended."""
    agent = begin(store, preemptible=True)
    lose_lease(store, clock)
    answer = agent.end(0)
    assert (answer.hold, answer.state) == (Hold.OWNER, RunState.FINISHED)
    assert store.sweep(SWEEP).queue == ()
    check_promises(store, SWEEP)


def test_late_preemption_opens_a_sweep_that_had_finished_without_the_run(store: Store, clock: Clock) -> None:
    """The last run was given up for crashed; its owner returns and says that it was preempted: somebody must run it."""
    agent = begin(store)
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
    agent = begin(store, preemptible=True, max_attempts_without_progress=2)
    assert lose_lease(store, clock).state is RunState.PREEMPTED
    if returns == "adopts":
        agent.adopt()
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    agent.take()
    assert agent.end(1, preempted=True).state is RunState.FAILED


def test_progress_after_an_adoption_is_progress(store: Store, clock: Clock) -> None:
    """What was held against the attempt when it lapsed does not count once it goes on."""
    agent = begin(store, preemptible=True, max_attempts_without_progress=2)
    agent.end(1, preempted=True)
    agent.take()
    assert lose_lease(store, clock).state is RunState.FAILED
    assert agent.adopt().hold is Hold.OWNER
    agent.log(0)
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED


@pytest.mark.parametrize("returns", ["adopts", "ends"])
def test_retries_count_once(store: Store, clock: Clock, returns: str) -> None:
    """A lapse that was retried by the policy and turned out to be none leaves all retries."""
    agent = begin(store, retry_crashed=1, retry_failed=1)
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
    agent = begin(store)
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
    agent = begin(store)
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
    agent = begin(store)
    agent.log(0, 1, 2)
    agent.end(1, preempted=True)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert store.log(second, first_seq=1, rows=[(3, "{}"), (4, "{}")]).accepted == 2
    check_promises(store, SWEEP, complete=False, rolled_back=True)


def test_newer_claim_wins_over_a_mark_of_the_older_attempt(store: Store, clock: Clock) -> None:
    """The older attempt was preempting when its lease ran out; that says nothing about the newer one."""
    agent = begin(store)
    agent.mark()
    lose_lease(store, clock)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    answer = store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert (answer.hold, answer.preempting) == (Hold.OWNER, False)
    assert store.run(RUN).state is RunState.RUNNING


def test_newer_claim_wins_over_an_older_owner(store: Store, clock: Clock) -> None:
    """Redis shows the first attempt running, which had ended: the second one's owner takes over, the first is stale."""
    agent = begin(store)
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
    agent = begin(store)
    clock.advance(10)
    forgotten = replace(agent.run.token, nonce="session-b.1")
    claimed_at = store.redis_time() if claimed_later else agent.run.claimed_at - 1000
    before = dump(store)
    answer = store.adopt(SWEEP, agent="b", token=forgotten, claimed_at=claimed_at, lease_ms=60_000)
    assert answer.hold is Hold.STALE
    assert dump(store) == before


def test_older_claim_never_wins(store: Store, clock: Clock) -> None:
    """The first owner does not take the run back from the second, running or queued or ended."""
    agent, other = begin(store, preemptible=True), Agent(store, "other")
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
    agent = begin(store)
    agent.end(0)
    second = replace(agent.run.token, attempt=2, nonce="session-b.1")
    before = dump(store)
    answer = store.adopt(SWEEP, agent="b", token=second, claimed_at=store.redis_time(), lease_ms=60_000)
    assert answer.hold is Hold.STALE
    assert dump(store) == before
    check_promises(store, SWEEP)
