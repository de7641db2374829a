"""What the runs of a sweep cost together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from resweep_scheduler.accounts.costs import RunCost, goodput


@dataclass(frozen=True, slots=True)
class SweepCost:
    """Sums over runs; times in ms.

    Attributes:
        attempts: That are known by events.
        missing: More of them, by the records of runs alone.
        ended: How many attempts ended how; "running" for those that are not over.
        lost_by: Time lost, by how the attempt ended.
        lost_steps: Over the attempts of which it is known.
        notices: How many attempts got a notice, by its source.
        leads: Lead times of the notices that have one, shortest first.
        waits: Stays on the run queue, shortest first; those that go on, too.
    """

    attempts: int = 0
    missing: int = 0
    ended: Mapping[str, int] = field(default_factory=dict)
    spent: int = 0
    useful: int = 0
    lost: int = 0
    open: int = 0
    unknown: int = 0
    lost_by: Mapping[str, int] = field(default_factory=dict)
    lost_steps: int = 0
    notices: Mapping[str, int] = field(default_factory=dict)
    leads: tuple[int, ...] = ()
    waits: tuple[int, ...] = ()

    @property
    def goodput(self) -> float | None:
        return goodput(self.useful, self.lost)


def add_up(runs: Iterable[RunCost]) -> SweepCost:
    """The sums of a sweep."""
    runs = list(runs)
    costs = [cost for run in runs for cost in run.attempts]
    notices = [cost.attempt.notice for cost in costs if cost.attempt.notice is not None]
    lost_by: Counter[str] = Counter()
    for cost in costs:
        if cost.lost:
            lost_by[cost.attempt.ended] += cost.lost
    return SweepCost(
        attempts=len(costs),
        missing=sum(run.missing for run in runs),
        ended=dict(Counter(cost.attempt.ended for cost in costs).most_common()),
        spent=sum(run.spent for run in runs),
        useful=sum(run.useful for run in runs),
        lost=sum(run.lost for run in runs),
        open=sum(run.open for run in runs),
        unknown=sum(run.unknown for run in runs),
        lost_by=dict(lost_by.most_common()),
        lost_steps=sum(cost.lost_steps or 0 for cost in costs),
        notices=dict(Counter(notice.source for notice in notices).most_common()),
        leads=tuple(sorted(notice.lead_ms for notice in notices if notice.lead_ms is not None)),
        waits=tuple(sorted(wait for run in runs for wait in run.waits)),
    )
