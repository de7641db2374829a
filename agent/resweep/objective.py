"""What rows and summary say of the sweep's metrics, for the call that stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from resweep.spill import Row, encode
from resweep.values import find, finite_number

if TYPE_CHECKING:
    from resweep_scheduler.store import LatestValue, Objective


class Batch(TypedDict):
    """Arguments of ``Store.log``."""

    rows: list[tuple[int, str] | tuple[int, str, float]]
    summary: str | None
    metric: float | None
    latest: list[LatestValue | None]


def make_batch(rows: Sequence[Row], summary: Mapping[str, Any] | None, objective: Objective) -> Batch:
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
    from resweep_scheduler.store import LatestValue

    for index in range(len(values) - 1, -1, -1):
        value = values[index]
        if value is not None:
            return LatestValue(index + 1, value)
    return None if total is None else LatestValue(0, total)
