"""What a run counts as for a search that learns: its value, an imputed one, or nothing yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from resweep_scheduler.config.metric import Metric
from resweep_scheduler.search.base import PastRun

TERMINAL_STATES: Final = frozenset({"finished", "failed", "crashed", "killed"})


class Outcomes:
    """Values of runs by the rules of ``metric.impute`` and ``metric.impute_while_running``.

    A finished run counts as its best value; failed, crashed and killed runs are always imputed, even if they logged
    good values, as in W&B. Where W&B falls back to 0.0, which may be the best value of all, the worst known value is
    taken.

    Args:
        metric: The metric and its rules.
        runs: All runs; the worst value is sought among those that ended.
    """

    def __init__(self, metric: Metric, runs: Sequence[PastRun]) -> None:
        self._metric = metric
        values = [value for run in runs if run.state in TERMINAL_STATES and (value := _finite(run.value)) is not None]
        worst_of = max if metric.goal == "minimize" else min
        self._worst = worst_of(values, default=None)

    def value(self, run: PastRun) -> float | None:
        """The value that a run counts as; None if it is open, or if nothing is known to impute."""
        if run.state == "finished" and (value := _finite(run.value)) is not None:
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


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
