"""Runs in the order of several goals: the Pareto front first."""

from __future__ import annotations

from collections.abc import Sequence

from resweep_scheduler.store.records import Run
from resweep_scheduler.store.states import RunState

Goals = Sequence[tuple[str, str]]
"""Name and goal of each metric."""


def fronts_of(runs: Sequence[Run], goals: Goals) -> list[list[Run]]:
    """Finished runs with a value of each metric, in fronts: no run of a front is beaten by one of it or a later one.

    A run beats another if it is at least as good in each goal and better in one. In a front the runs stand by the
    first goal, equal ones in the order of their creation.
    """
    signs = [1 if goal == "minimize" else -1 for _, goal in goals]

    def costs(run: Run) -> tuple[float, ...]:
        return tuple(sign * value for sign, value in zip(signs, run.values, strict=True) if value is not None)

    complete = [(costs(run), run) for run in runs if run.state is RunState.FINISHED and len(run.values) == len(goals)]
    complete = [(cost, run) for cost, run in complete if len(cost) == len(goals)]
    # In this order a run is beaten by earlier ones only, and by a front if and only if by those before it, too.
    complete.sort(key=lambda pair: pair[0])
    fronts: list[list[tuple[tuple[float, ...], Run]]] = []
    for cost, run in complete:
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            if any(_beats(other, cost) for other, _ in reversed(fronts[middle])):
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append([])
        fronts[low].append((cost, run))
    return [[run for _, run in front] for front in fronts]


def front_of(runs: Sequence[Run], goals: Goals) -> list[Run]:
    """The Pareto front: the finished runs that no other beats."""
    fronts = fronts_of(runs, goals)
    return fronts[0] if fronts else []


def _beats(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return left != right and all(a <= b for a, b in zip(left, right, strict=True))
