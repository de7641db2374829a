"""The rules of early termination as the scripts in Redis read them (store/lua/shared/stopping.lua)."""

from __future__ import annotations

from typing import Any

from resweep_scheduler.config import Hyperband, Median, Percentile, SweepConfig


def rule_for_redis(config: SweepConfig) -> dict[str, Any] | None:
    """The sweep's rule; None when its runs are not stopped early.

    A rule that Redis does not apply itself says no more than its type and the direction: the runs' curves are kept, and
    the agents decide.
    """
    rule, metric = config.early_terminate, config.metric
    if rule is None or metric is None:
        return None
    common = {"type": rule.type, "sign": -1 if metric.goal == "maximize" else 1}
    match rule:
        case Hyperband():
            return common | {"bands": list(rule.bands), "eta": rule.eta, "strict": rule.strict}
        case Median() | Percentile():
            return common | {
                "percentile": rule.percentile if isinstance(rule, Percentile) else 50.0,
                "n_startup_runs": rule.n_startup_runs,
                "min_iter": rule.min_iter,
                "interval": rule.interval,
            }
        case _:
            return common
