"""What rows and summary say of the sweep's metrics, for the call that stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict

from resweep_scheduler.store.records import LatestValue, Objective

encode = json.JSONEncoder(separators=(",", ":")).encode


class LoggedRow(Protocol):
    """What a script logged for one step."""

    @property
    def step(self) -> int: ...

    @property
    def values(self) -> dict[str, Any]: ...


class Batch(TypedDict):
    """Arguments of ``Store.log``."""

    rows: list[tuple[int, str] | tuple[int, str, float]]
    summary: str | None
    metric: float | None
    latest: list[LatestValue | None]


def make_batch(rows: Sequence[LoggedRow], summary: Mapping[str, Any] | None, objective: Objective) -> Batch:
    """Rows as the store takes them, with what it must know of the metrics.

    Args:
        summary: The summary if it is to be stored too. A metric that stands only there counts as well.
    """
    series = [[finite_number(find(row.values, name)) for row in rows] for name, _ in objective.metrics]
    totals = [None if summary is None else finite_number(find(summary, name)) for name, _ in objective.metrics]
    texts: list[tuple[int, str] | tuple[int, str, float]] = []
    for index, row in enumerate(rows):
        value = series[0][index] if objective.curves and series else None
        text = encode(row.values)
        texts.append((row.step, text) if value is None else (row.step, text, value))
    return Batch(
        rows=texts,
        summary=None if summary is None else encode(dict(summary)),
        metric=_best([*series[0], totals[0]], objective.metrics[0][1]) if len(series) == 1 else None,
        latest=[_latest(values, total) for values, total in zip(series, totals, strict=True)],
    )


def _best(values: Sequence[float | None], goal: str) -> float | None:
    found = [value for value in values if value is not None]
    if not found:
        return None
    return max(found) if goal == "maximize" else min(found)


def _latest(values: Sequence[float | None], total: float | None) -> LatestValue | None:
    for index in range(len(values) - 1, -1, -1):
        value = values[index]
        if value is not None:
            return LatestValue(index + 1, value)
    return None if total is None else LatestValue(0, total)


def finite_number(value: Any) -> float | None:
    """`value` as a float if it is a finite number; None for booleans, NaN, infinities and everything else."""
    if type(value) is int or type(value) is float:
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if number - number == 0.0 else None
    return None


def find(row: Mapping[str, Any], name: str) -> Any:
    """The value called `name`, which may name a nested one by dots (``val.acc``); None when there is none."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value
