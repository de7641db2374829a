"""What the SDK tells the store of a sweep's metrics."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resweep.spill import Row
from resweep_scheduler.store import LatestValue, Objective
from resweep_scheduler.store.batches import make_batch

ODD: list[dict[str, Any]] = [
    {"m": True},
    {"m": math.nan},
    {"m": 7},
    {"m": -2.0},
    {"m": math.inf},
    {"m": "9"},
    {"n": 100},
    {"m": 10**400},
]


def rows_of(*values: dict[str, Any]) -> list[Row]:
    return [Row(index + 1, 10 * index, row) for index, row in enumerate(values)]


@pytest.mark.parametrize(("goal", "expected"), [("minimize", -2.0), ("maximize", 7.0)])
def test_best_and_last_value_ignore_what_is_no_finite_number(goal: str, expected: float) -> None:
    batch = make_batch(rows_of(*ODD), None, Objective((("m", goal),)))
    assert (batch["metric"], batch["latest"]) == (expected, [LatestValue(4, -2.0)])
    none = make_batch(rows_of({"m": math.nan}), None, Objective((("m", goal),)))
    assert (none["metric"], none["latest"]) == (None, [None])


def test_a_nested_metric_is_named_by_dots() -> None:
    rows = rows_of({"val": {"acc": 0.5}}, {"val.acc": 0.25}, {"val": 3})
    batch = make_batch(rows, None, Objective((("val.acc", "maximize"),)))
    assert (batch["metric"], batch["latest"]) == (0.5, [LatestValue(2, 0.25)])


def test_a_metric_of_the_summary_counts() -> None:
    """W&B takes the best of history and summary; the last value is the history's, where it has one."""
    objective = Objective((("m", "minimize"),))
    batch = make_batch(rows_of({"m": 2}), {"m": 1}, objective)
    assert (batch["metric"], batch["latest"], batch["summary"]) == (1.0, [LatestValue(1, 2.0)], '{"m":1}')
    batch = make_batch([], {"m": 1}, objective)
    assert (batch["metric"], batch["latest"]) == (1.0, [LatestValue(0, 1.0)])


def test_several_metrics_have_last_values_and_no_best_one() -> None:
    objective = Objective((("a", "minimize"), ("b", "maximize"), ("c", "minimize")))
    batch = make_batch(rows_of({"a": 1, "b": 5}, {"a": 2}), {"a": 2, "b": 5}, objective)
    assert (batch["metric"], batch["latest"]) == (None, [LatestValue(2, 2.0), LatestValue(1, 5.0), None])


def test_rows_say_their_value_only_where_runs_are_stopped_early() -> None:
    rows = rows_of({"m": 2}, {"n": 1}, {"m": math.nan})
    texts = [(0, '{"m":2}'), (10, '{"n":1}'), (20, '{"m":NaN}')]
    assert make_batch(rows, None, Objective((("m", "minimize"),)))["rows"] == texts
    curves = make_batch(rows, None, Objective((("m", "minimize"),), curves=True))["rows"]
    assert curves == [(0, '{"m":2}', 2.0), *texts[1:]]


def test_outside_a_sweep_there_is_nothing_to_tell() -> None:
    batch = make_batch(rows_of({"m": 2}), None, Objective())
    assert (batch["metric"], batch["latest"]) == (None, [])
