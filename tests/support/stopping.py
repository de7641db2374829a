"""Early termination in plain Python, written from W&B's and Optuna's semantics: what the scripts are compared with.

A curve is what a run logged of the metric, by step; less is better unless the rule maximizes.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resweep_scheduler.store import Store
from support.stores import SWEEP, Agent, make_offer, make_sweep


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


def hyperband(*bands: int, eta: float = 3.0, strict: bool = False, sign: int = 1) -> dict[str, Any]:
    """The rule as a sweep's settings have it."""
    return {"type": "hyperband", "sign": sign, "bands": list(bands), "eta": eta, "strict": strict}


def agents_of(store: Store, number: int, rule: Mapping[str, Any], **settings: Any) -> list[Agent]:
    """Agents that own one run each of a sweep with this rule."""
    make_sweep(store, stopping=rule, **settings)
    store.add_runs(SWEEP, make_offer(number, exhausted=True))
    agents = [Agent(store, f"a{index}") for index in range(number)]
    for agent in agents:
        agent.take()
    return agents


def stopped(store: Store) -> list[str]:
    """The runs that were told to end, in the order in which that happened."""
    return [event.run_id or "" for event in store.events(SWEEP) if event.kind == "stop"]


def log_against_model(
    store: Store, agents: Sequence[Agent], rule: Mapping[str, Any], dice: random.Random, *, few: bool
) -> None:
    """Runs log side by side, some in batches, and end: those are stopped that the model stops, value by value.

    Args:
        few: There are only three different values, so that many are equal.
    """
    curves: list[list[float]] = [[] for _ in agents]
    finished: list[list[float]] = []
    alive, expected = set(range(len(agents))), []
    while alive:
        index = dice.choice(sorted(alive))
        agent, curve = agents[index], curves[index]
        batch = [dice.choice([1.0, 2.0, 3.0]) if few else dice.gauss(0, 1) for _ in range(dice.randint(1, 3))]
        agent.log_values(*batch, first_step=len(curve), first_seq=len(curve) + 1)
        weak = False
        for value in batch:
            curve.append(value)
            if "bands" in rule:
                weak = weak or hyperband_stops(rule, curve, curves)
            else:
                weak = weak or percentile_stops(rule, curve, finished, number_finished=len(finished))
        if weak:
            expected.append(f"run{index}")
        if weak or len(curve) >= 8:
            alive.remove(index)
            agent.end(None if weak else 0, killed=weak)
            finished += [] if weak else [curve]
    assert stopped(store) == expected
