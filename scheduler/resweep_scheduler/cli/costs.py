"""What preemption cost, for `show` and `run`: as lines, as a table, as JSON objects (durations in seconds)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from resweep_scheduler.cli import render

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from resweep_scheduler.accounts import AttemptCost, Notice, RunCost, SweepCost

ORDER = ("finished", "preempted", "failed", "crashed", "killed", "running", "unknown")
"""In which the ends of attempts are told."""


def sweep_cost_object(cost: SweepCost) -> dict[str, Any]:
    """The object `cost` of `resweep show --json`."""
    return {
        "attempts": cost.attempts,
        "attempts_without_events": cost.missing,
        "ended": cost.ended,
        **_times(cost),
        "lost_seconds_by_end": {how: seconds(lost) for how, lost in cost.lost_by.items()},
        "lost_steps": cost.lost_steps,
        "notices": cost.notices,
        "lead_seconds": _spread(cost.leads),
        "queue_wait_seconds": _spread(cost.waits),
    }


def run_cost_object(cost: RunCost) -> dict[str, Any]:
    """The object `cost` of `resweep run --json`."""
    return {
        **_times(cost),
        "attempts_without_events": cost.missing,
        "queue_wait_seconds": [seconds(wait) for wait in cost.waits],
        "attempts": [attempt_object(attempt) for attempt in cost.attempts],
    }


def attempt_object(cost: AttemptCost) -> dict[str, Any]:
    """One attempt; what nobody knows is null."""
    attempt = cost.attempt
    notice = attempt.notice
    return {
        "attempt": attempt.number,
        "agent": attempt.agent,
        "start": attempt.start,
        "end": attempt.end,
        "ended": attempt.ended,
        "reason": attempt.reason,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal,
        "notice": None
        if notice is None
        else {"at": notice.at, "source": notice.source, "lead_seconds": seconds(notice.lead_ms)},
        "queue_wait_seconds": seconds(cost.waited),
        "spent_seconds": seconds(cost.spent),
        "useful_seconds": seconds(cost.useful),
        "lost_seconds": seconds(cost.lost),
        "open_seconds": seconds(cost.open),
        "unknown_seconds": seconds(cost.unknown),
        "kept_until": cost.kept_until,
        "lost_steps": cost.lost_steps,
    }


def _times(cost: SweepCost | RunCost) -> dict[str, Any]:
    return {
        "spent_seconds": seconds(cost.spent),
        "useful_seconds": seconds(cost.useful),
        "lost_seconds": seconds(cost.lost),
        "open_seconds": seconds(cost.open),
        "unknown_seconds": seconds(cost.unknown),
        "goodput": cost.goodput,
    }


def _spread(values: Sequence[int]) -> dict[str, Any]:
    """Of sorted values."""
    return {
        "count": len(values),
        "total": seconds(sum(values)),
        "median": seconds(statistics.median(values)) if values else None,
        "longest": seconds(values[-1]) if values else None,
        "shortest": seconds(values[0]) if values else None,
    }


def seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def sweep_cost_lines(cost: SweepCost) -> list[tuple[str, RenderableType]]:
    """What `resweep show` says of it; nothing before the first attempt."""
    if not cost.attempts and not cost.missing:
        return []
    lines: list[tuple[str, RenderableType]] = [("attempts", _attempts_text(cost))]
    if cost.notices:
        lines.append(("notices", _notices_text(cost)))
    if cost.waits:
        lines.append(("waits", _waits_text(cost.waits)))
    return [*lines, ("time", time_text(cost, _lost_text(cost))), ("goodput", goodput_text(cost))]


def run_cost_lines(cost: RunCost) -> list[tuple[str, RenderableType]]:
    """What `resweep run` says of it above the table of attempts."""
    steps = [attempt.lost_steps for attempt in cost.attempts if attempt.lost_steps is not None]
    lost = f"{render.duration(cost.lost / 1000)} lost" if cost.lost else ""
    if lost and sum(steps):
        lost += f" ({render.counted(sum(steps), 'step')})"
    lines: list[tuple[str, RenderableType]] = [("time", time_text(cost, lost)), ("goodput", goodput_text(cost))]
    if cost.waits:
        lines.append(("waits", _waits_text(sorted(cost.waits))))
    if cost.missing:
        lines.append(("not told", f"{render.counted(cost.missing, 'attempt')} whose events are gone"))
    return lines


def attempts_table(cost: RunCost) -> Table:
    """One line for each attempt."""
    columns = ("attempt", "agent", "started", "lasted", "ended", "notice", "waited", "lost")
    rows = [
        (
            str(one.attempt.number),
            one.attempt.agent or "–",
            "?" if one.attempt.start is None else render.clock_time(one.attempt.start),
            "?" if one.spent is None else render.duration(one.spent / 1000),
            one.attempt.ended,
            "–" if one.attempt.notice is None else notice_text(one.attempt.notice),
            "–" if one.waited is None else render.duration(one.waited / 1000),
            _lost_of(one),
        )
        for one in cost.attempts
    ]
    return render.table(columns, rows, right=("attempt", "lasted", "waited", "lost"))


def notice_text(notice: Notice) -> str:
    """`SIGTERM`, `aws, 2m 00s ahead`."""
    ahead = "" if notice.lead_ms is None else f", {render.duration(notice.lead_ms / 1000)} ahead"
    return notice.source + ahead


def _lost_of(cost: AttemptCost) -> str:
    if not cost.attempt.is_over:
        return "–"
    if cost.spent is None or cost.kept_until is None:
        return "?"
    if not cost.lost:
        return "–"
    steps = f", {render.counted(cost.lost_steps, 'step')}" if cost.lost_steps else ""
    return render.duration(cost.lost / 1000) + steps


def time_text(cost: SweepCost | RunCost, lost: str) -> str:
    """`1h 00m spent: 50m 00s useful, 10m 00s lost`; parts of nothing are left out."""
    parts = [
        f"{render.duration(cost.useful / 1000)} useful" if cost.useful else "",
        lost,
        f"{render.duration(cost.open / 1000)} not yet saved" if cost.open else "",
        f"{render.duration(cost.unknown / 1000)} unknown" if cost.unknown else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f"{render.duration(cost.spent / 1000)} spent" + (f": {told}" if told else "")


def goodput_text(cost: SweepCost | RunCost) -> str:
    """`93.1 %`."""
    return "unknown" if cost.goodput is None else f"{100 * cost.goodput:.1f} %"


def _attempts_text(cost: SweepCost) -> str:
    ended = ", ".join(f"{cost.ended[how]} {how}" for how in ORDER if how in cost.ended)
    missing = f", and {cost.missing} whose events are gone" if cost.missing else ""
    return f"{cost.attempts}" + (f": {ended}" if ended else "") + missing


def _notices_text(cost: SweepCost) -> str:
    sources = ", ".join(f"{number} {source}" for source, number in cost.notices.items())
    if not cost.leads:
        return sources
    shortest, median = cost.leads[0] / 1000, statistics.median(cost.leads) / 1000
    return f"{sources}; {render.duration(median)} ahead (median), {render.duration(shortest)} at least"


def _waits_text(waits: Sequence[int]) -> str:
    """Of sorted waits."""
    total, longest = render.duration(sum(waits) / 1000), render.duration(waits[-1] / 1000)
    if len(waits) == 1:
        return f"{total} on the run queue"
    median = render.duration(statistics.median(waits) / 1000)
    return f"{len(waits)} times on the run queue: {median} (median), {longest} (longest), {total} together"


def _lost_text(cost: SweepCost) -> str:
    by: Mapping[str, int] = cost.lost_by
    parts = []
    preempted = by.get("preempted", 0)
    if preempted:
        parts.append(f"{render.duration(preempted / 1000)} lost to preemption")
    if other := cost.lost - preempted:
        parts.append(f"{render.duration(other / 1000)} lost otherwise")
    steps = f" ({render.counted(cost.lost_steps, 'step')})" if parts and cost.lost_steps else ""
    return ", ".join(parts) + steps
