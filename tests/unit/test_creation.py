"""From a config to what the scripts in Redis need to know of it."""

from __future__ import annotations

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import sweep_settings
from resweep_scheduler.store import SweepSettings

PARAMETERS = {"a": {"value": 1}}


def test_the_settings_of_a_plain_config_are_the_defaults() -> None:
    assert sweep_settings(parse_sweep({"method": "grid", "parameters": PARAMETERS})) == SweepSettings()


def test_every_key_that_the_store_enforces_reaches_it() -> None:
    config = parse_sweep(
        {
            "method": "grid",
            "name": "first",
            "run_cap": 7,
            "metric": {"name": "loss", "goal": "maximize", "target": 0.5},
            "parameters": PARAMETERS,
            "lease": {"duration": 30, "heartbeat": 2.5},
            "retry": {"failed": 1, "crashed": 2},
            "preemption": {"max_attempts_without_progress": 0},
        }
    )
    assert sweep_settings(config) == SweepSettings(
        lease_ms=30_000,
        heartbeat_ms=2_500,
        name="first",
        run_cap=7,
        metric_name="loss",
        metric_goal="maximize",
        metric_target=0.5,
        retry_failed=1,
        retry_crashed=2,
        max_attempts_without_progress=0,
    )
