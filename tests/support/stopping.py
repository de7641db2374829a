"""Early termination in plain Python, written from W&B's and Optuna's semantics: what the scripts are compared with.

A curve is what a run logged of the metric, by step; less is better unless the rule maximizes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Curve:
    """The values of one run: (step, attempt, value) by ascending step."""

    points: list[tuple[int, int, float]] = field(default_factory=list)

    @property
    def values(self) -> list[float]:
        return [value for _, _, value in self.points]

    def add(self, step: int, attempt: int, value: float | None) -> bool:
        """A row of an attempt; True when the curve has a new value."""
        repeated = value is None and self.points and self.points[-1][:2] == (step, attempt)
        if not repeated:
            del self.points[bisect_left([known for known, _, _ in self.points], step) :]
        if value is not None:
            self.points.append((step, attempt, value))
        return value is not None


def hyperband_stops(rule: Mapping[str, Any], own: Sequence[float], everyone: Sequence[Sequence[float]]) -> bool:
    """Whether a running run with the values `own` is stopped, among the values of all runs."""
    own = [rule["sign"] * value for value in own]
    passed = [band for band in rule["bands"] if band <= len(own)]
    if not passed:
        return False
    band = max(passed)
    there = sorted(rule["sign"] * values[band - 1] for values in everyone if len(values) >= band)
    threshold = there[int(1 / rule["eta"] * len(there))]
    condition: float = own[band - 1] if rule["strict"] else min(own)
    return bool(condition > threshold)


def percentile_stops(
    rule: Mapping[str, Any], own: Sequence[float], finished: Sequence[Sequence[float]], *, number_finished: int
) -> bool:
    """Whether a running run is stopped right after its last value, among the values of the finished runs."""
    iteration = len(own)
    if number_finished < rule["n_startup_runs"] or iteration < rule["min_iter"]:
        return False
    if (iteration - rule["min_iter"]) % rule["interval"]:
        return False
    there = sorted(rule["sign"] * values[iteration - 1] for values in finished if len(values) >= iteration)
    if not there:
        return False
    position = (len(there) - 1) * rule["percentile"] / 100
    low = there[int(position)]
    high = there[min(int(position) + 1, len(there) - 1)]
    best: float = min(rule["sign"] * value for value in own)
    return bool(best > low + (high - low) * (position - int(position)))
