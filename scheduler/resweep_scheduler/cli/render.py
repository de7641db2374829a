"""How things look on a terminal: colours of states, numbers, times, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from resweep_scheduler.cli.objects import flatten, plain
from resweep_scheduler.cli.options import terminal_width
from resweep_scheduler.store.states import RunState, SweepState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

    from resweep_scheduler.store.records import Run

RUN_STYLES: dict[RunState, tuple[str, str, str]] = {
    # state: (mark, mark where there is only ASCII, style)
    RunState.PENDING: ("○", "o", "dim"),
    RunState.RUNNING: ("●", "*", "cyan"),
    RunState.PREEMPTING: ("◐", "~", "yellow"),
    RunState.PREEMPTED: ("↻", "<", "yellow"),
    RunState.FINISHED: ("✓", "+", "green"),
    RunState.FAILED: ("✗", "x", "red"),
    RunState.CRASHED: ("!", "!", "red"),
    RunState.KILLED: ("■", "#", "magenta"),
}

SWEEP_STYLES: dict[SweepState, tuple[str, str, str]] = {
    SweepState.PENDING: ("○", "o", "dim"),
    SweepState.RUNNING: ("●", "*", "cyan"),
    SweepState.PAUSED: ("‖", "=", "yellow"),
    SweepState.FINISHED: ("✓", "+", "green"),
    SweepState.CANCELED: ("■", "#", "magenta"),
}


def console() -> Console:
    """A console on stdout that never reads markup or emoji into what users named things."""
    from rich.console import Console

    return Console(width=terminal_width(), highlight=False, markup=False, emoji=False)


def show(*renderables: RenderableType) -> None:
    """Print on stdout; into a pipe or a file without the blanks that fill up the lines of tables."""
    out = console()
    if out.is_terminal:
        for renderable in renderables:
            out.print(renderable)
        return
    with out.capture() as captured:
        for renderable in renderables:
            out.print(renderable)
    for line in captured.get().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def state_text(state: RunState | SweepState) -> Text:
    from rich.text import Text

    mark, ascii_mark, style = RUN_STYLES[state] if isinstance(state, RunState) else SWEEP_STYLES[state]
    return Text(f"{mark if _unicode() else ascii_mark} {state.value}", style)


def counts_text(counts: Mapping[RunState, int]) -> Text:
    """`✓ 5 finished  ● 2 running`: states that no run is in are left out."""
    from rich.text import Text

    parts = []
    for state, (mark, ascii_mark, style) in RUN_STYLES.items():
        if counts.get(state):
            parts.append(Text(f"{mark if _unicode() else ascii_mark} {counts[state]} {state.value}", style))
    return Text("  ").join(parts) if parts else Text("no runs yet", "dim")


def number(value: object) -> str:
    """A value as people read it: six significant digits for floats, JSON for what is nested."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    return json.dumps(plain(value), ensure_ascii=False)


def params_text(params: Mapping[str, Any]) -> str:
    """`lr=0.01 hidden=64`, nested names joined by dots."""
    return " ".join(f"{name}={number(value)}" for name, value in flatten(params).items())


def counted(number: int, noun: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """`8.4 s`, `3m 12s`, `2h 05m`, `3d 04h`."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours}h {minutes:02}m"
    days, hours = divmod(hours, 24)
    return f"{days}d {hours:02}h"


def ago(then: int | None, now: int) -> str:
    """How long ago, both in milliseconds since the epoch; a dash for never."""
    return "–" if then is None else f"{duration((now - then) / 1000)} ago"


def clock_time(milliseconds: int) -> str:
    """The local time of day of a moment on the Redis clock."""
    return datetime.fromtimestamp(milliseconds / 1000).strftime("%H:%M:%S")


def ending(run: Run) -> str:
    """How the last attempt ended: `exit 1`, `SIGKILL`, and the reason if there is one."""
    import signal

    parts = []
    if run.exit_code is not None:
        parts.append(f"exit {run.exit_code}")
    if run.signal is not None:
        try:
            parts.append(signal.Signals(run.signal).name)
        except ValueError:
            parts.append(f"signal {run.signal}")
    if run.reason and run.reason != f"exit code {run.exit_code}":
        parts.append(run.reason)
    return ", ".join(parts)


def table(columns: Sequence[str], rows: Iterable[Sequence[RenderableType]], *, right: Sequence[str] = ()) -> Table:
    """A table without lines: columns named in `right` are numbers."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def facts(pairs: Iterable[tuple[str, RenderableType]]) -> Table:
    """Names and values, one pair a line."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def bar(done: int, total: int, width: int = 32) -> Text:
    """A bar of `width` cells, filled as far as `done` of `total`."""
    from rich.text import Text

    full, empty = ("━", "─") if _unicode() else ("#", "-")
    filled = width if total <= 0 else min(width, int(width * done / total))
    return Text(full * filled, "green").append(empty * (width - filled), "dim")


def best_of(runs: Iterable[Run], goal: str | None) -> list[Run]:
    """Runs that have a value of the sweep's metric, best first; equal ones in the order of their creation."""
    valued = [run for run in runs if run.metric is not None]
    return sorted(valued, key=lambda run: run.metric or 0.0, reverse=goal == "maximize")


def _unicode() -> bool:
    return (sys.stdout.encoding or "ascii").lower().replace("-", "").startswith("utf")
