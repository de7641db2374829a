"""Early termination: what decides that a run is stopped before its end."""

from resweep_scheduler.stopping.rules import rule_for_redis

__all__ = ["rule_for_redis"]
