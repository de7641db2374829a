"""What follows from options, config and environment."""

from __future__ import annotations

import signal

import pytest

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.options import AgentOptions, make_policy
from resweep_scheduler.config import SweepConfig, parse_sweep


def config(**more: object) -> SweepConfig:
    return parse_sweep({"method": "grid", "parameters": {"a": {"value": 1}}, **more})


@pytest.mark.parametrize(
    ("flag", "auto", "slurm", "marks", "preemptible"),
    [
        (None, None, False, True, None),
        (None, None, True, True, True),
        (None, True, False, True, True),
        (None, False, True, False, False),
        (True, False, False, True, True),
        (False, True, True, False, False),
    ],
)
def test_the_flag_comes_before_the_config_and_that_before_slurm(
    flag: bool | None, auto: bool | None, slurm: bool, marks: bool, preemptible: bool | None
) -> None:
    environ = {"SLURM_JOB_ID": "1"} if slurm else {}
    sweep = config(preemption={} if auto is None else {"auto": auto})
    policy = make_policy(AgentOptions("s", preemptible=flag), sweep, environ)
    assert (policy.marks, policy.preemptible) == (marks, preemptible)


def test_the_config_decides_what_no_option_says() -> None:
    sweep = config(preemption={"signal": "SIGUSR1", "grace": 7}, lease={"duration": 30, "heartbeat": 5})
    policy = make_policy(AgentOptions("s"), sweep, {})
    assert (policy.lease_ms, policy.heartbeat, policy.grace, policy.signal) == (30_000, 5.0, 7.0, signal.SIGUSR1)


def test_options_come_before_the_config_and_a_short_lease_shortens_the_heartbeat() -> None:
    policy = make_policy(AgentOptions("s", lease=6.0, grace=0.0), config(), {})
    assert (policy.lease_ms, policy.heartbeat, policy.grace) == (6000, 2.0, 0.0)
    assert policy.store_timeout == 2.0


@pytest.mark.parametrize(("lease", "heartbeat"), [(9.0, 3.1), (9.0, 0.0), (None, 21.0), (0.5, 0.1)])
def test_what_does_not_fit_together_is_refused(lease: float | None, heartbeat: float) -> None:
    with pytest.raises(AgentError, match="lease") as caught:
        make_policy(AgentOptions("s", lease=lease, heartbeat=heartbeat), config(), {})
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_wrong_variable_of_the_environment_is_refused() -> None:
    with pytest.raises(AgentError, match="WANDB_AGENT_MAX_INITIAL_FAILURES must be a whole number"):
        make_policy(AgentOptions("s"), config(), {"WANDB_AGENT_MAX_INITIAL_FAILURES": "x"})
