"""What a run counts as for a search that learns: its values, imputed ones, or nothing yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from resweep_scheduler.config.metric import Metric
from resweep_scheduler.search.base import PastRun

TERMINAL_STATES: Final = frozenset({"finished", "failed", "crashed", "killed"})


class Verdict(Enum):
    """How a run stands for a search."""

    OPEN = "open"  # not over, and nothing is to be assumed of it; a preempted run, too
    COUNTS = "counts"  # it has a value for each goal, its own or imputed
    STOPPED = "stopped"  # early termination ended it: its values are those of a part of a run
    WORTHLESS = "worthless"  # it is over, has no value, and nothing is known to impute


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run counts as.

    Attributes:
        verdict: How it stands.
        values: One for each goal; empty where `verdict` is OPEN or WORTHLESS.
    """

    verdict: Verdict
    values: tuple[float, ...] = ()


class Outcomes:
    """Values of runs by the rules of ``metric.impute`` and ``metric.impute_while_running``.

    A finished run counts as its best value; failed, crashed and killed runs are always imputed, even if they logged
    good values, as in W&B. Where W&B falls back to 0.0, which may be the best value of all, the worst known value is
    taken. A run that early termination stopped counts as its best value. NaN and infinities are no values.

    Args:
        metric: The metric and its rules.
        runs: All runs; the worst value is sought among those that ended.
    """

    def __init__(self, metric: Metric, runs: Iterable[PastRun]) -> None:
        self._metric = metric
        values = [value for run in runs if run.state in TERMINAL_STATES and (value := _finite(run.value)) is not None]
        worst_of = max if metric.goal == "minimize" else min
        self._worst = worst_of(values, default=None)

    def value(self, run: PastRun) -> float | None:
        """The value that a run counts as; None if it is open, or if nothing is known to impute."""
        if (run.state == "finished" or run.stopped) and (value := _finite(run.value)) is not None:
            return value
        rule = self._metric.impute if run.state in TERMINAL_STATES else self._metric.impute_while_running
        match rule:
            case "best":
                return self._known_or_worst(run.value)
            case "latest":
                return self._known_or_worst(run.last)
            case "worst":
                return self._worst
        return None

    def _known_or_worst(self, value: float | None) -> float | None:
        known = _finite(value)
        return self._worst if known is None else known


class Goals:
    """One goal or several: what each run counts as for all of them.

    With several goals a run counts as the last value of each metric, because the best ones may never have been reached
    together; `impute: best` is then the same as `latest`. A run counts only if each goal has a value, own or imputed.

    Args:
        metrics: The metrics in the order of `PastRun.values`; a single one reads `value` and `last`.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Which way is better, for each goal."""
        return [metric.goal for metric in self.metrics]

    def outcomes(self, runs: Sequence[PastRun]) -> list[Outcome]:
        """What each run counts as, in the order of `runs`."""
        columns: list[list[float | None]] = []
        for place, metric in enumerate(self.metrics):
            seen = runs if len(self.metrics) == 1 else [_seen_by(run, place) for run in runs]
            outcomes = Outcomes(metric, seen)
            columns.append([outcomes.value(run) for run in seen])
        return [_outcome(run, values) for run, values in zip(runs, zip(*columns, strict=True), strict=True)]


def _seen_by(run: PastRun, place: int) -> PastRun:
    value = run.values[place] if place < len(run.values) else None
    return PastRun(run.index, {}, run.state, value, value, stopped=run.stopped)


def _outcome(run: PastRun, values: Sequence[float | None]) -> Outcome:
    known = tuple(value for value in values if value is not None)
    if len(known) == len(values):
        own = all(_finite(value) is not None for value in run.values or (run.value,))
        return Outcome(Verdict.STOPPED if run.stopped and own else Verdict.COUNTS, known)
    return Outcome(Verdict.WORTHLESS if run.state in TERMINAL_STATES else Verdict.OPEN)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
