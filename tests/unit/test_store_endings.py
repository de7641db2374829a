"""How attempts end and runs come back: retries, runs without progress, lost leases."""

from __future__ import annotations

from typing import Any

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, begin_last_run, lose_lease, make_offer, make_sweep, pass_time

from resweep_scheduler.store import EndRequest, Hold, RunState, Store, SweepState

RUN = "run0"


# What the record says of an end.


def test_record_of_an_end(store: Store, clock: Clock) -> None:
    """Exit status, signal, reason, time and duration of the end stand in the record; the next claim clears them."""
    agent = begin_last_run(store)
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
    agent = begin_last_run(store)
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
    agent = begin_last_run(store, **settings)
    for attempt in (1, 2):
        answer = agent.end(exit_code)
        assert (answer.state, answer.reason) == (RunState.PREEMPTED, f"{last}, retried by the sweep's retry policy")
        assert store.events(SWEEP)[-1].data["outcome"] == last
        assert agent.take().token.attempt == attempt + 1
    assert agent.end(exit_code).state == last
    check_promises(store, SWEEP)


def test_retry_policy_is_for_its_own_kind_of_end(store: Store) -> None:
    """Retries of failures are none of crashes, and a stopped run is not retried."""
    agent = begin_last_run(store, retry_failed=5)
    assert agent.end(None).state is RunState.CRASHED
    store.retry_runs(SWEEP, [RUN])
    agent.take()
    store.stop_run(RUN, reason="stopped by user")
    assert agent.end(1).state is RunState.KILLED


def test_retry_by_hand_gives_the_policy_a_new_start(store: Store) -> None:
    """Who retries a run wants it to be tried as often as the first time."""
    agent = begin_last_run(store, retry_failed=1)
    agent.end(1)
    agent.take()
    assert agent.end(1).state is RunState.FAILED
    assert store.retry_runs(SWEEP, [RUN, "nope"]) == {RUN: RunState.FAILED}
    agent.take()
    assert agent.end(1).state is RunState.PREEMPTED


# Preempted again and again.


def test_run_without_progress_fails_after_three_attempts(store: Store) -> None:
    """A script that marks itself and ends three times in a row without a new step fails, and the run says why."""
    agent = begin_last_run(store)
    agent.log(0, 1)
    agent.mark()
    assert agent.end(1).state is RunState.PREEMPTED  # this one made progress
    for _ in range(2):
        agent.take()
        agent.mark()
        assert agent.end(1).state is RunState.PREEMPTED
    agent.take()
    agent.log(0, 1)  # the same steps once more are no progress
    agent.mark()
    answer = agent.end(1)
    assert answer.state is RunState.FAILED
    assert answer.reason == "preempted 3 times in a row without a new step (preemption.max_attempts_without_progress)"
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    check_promises(store, SWEEP)


def _end_by_machine(store: Store, clock: Clock, agent: Agent, how: str) -> RunState:
    if how == "lost":
        return lose_lease(store, clock).state
    state = agent.end(1, preempted=True).state
    assert state is not None
    return state


@pytest.mark.parametrize("how", ["lost", "noticed"])
def test_machines_that_go_before_a_new_step_are_not_held_against_a_run(store: Store, clock: Clock, how: str) -> None:
    """Machines that live shorter than it is from one checkpoint to the next are no fault of a script that works."""
    agent = begin_last_run(store, preemptible=True, max_attempts_without_progress=2)
    for _ in range(5):
        agent.log(0, 1)
        assert _end_by_machine(store, clock, agent, how) is RunState.PREEMPTED
        agent.take()
    # They do not excuse the script either: what it does itself is counted all the same.
    agent.mark()
    assert agent.end(1).state is RunState.PREEMPTED
    agent.take()
    agent.log(0)
    assert _end_by_machine(store, clock, agent, how) is RunState.PREEMPTED
    agent.take()
    agent.mark()
    assert agent.end(1).state is RunState.FAILED


@pytest.mark.parametrize("how", ["lost", "noticed"])
def test_a_script_that_takes_its_machines_down_again_and_again_is_given_up(
    store: Store, clock: Clock, how: str
) -> None:
    """After ten times as many attempts as a script may end itself: so much bad luck is none."""
    agent = begin_last_run(store, preemptible=True, max_attempts_without_progress=2)
    for number in range(20):
        agent.log(0)
        assert _end_by_machine(store, clock, agent, how) is RunState.PREEMPTED, number
        agent.take()
    agent.log(0)
    assert _end_by_machine(store, clock, agent, how) is RunState.FAILED
    assert store.run(RUN).reason == (
        "preempted 20 times in a row without a new step (preemption.max_attempts_without_progress)"
    )
    check_promises(store, SWEEP)


@pytest.mark.parametrize("how", ["lost", "noticed"])
def test_attempts_that_log_nothing_are_counted_whoever_ended_them(store: Store, clock: Clock, how: str) -> None:
    """A script that takes its machine down with it before it has done anything does so for ever."""
    agent = begin_last_run(store, preemptible=True, max_attempts_without_progress=2)
    assert _end_by_machine(store, clock, agent, how) is RunState.PREEMPTED
    agent.take()
    assert _end_by_machine(store, clock, agent, how) is RunState.FAILED


def test_progress_starts_the_count_again(store: Store) -> None:
    """One new step is enough to go on for ever."""
    agent = begin_last_run(store)
    for step in range(4):
        for _ in range(2):
            assert agent.end(1, preempted=True).state is RunState.PREEMPTED
            agent.take()
        agent.log(step)
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    check_promises(store, SWEEP, complete=False)


def test_retry_by_hand_starts_the_count_again(store: Store) -> None:
    """Somebody has looked at the run, and wants it to be tried as often as the first time."""
    agent = begin_last_run(store, max_attempts_without_progress=2)
    for _ in range(2):
        agent.end(1, preempted=True)
        if store.run(RUN).state is RunState.FAILED:
            store.retry_runs(SWEEP, [RUN])
        agent.take()
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED


def test_no_limit_of_attempts_without_progress(store: Store) -> None:
    """Zero means that a run may be preempted for ever."""
    agent = begin_last_run(store, max_attempts_without_progress=0)
    for _ in range(8):
        assert agent.end(1, preempted=True).state is RunState.PREEMPTED
        agent.take()


def test_attempt_that_never_began_is_not_counted(store: Store, clock: Clock) -> None:
    """A claim whose answer was lost says nothing about the script, however often that happens."""
    agent = begin_last_run(store)
    agent.end(1, preempted=True)
    for number in range(4):
        Agent(store, f"lost{number}").take_unconfirmed()
        assert lose_lease(store, clock).state is RunState.PREEMPTED
    agent.take()
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED


@pytest.mark.parametrize("together", [False, True], ids=["end_attempt", "end_and_claim"])
def test_attempt_whose_child_was_never_started_is_not_counted(store: Store, together: bool) -> None:
    """A sick machine that is started again and again says nothing about the script."""
    begin_last_run(store).end(1, preempted=True)
    sick = Agent(store, "sick")
    token = sick.take_unconfirmed().token
    for _ in range(4):
        end = EndRequest(token, None, preempted=True, launched=False)
        if together:
            answer, claimed = store.end_and_claim(end, sick.request())
            sick.seq += 1
            assert claimed.run is not None
            token = claimed.run.token
        else:
            answer = store.end_attempt(end)
            token = sick.take_unconfirmed().token
        assert answer.state is RunState.PREEMPTED
    assert store.end_attempt(EndRequest(token, 1, preempted=True)).state is RunState.PREEMPTED


# Leases that ran out.


@pytest.mark.parametrize(
    ("preemptible", "marked", "state"),
    [(False, False, RunState.CRASHED), (False, True, RunState.PREEMPTED), (True, False, RunState.PREEMPTED)],
)
def test_lost_lease(store: Store, clock: Clock, preemptible: bool, marked: bool, state: RunState) -> None:
    """No status: crashed, or back on the queue when it was preempting or its machine is one that may be taken away."""
    agent = begin_last_run(store, preemptible=preemptible)
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
