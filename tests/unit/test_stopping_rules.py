"""The rules of early termination in a config, and what the scripts in Redis get of them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resweep_scheduler.config import ConfigError, Hyperband, parse_sweep
from resweep_scheduler.creation import sweep_settings

HEAD: dict[str, Any] = {"method": "random", "parameters": {"a": {"value": 1}}, "metric": {"name": "loss"}}


def rule_of(rule: Mapping[str, Any], goal: str = "minimize") -> Any:
    config = parse_sweep(HEAD | {"metric": {"name": "loss", "goal": goal}, "early_terminate": dict(rule)})
    assert config.warnings == ()
    assert type(config).from_json(config.to_json()) == config
    return sweep_settings(config).stopping


@pytest.mark.parametrize(
    ("rule", "bands"),
    [
        ({"max_iter": 27, "s": 2}, [3, 9]),
        ({"max_iter": 27, "s": 10}, [1, 3, 9]),
        ({"max_iter": 81, "s": 3, "eta": 2}, [10, 20, 40]),
        ({"max_iter": 100, "s": 2, "min_iter": 5}, [11, 33]),
        ({"max_iter": 5, "s": 2, "eta": 2}, [1, 2]),
    ],
)
def test_bands_from_max_iter(rule: dict[str, Any], bands: list[int]) -> None:
    """As W&B has them; with both, max_iter wins."""
    assert rule_of({"type": "hyperband", **rule})["bands"] == bands


@pytest.mark.parametrize(
    ("rule", "bands"),
    [
        ({"min_iter": 3}, [3, 9, 27, 81, 243]),
        ({"min_iter": 1, "eta": 2}, [1, 2, 4, 8, 16]),
        ({"min_iter": 2, "eta": 1.5}, [2, 3, 4, 6, 10]),
        ({"min_iter": 3, "max_iter": 100}, [3, 9, 27, 81, 243]),
    ],
)
def test_bands_from_min_iter(rule: dict[str, Any], bands: list[int]) -> None:
    """100 of them in W&B; those that no run can reach are left out, and equal ones are one."""
    found = rule_of({"type": "hyperband", **rule})["bands"]
    assert found[:5] == bands
    assert found == sorted(set(found))
    assert found[-1] <= 2**53


def test_bands_that_grow_slowly_end_after_a_hundred() -> None:
    rule = Hyperband(type="hyperband", min_iter=1, eta=1.01)
    assert rule.bands == (1, 2)


def test_what_redis_reads_of_each_rule() -> None:
    strict = {"type": "hyperband", "max_iter": 9, "s": 1, "eta": 3, "strict": True}
    assert rule_of(strict, "maximize") == {"type": "hyperband", "sign": -1, "bands": [3], "eta": 3.0, "strict": True}
    assert rule_of({"type": "median"}) == {
        "type": "median", "sign": 1, "percentile": 50.0, "n_startup_runs": 5, "min_iter": 1, "interval": 1
    }  # fmt: skip
    percentile = {"type": "percentile", "percentile": 25, "n_startup_runs": 2, "min_iter": 3, "interval": 4}
    assert rule_of(percentile) == percentile | {"sign": 1}
    assert rule_of({"type": "optuna", "pruner": "median"}, "maximize") == {"type": "optuna", "sign": -1}


def test_without_a_rule_there_is_nothing_to_read() -> None:
    assert sweep_settings(parse_sweep(HEAD)).stopping is None


@given(
    options=st.dictionaries(
        st.sampled_from(["patience", "wrapped_pruner", "min_delta", "n_startup_trials", "x"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-2, 9)
            | st.floats(allow_nan=False)
            | st.sampled_from(["auto", "median"]),
            lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["pruner", "options"]), inner),
            max_leaves=4,
        ),
    ),
    pruner=st.sampled_from(["patient", "median"]),
)
def test_odd_options_are_refused_and_nothing_else_happens(options: dict[str, Any], pruner: str) -> None:
    rule = {"type": "optuna", "pruner": pruner, "options": options}
    with suppress(ConfigError):
        parse_sweep(HEAD | {"early_terminate": rule})
