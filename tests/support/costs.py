"""What must be so of what a sweep cost, whatever happened to it."""

from __future__ import annotations

from collections.abc import Sequence

from resweep_scheduler.accounts import RunCost, SweepCost, add_up, read_sweep_costs
from resweep_scheduler.store import Run, Store


def costs_of(store: Store, sweep_id: str, runs: Sequence[Run] | None = None) -> list[RunCost]:
    """The costs of all runs, now."""
    runs = store.runs(sweep_id) if runs is None else runs
    return read_sweep_costs(store, runs, store.events(sweep_id), now=store.redis_time())


def cost_faults(store: Store, sweep_id: str, runs: Sequence[Run]) -> list[str]:
    """Sentences that say which sums are wrong."""
    costs = costs_of(store, sweep_id, runs)
    faults = [fault for cost in costs for fault in _faults_of(cost)]
    total = add_up(costs)
    parts = (total.useful, total.lost, total.open, total.unknown)
    if total.spent != sum(parts) or min(parts) < 0 or sum(total.lost_by.values()) != total.lost:
        faults.append(f"the sweep's times do not add up: {total}")
    if total.goodput is not None and not 0 <= total.goodput <= 1:
        faults.append(f"the sweep's goodput is {total.goodput}")
    return faults


def _faults_of(cost: RunCost) -> list[str]:
    faults = []
    for one in cost.attempts:
        parts = (one.useful, one.lost, one.open, one.unknown)
        if min(parts) < 0 or sum(parts) != (one.spent or 0):
            faults.append(f"run {cost.run_id}: the parts of an attempt do not add up: {one}")
    if min(cost.waits, default=0) < 0:
        faults.append(f"run {cost.run_id}: a wait is negative: {cost.waits}")
    return faults


def total_cost(store: Store, sweep_id: str) -> SweepCost:
    """What the sweep cost, now."""
    return add_up(costs_of(store, sweep_id))
