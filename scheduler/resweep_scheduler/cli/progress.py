"""How far a sweep is, how fast it goes, and when it ends: figures only, no store, no clock of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from resweep_scheduler.store.states import RunState

RECENT = 20
"""How many ends the rate is measured over: enough to be steady, few enough to follow agents that come and go."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Attributes:
    done: Runs in a terminal state.
    total: Runs that there will be; None when the search is endless.
    per_minute: Runs that ended per minute lately; None before two of them ended.
    eta_seconds: Until the last run ends; None when it cannot be told.
    """

    done: int
    total: int | None
    per_minute: float | None
    eta_seconds: float | None


def measure(counts: Mapping[RunState, int], total: int | None, ends: Iterable[int], now: int) -> Progress:
    """Measure a sweep.

    Args:
        counts: Runs by state.
        total: Size of the search or run_cap, whichever is smaller; None for neither.
        ends: When runs ended, in ms since the epoch.
        now: Milliseconds since the epoch, on the same clock.
    """
    done = sum(count for state, count in counts.items() if state.is_terminal)
    per_minute = _rate(sorted(ends)[-RECENT:], now)
    eta = None
    if total is not None:
        left = max(total - done, 0)
        eta = 0.0 if left == 0 else left / per_minute * 60 if per_minute else None
    return Progress(done, total, per_minute, eta)


def _rate(ends: list[int], now: int) -> float | None:
    if len(ends) < 2:
        return None
    # Until the last end, or until now when the next one is overdue: a sweep that stands still gets slower.
    pace = (ends[-1] - ends[0]) / (len(ends) - 1)
    overdue = now - ends[-1] - pace
    span = ends[-1] - ends[0] + max(overdue, 0.0)
    return (len(ends) - 1) / span * 60_000 if span > 0 else None


def expected_runs(size: int | None, run_cap: int | None) -> int | None:
    """The number of runs a search will make: the smaller of its size and the cap, None for endless."""
    known = [number for number in (size, run_cap) if number is not None]
    return min(known) if known else None
