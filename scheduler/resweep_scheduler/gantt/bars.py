"""From what attempts cost to bars in lanes, one lane for each agent."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from resweep_scheduler.accounts import AttemptCost, RunCost, SweepCost, add_up
from resweep_scheduler.cli.render import counted, duration, params_text
from resweep_scheduler.store.records import Run

MOST_LANES = 1000


@dataclass(frozen=True, slots=True)
class Bar:
    """One attempt. Times are ms on the Redis clock.

    Attributes:
        kept_until: What comes after it was lost; the end where nothing was.
        notice: When it got its notice.
        text: All that is known of it, in lines.
    """

    run_id: str
    attempt: int
    start: int
    end: int
    ended: str
    kept_until: int
    notice: int | None
    text: str


@dataclass(slots=True)
class Lane:
    """A row of the picture: one agent, or several that were there one after the other."""

    names: list[str]
    bars: list[Bar] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} and {len(self.names) - 1} more"


@dataclass(frozen=True, slots=True)
class Chart:
    """What is drawn.

    Attributes:
        waiting: The number of runs on the run queue, as steps: (from when, how many).
        remarks: What must be said of the picture: what is not in it, what lanes mean.
    """

    title: str
    subtitle: str
    start: int
    end: int
    lanes: Sequence[Lane]
    waiting: Sequence[tuple[int, int]]
    remarks: Sequence[str]

    @property
    def bars(self) -> list[Bar]:
        return [bar for lane in self.lanes for bar in lane.bars]


def chart_of(title: str, costs: Sequence[RunCost], runs: Mapping[str, Run], *, now: int) -> Chart:
    """Lays out the attempts of a sweep.

    Args:
        runs: Records, for the parameters that are shown with an attempt.
        now: Where attempts that run, and waits that go on, end in the picture; ms.
    """
    told = [cost for run in costs for cost in run.attempts]
    placed = [(cost, bar) for cost in told if (bar := _bar_of(cost, runs, now)) is not None]
    by_agent: dict[str, list[Bar]] = {}
    for cost, bar in placed:
        by_agent.setdefault(cost.attempt.agent, []).append(bar)
    lanes = [Lane([agent], sorted(bars, key=lambda bar: bar.start)) for agent, bars in by_agent.items()]
    lanes.sort(key=lambda lane: (lane.bars[0].start, lane.names))
    remarks = []
    if missing := len(told) - len(placed):
        remarks.append(f"{counted(missing, 'attempt')} not drawn: nobody knows when they began or ended")
    if len(lanes) > MOST_LANES:
        lanes = _shared(lanes)
        remarks.append(f"{len(by_agent)} agents: those that were there one after the other share a lane")
    if left_out := lanes[MOST_LANES:]:
        lanes = lanes[:MOST_LANES]
        attempts = counted(sum(len(lane.bars) for lane in left_out), "attempt")
        remarks.append(f"the first {MOST_LANES} lanes; {attempts} in {len(left_out)} more are not drawn")
    bars = [bar for _, bar in placed]
    start = min((bar.start for bar in bars), default=now)
    end = max((bar.end for bar in bars), default=now)
    total = add_up(costs)
    return Chart(
        title=title,
        subtitle=_subtitle(total, len(by_agent), start, end),
        start=start,
        end=end,
        lanes=lanes,
        waiting=_queue_lengths(costs, start, end),
        remarks=remarks,
    )


def _bar_of(cost: AttemptCost, runs: Mapping[str, Run], now: int) -> Bar | None:
    attempt = cost.attempt
    if attempt.start is None or cost.spent is None:
        return None
    end = attempt.start + cost.spent
    run = runs.get(attempt.run_id)
    return Bar(
        run_id=attempt.run_id,
        attempt=attempt.number,
        start=attempt.start,
        end=end,
        ended=attempt.ended,
        kept_until=cost.kept_until if cost.lost and cost.kept_until is not None else end,
        notice=attempt.notice.at if attempt.notice is not None else None,
        text=_text_of(cost, attempt.start, end, run.params if run is not None else {}),
    )


def _text_of(cost: AttemptCost, start: int, end: int, params: Mapping[str, Any]) -> str:
    attempt, notice = cost.attempt, cost.attempt.notice
    lines = [
        f"run {attempt.run_id}, attempt {attempt.number} on {attempt.agent or 'an unknown agent'}",
        f"{attempt.ended} for {duration((end - start) / 1000)}"
        if not attempt.is_over
        else f"{attempt.ended} after {duration((end - start) / 1000)}"
        + (f" ({attempt.reason})" if attempt.reason else ""),
        f"{_moment(start)} to {_moment(end)} UTC",
    ]
    if cost.waited is not None:
        lines.append(f"waited {duration(cost.waited / 1000)} on the run queue before")
    if notice is not None:
        ahead = "" if notice.lead_ms is None else f", {duration(notice.lead_ms / 1000)} ahead"
        lines.append(f"notice: {notice.source}{ahead}, {duration((end - notice.at) / 1000)} before the end")
    if cost.lost:
        steps = f", {counted(cost.lost_steps, 'step')}" if cost.lost_steps else ""
        lines.append(f"lost {duration(cost.lost / 1000)}{steps}")
    if cost.unknown:
        lines.append("nobody knows what of it was lost")
    if params:
        lines.append(params_text(params))
    return "\n".join(lines)


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _subtitle(cost: SweepCost, agents: int, start: int, end: int) -> str:
    if not cost.attempts:
        return "no attempt yet"
    parts = [
        f"{counted(cost.attempts, 'attempt')} on {counted(agents, 'agent')}",
        f"{duration((end - start) / 1000)} from {_moment(start)} UTC",
    ]
    if cost.goodput is not None:
        parts.append(f"goodput {100 * cost.goodput:.1f} %")
    if cost.lost:
        parts.append(f"{duration(cost.lost / 1000)} lost")
    return " · ".join(parts)


def _shared(lanes: Sequence[Lane]) -> list[Lane]:
    """Few lanes: an agent takes the one that has been free for longest."""
    shared: list[Lane] = []
    free: list[tuple[int, int]] = []  # since when, which lane
    for lane in lanes:
        until = max(bar.end for bar in lane.bars)
        if free and free[0][0] <= lane.bars[0].start:
            _, place = heapq.heappop(free)
            shared[place].names += lane.names
            shared[place].bars += lane.bars
        else:
            place = len(shared)
            shared.append(Lane(list(lane.names), list(lane.bars)))
        heapq.heappush(free, (until, place))
    return shared


def _queue_lengths(costs: Sequence[RunCost], start: int, end: int) -> list[tuple[int, int]]:
    """When the run queue grew or shrank, within the time of the picture."""
    changes: dict[int, int] = {}
    for run in costs:
        for begin, until in run.queued:
            first, last = max(begin, start), min(until, end)
            if first < last:
                changes[first] = changes.get(first, 0) + 1
                changes[last] = changes.get(last, 0) - 1
    steps, number = [], 0
    for at in sorted(changes):
        number += changes[at]
        steps.append((at, number))
    return steps
