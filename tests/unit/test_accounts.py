"""What attempts cost, on events made by hand: each figure is computed in the test. Times are seconds."""

from __future__ import annotations

from typing import Any

import pytest
from support.tales import Tale

from resweep_scheduler.accounts import Life, Logged, Notice, RunCost, account_run, add_up, lives_of, restart_steps
from resweep_scheduler.accounts.attempts import notice_of
from resweep_scheduler.store import Event


def parts(cost: RunCost) -> tuple[float, float, float, float]:
    """Useful, lost, open and unknown seconds."""
    return cost.useful / 1000, cost.lost / 1000, cost.open / 1000, cost.unknown / 1000


def begun() -> Tale:
    return Tale().tell(0, "suggested").tell(0, "claimed", 1)


def preempted_once() -> Tale:
    """Attempt 1 from 0 to 90 with a checkpoint of step 4 at 50; on the queue for 10; attempt 2 from 100 to 160."""
    tale = begun().tell(50, "checkpoint", 1, step=4)
    tale.tell(80, "preempting", 1, reason="notice: aws", source="aws", lead=120_000)
    tale.tell(90, "preempted", 1, exit_code=75)
    return tale.tell(100, "claimed", 2, "other").tell(160, "finished", 2, "other", exit_code=0)


def test_an_attempt_that_finishes_is_useful_as_a_whole() -> None:
    cost = begun().tell(60, "finished", 1, exit_code=0).cost()
    assert parts(cost) == (60, 0, 0, 0)
    assert cost.goodput == 1
    assert cost.waits == ()


def test_time_since_the_last_checkpoint_is_lost() -> None:
    """50 s of 90 are kept, 60 of the second: 110 of 150."""
    cost = preempted_once().cost()
    assert parts(cost) == (50 + 60, 40, 0, 0)
    assert cost.goodput == pytest.approx(110 / 150)
    assert cost.waits == (10_000,)
    first, second = cost.attempts
    assert (first.attempt.agent, first.attempt.ended, first.attempt.exit_code) == ("box", "preempted", 75)
    assert first.attempt.notice == Notice(80_000, "aws", 120_000)
    assert (first.spent, first.lost, first.kept_until, first.waited) == (90_000, 40_000, 50_000, None)
    assert (second.attempt.agent, second.spent, second.lost, second.waited) == ("other", 60_000, 0, 10_000)


def test_steps_that_were_done_again_are_lost() -> None:
    """A step every 10 s; the second attempt begins at step 7, so step 6, at 70 s, is the last that is kept."""
    tale = begun().tell(105, "preempted", 1).tell(105, "claimed", 2).tell(145, "finished", 2)
    firsts = [0, 7]
    assert restart_steps(tale.life, firsts) == [7, None]
    cost = tale.cost(firsts=firsts, logged=[Logged(70_000, 3), Logged()])
    assert parts(cost) == (70 + 40, 35, 0, 0)
    assert [one.lost_steps for one in cost.attempts] == [3, 0]


def test_a_checkpoint_after_the_last_kept_step_counts() -> None:
    """Steps 0 and 100 are logged, at 10 and 50 s, a checkpoint says 150 at 70 s: the script goes on at 200."""
    tale = begun().tell(70, "checkpoint", 1, step=150).tell(90, "preempted", 1).tell(90, "claimed", 2)
    cost = tale.tell(100, "finished", 2).cost(firsts=[0, 200], logged=[Logged(50_000), Logged()])
    assert parts(cost) == (70 + 10, 20, 0, 0)


def test_a_checkpoint_that_the_next_attempt_did_not_have_saves_nothing() -> None:
    """It began again at step 0, though step 4 was saved: all 90 s of the first are lost."""
    cost = preempted_once().cost(firsts=[0, 0], logged=[Logged(None, 9), Logged()])
    assert parts(cost) == (60, 90, 0, 0)
    assert cost.attempts[0].kept_until == 0


def test_the_lowest_restart_of_all_later_attempts_counts() -> None:
    """The third attempt goes back behind what the second had: both lose what they did from step 2 on."""
    tale = begun().tell(100, "preempted", 1).tell(100, "claimed", 2).tell(200, "preempted", 2)
    tale.tell(200, "claimed", 3).tell(300, "finished", 3)
    firsts = [0, 5, 2]
    assert restart_steps(tale.life, firsts) == [2, 2, None]
    cost = tale.cost(firsts=firsts, logged=[Logged(20_000, 4), Logged(None, 5), Logged()])
    assert parts(cost) == (20 + 0 + 100, 80 + 100, 0, 0)


def test_nothing_saved_by_a_script_that_saves_is_all_lost() -> None:
    """The first attempt ended before its first checkpoint."""
    tale = begun().tell(30, "preempted", 1).tell(30, "claimed", 2).tell(60, "checkpoint", 2, step=0)
    assert parts(tale.tell(90, "finished", 2).cost()) == (60, 30, 0, 0)


def test_without_checkpoints_and_steps_nobody_knows() -> None:
    tale = begun().tell(30, "preempted", 1)
    cost = tale.cost(now=100)
    assert parts(cost) == (0, 0, 0, 30)
    assert cost.goodput is None
    assert cost.waits == (70_000,)
    assert (cost.attempts[0].kept_until, cost.attempts[0].lost_steps) == (None, None)
    after = tale.tell(100, "claimed", 2).tell(160, "finished", 2).cost()
    assert parts(after) == (60, 0, 0, 30), "a finished run does not tell what it found"


def test_steps_of_a_waiting_run_are_judged_by_its_checkpoint() -> None:
    """Nobody has gone on yet: it will be at step 5, so steps 5 and 6 are to be done again."""
    tale = begun().tell(50, "checkpoint", 1, step=4).tell(75, "preempted", 1)
    assert restart_steps(tale.life, [0]) == [5]
    cost = tale.cost(firsts=[0], logged=[Logged(48_000, 2)])
    assert parts(cost) == (50, 25, 0, 0)
    assert cost.attempts[0].lost_steps == 2


def test_a_checkpoint_without_a_step_is_kept() -> None:
    cost = begun().tell(50, "checkpoint", 1).tell(75, "preempted", 1).cost()
    assert parts(cost) == (50, 25, 0, 0)
    assert cost.attempts[0].lost_steps is None


@pytest.mark.parametrize("end", ["failed", "crashed", "killed"])
def test_the_steps_of_a_run_that_ended_otherwise_stay(end: str) -> None:
    """Its last step came at 70 s; what came after that led to nothing."""
    cost = begun().tell(90, end, 1, exit_code=1).cost(firsts=[0], logged=[Logged(70_000)])
    assert parts(cost) == (70, 20, 0, 0)
    assert (cost.attempts[0].attempt.ended, cost.attempts[0].lost_steps) == (end, 0)


def test_a_failure_without_any_step_is_all_lost() -> None:
    assert parts(begun().tell(90, "failed", 1, exit_code=1).cost()) == (0, 90, 0, 0)


def test_a_run_that_is_retried_is_judged_anew() -> None:
    """Nobody knows where it goes on, until it does: step 3 came at 40 s, the second attempt begins at 4."""
    tale = begun().tell(90, "failed", 1).tell(200, "retried", 1)
    assert parts(tale.cost(firsts=[0], logged=[Logged()])) == (0, 0, 0, 90)
    tale.tell(230, "claimed", 2)
    cost = tale.cost(now=260, firsts=[0, 4], logged=[Logged(40_000, 2), Logged()])
    assert parts(cost) == (40, 50, 30, 0)
    assert cost.waits == (30_000,)


def test_a_running_attempt_is_open_since_its_checkpoint() -> None:
    assert parts(begun().cost(now=20)) == (0, 0, 20, 0)
    cost = begun().tell(50, "checkpoint", 1, step=4).cost(now=65)
    assert parts(cost) == (50, 0, 15, 0)
    assert (cost.attempts[0].attempt.ended, cost.goodput) == ("running", 1)


def test_a_lease_that_ran_out_is_part_of_the_attempt() -> None:
    tale = begun().tell(50, "checkpoint", 1, step=4).tell(120, "preempted", 1, reason="the lease ran out")
    cost = tale.cost(now=120)
    assert parts(cost) == (50, 70, 0, 0)
    assert cost.attempts[0].attempt.reason == "the lease ran out"


def test_an_owner_that_came_back_went_on_with_one_attempt() -> None:
    """Neither did it end when it was given up, nor did the run wait."""
    tale = begun().tell(60, "preempted", 1).tell(80, "adopted", 1).tell(100, "finished", 1)
    cost = tale.cost()
    assert parts(cost) == (100, 0, 0, 0)
    assert (len(cost.attempts), cost.waits) == (1, ())


def test_the_end_that_a_lapsed_owner_told_is_the_end() -> None:
    tale = begun().tell(60, "preempted", 1).tell(70, "finished", 1, exit_code=0)
    cost = tale.cost()
    assert (parts(cost), cost.waits) == ((70, 0, 0, 0), ())
    again = begun().tell(60, "preempted", 1).tell(70, "preempted", 1, exit_code=1).tell(100, "claimed", 2)
    assert again.cost(now=100).waits == (30_000,)


def test_a_failure_that_is_retried_ended_as_a_failure() -> None:
    """The run is on the queue, but no machine was taken away."""
    tale = begun().tell(50, "checkpoint", 1, step=4).tell(60, "preempted", 1, outcome="failed", exit_code=1)
    cost = add_up([tale.cost()])
    assert (cost.ended, cost.lost_by) == ({"failed": 1}, {"failed": 10_000})
    given_up = begun().tell(60, "failed", 1, outcome="preempted", reason="preempted 3 times in a row")
    assert add_up([given_up.cost()]).ended == {"preempted": 1}


def test_a_run_that_is_stopped_on_the_queue_waited_until_then() -> None:
    tale = begun().tell(60, "preempted", 1).tell(75, "killed", 1, reason="stopped by user")
    cost = tale.cost(firsts=[0], logged=[Logged(55_000)])
    assert cost.waits == (15_000,)
    assert (cost.attempts[0].attempt.ended, parts(cost)) == ("preempted", (55, 5, 0, 0))
    assert Tale().tell(0, "suggested").tell(5, "killed").life.attempts == []


def test_events_that_are_gone_are_unknown_time() -> None:
    """The record counts 3 attempts and 500 s; of attempt 2 only its end is left, attempt 3 took 100 s."""
    tale = Tale(state="running").tell(300, "preempted", 2).tell(310, "claimed", 3).tell(410, "finished", 3)
    cost = tale.cost(attempts=3, busy=500)
    assert parts(cost) == (100, 0, 0, 400)
    assert (cost.missing, cost.spent) == (1, 500_000)
    assert [one.spent for one in cost.attempts] == [None, 100_000]
    assert cost.attempts[0].kept_until is None


def test_a_run_of_which_no_event_is_left() -> None:
    cost = account_run(Life("r", state="finished"), [], [], now=0, attempts=2, busy=70_000)
    assert (cost.spent, cost.unknown, cost.missing, cost.goodput) == (70_000, 70_000, 2, None)
    assert add_up([cost]).missing == 2


def test_an_end_that_redis_forgot_is_unknown() -> None:
    """After a rollback the next claim follows without it."""
    cost = begun().tell(100, "claimed", 2).tell(160, "finished", 2).cost(attempts=2, busy=60)
    assert [(one.attempt.ended, one.spent) for one in cost.attempts] == [("unknown", None), ("finished", 60_000)]
    assert parts(cost) == (60, 0, 0, 0)


def test_a_removed_run_is_not_counted() -> None:
    assert lives_of(begun().tell(60, "finished", 1).tell(70, "removed").events) == {}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"reason": "notice: SIGTERM"}, Notice(5, "SIGTERM")),
        ({"reason": "script"}, Notice(5, "script")),
        ({"reason": "notice: SIGTERM", "source": "slurm", "lead": 29_999.6}, Notice(5, "slurm", 30_000)),
        ({"source": "gcp", "lead": None}, Notice(5, "gcp")),
        ({}, Notice(5, "unknown")),
    ],
)
def test_notices_are_read_with_and_without_source_and_lead(data: dict[str, Any], expected: Notice) -> None:
    assert notice_of(Event("5-0", 5, "preempting", "r", 1, "box", "running", "preempting", data)) == expected


def test_the_first_notice_of_an_attempt_counts() -> None:
    tale = begun().tell(5, "preempting", 1, source="aws").tell(8, "preempting", 1, source="SIGTERM")
    assert tale.life.attempts[0].notice == Notice(5000, "aws")


def test_a_sweep_adds_up_its_runs() -> None:
    """150 s of `preempted_once` with 40 lost, a failure of 90 s with 20 lost, 30 s that nobody can judge."""
    failed = begun().tell(90, "failed", 1).cost(firsts=[0], logged=[Logged(70_000)])
    cost = add_up([preempted_once().cost(), failed, begun().tell(30, "preempted", 1).cost(now=31)])
    assert (cost.attempts, cost.ended) == (4, {"preempted": 2, "finished": 1, "failed": 1})
    assert (cost.spent, cost.useful, cost.lost, cost.unknown) == (270_000, 180_000, 60_000, 30_000)
    assert cost.lost_by == {"preempted": 40_000, "failed": 20_000}
    assert cost.goodput == pytest.approx(180 / 240)
    assert (cost.notices, cost.leads) == ({"aws": 1}, (120_000,))
    assert cost.waits == (1_000, 10_000)


def test_a_sweep_without_attempts() -> None:
    cost = add_up([])
    assert (cost.attempts, cost.spent, cost.goodput, cost.waits) == (0, 0, None, ())
