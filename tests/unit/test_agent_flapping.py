"""When an agent stops because its runs fail."""

from __future__ import annotations

import pytest

from resweep_agent.flapping import FlappingGuard, FlappingLimits
from resweep_scheduler.store import RunState

FAILED, CRASHED, FINISHED, PREEMPTED, KILLED = (
    RunState.FAILED,
    RunState.CRASHED,
    RunState.FINISHED,
    RunState.PREEMPTED,
    RunState.KILLED,
)


def verdicts(guard: FlappingGuard, *ends: tuple[RunState, float]) -> list[bool]:
    return [guard.record(state, now) is not None for state, now in ends]


def test_three_failures_in_the_first_minute_are_too_many() -> None:
    guard = FlappingGuard(FlappingLimits(), started=100.0)
    assert verdicts(guard, (FAILED, 101), (FINISHED, 102), (CRASHED, 103), (FAILED, 159)) == [False, False, False, True]


def test_the_same_failures_a_minute_later_are_not() -> None:
    guard = FlappingGuard(FlappingLimits(), started=100.0)
    assert verdicts(guard, (FINISHED, 101), (FAILED, 102), (FAILED, 103), (FAILED, 160)) == [False] * 4


def test_five_first_runs_that_fail_are_too_many_however_long_they_take() -> None:
    guard = FlappingGuard(FlappingLimits(), started=0.0)
    ends = [(FAILED, 1000.0 * number) for number in range(1, 6)]
    assert verdicts(guard, *ends) == [False, False, False, False, True]


def test_one_success_ends_the_guard_of_the_first_runs() -> None:
    guard = FlappingGuard(FlappingLimits(), started=0.0)
    assert not any(verdicts(guard, (FINISHED, 1000.0), *[(FAILED, 2000.0)] * 9))


def test_failures_in_a_row_are_limited_on_request_and_preemptions_are_not_counted() -> None:
    guard = FlappingGuard(FlappingLimits(0, 0, consecutive=2), started=0.0)
    assert verdicts(guard, (FAILED, 1), (FINISHED, 2), (FAILED, 3), (PREEMPTED, 4), (CRASHED, 5)) == [False] * 4 + [
        True
    ]


def test_a_run_that_a_person_stopped_breaks_a_row() -> None:
    guard = FlappingGuard(FlappingLimits(0, 0, consecutive=2), started=0.0)
    assert verdicts(guard, (FAILED, 1), (KILLED, 2), (FAILED, 3)) == [False, False, False]


def test_preemptions_alone_never_stop_an_agent() -> None:
    guard = FlappingGuard(FlappingLimits(consecutive=1), started=0.0)
    assert not any(verdicts(guard, *[(PREEMPTED, 1.0)] * 20))


def test_the_message_names_the_rule() -> None:
    guard = FlappingGuard(FlappingLimits(0, 0, consecutive=1), started=0.0)
    assert guard.record(FAILED, 1.0) == "1 runs in a row failed (--max-consecutive-failed-runs 1)"


@pytest.mark.parametrize(
    ("environ", "limits"),
    [
        ({}, FlappingLimits(3, 5, 7)),
        ({"WANDB_AGENT_DISABLE_FLAPPING": "true"}, FlappingLimits(0, 0, 7)),
        ({"WANDB_AGENT_DISABLE_FLAPPING": "1"}, FlappingLimits(0, 0, 7)),
        ({"WANDB_AGENT_DISABLE_FLAPPING": "false"}, FlappingLimits(3, 5, 7)),
        ({"WANDB_AGENT_MAX_INITIAL_FAILURES": "9"}, FlappingLimits(3, 9, 7)),
    ],
)
def test_the_environment_sets_the_limits(environ: dict[str, str], limits: FlappingLimits) -> None:
    assert FlappingLimits.from_environment(environ, consecutive=7) == limits


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("WANDB_AGENT_DISABLE_FLAPPING", "maybe", "must be true or false, got 'maybe'"),
        ("WANDB_AGENT_MAX_INITIAL_FAILURES", "-1", "must be a whole number, 0 or more, got '-1'"),
    ],
)
def test_a_wrong_variable_is_named(name: str, value: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"{name} {rule}"):
        FlappingLimits.from_environment({name: value}, consecutive=0)
