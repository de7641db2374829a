"""What `watch` and `start` show: a line for everything that happens, below them a picture of what is going on."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING

from resweep_scheduler.cli import render
from resweep_scheduler.store.states import RunState

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    from resweep_scheduler.cli.monitor import Monitor
    from resweep_scheduler.store.records import Event, Run

SHOWN_RUNS = 16
"""Owned runs that the picture has room for."""

STORIES = {
    "claimed": RunState.RUNNING,
    "adopted": RunState.RUNNING,
    "preempting": RunState.PREEMPTING,
    "preempted": RunState.PREEMPTED,
    "retried": RunState.PREEMPTED,
    "fallback": RunState.RUNNING,
    "finished": RunState.FINISHED,
    "failed": RunState.FAILED,
    "crashed": RunState.CRASHED,
    "killed": RunState.KILLED,
}
"""Kinds of events that are told, with the state whose colour they have."""


class View(AbstractContextManager["View"]):
    """Prints a line for each event; on a terminal, with a picture of the sweep below that is drawn again and again."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._console = render.console()
        self._live: Live | None = None
        self._away = False

    def __enter__(self) -> View:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(picture(self._monitor), console=self._console, transient=True, auto_refresh=False)
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, events: Iterable[Event]) -> None:
        """Tell what happened, and draw what is going on."""
        for event in events:
            if (line := story(event, self._monitor)) is not None:
                self.say(line)
        if (self._monitor.away is not None) != self._away:
            self._away = self._monitor.away is not None
            self.say(f"Redis is away, runs go on: {self._monitor.away}" if self._away else "Redis is back.")
        if self._live is not None:
            self._live.update(picture(self._monitor), refresh=True)

    def say(self, line: str | Text) -> None:
        """Print one line above the picture."""
        self._console.print(line, soft_wrap=True)
        sys.stdout.flush()

    def tell_state(self) -> None:
        """Print how the sweep stands, in one line."""
        from rich.text import Text

        sweep = self._monitor.sweep
        self.say(
            Text.assemble(
                ("sweep ", "bold"),
                (sweep.sweep_id, "bold"),
                "  ",
                render.state_text(sweep.state),
                f" ({sweep.reason})" if sweep.reason else "",
                "  ",
                render.counts_text(sweep.counts),
            )
        )


def story(event: Event, monitor: Monitor) -> Text | None:
    """One line about an event, or None for those that nobody needs to read."""
    from rich.text import Text

    state = STORIES.get(event.kind)
    if event.kind == "state":
        what = Text.assemble(("sweep     ", "bold"), f"{event.before} → {event.after}")
    elif event.kind == "notice":
        _, _, style = render.RUN_STYLES[RunState.PREEMPTING]
        word = "may go" if event.data.get("hint") else "is to go"
        told = " ".join(str(event.data[name]) for name in ("source", "detail") if name in event.data)
        what = Text.assemble(
            ("agent     ", "bold"), (f"{'notice':<11}", style), f"{event.agent} {word}: {told}{_lead(event)}"
        )
    elif state is None or event.run_id is None:
        return None
    else:
        _, _, style = render.RUN_STYLES[state]
        what = Text.assemble((f"{event.run_id:<10}", "bold"), (f"{event.kind:<11}", style), _details(event, monitor))
    return Text.assemble((render.clock_time(event.at), "dim"), "  ", what)


def _details(event: Event, monitor: Monitor) -> str:
    run = monitor.runs.get(event.run_id or "")
    if run is None:
        return ""
    if event.kind in ("claimed", "adopted"):
        resumed = f"attempt {event.attempt} " if (event.attempt or 1) > 1 else ""
        return f"{resumed}on {event.agent}  {render.params_text(run.params)}"
    if event.kind == "fallback":
        return _fallback(event)
    parts = []
    if event.kind == "finished" and run.metric is not None:
        parts.append(f"{monitor.sweep.metric_name} {render.number(run.metric)}")
    if event.kind in ("failed", "crashed", "killed") and (how := render.ending(run)):
        parts.append(how)
    if event.kind in ("preempted", "retried"):
        parts.append("on the run queue")
    if event.kind in ("preempting", "preempted") and (reason := event.data.get("reason")):
        parts.append(f"({reason}{_lead(event)})")
    if event.kind not in ("preempting", "preempted", "retried") and monitor.planned:
        parts.append(f"[{monitor.progress().done}/{monitor.planned}]")
    return "  ".join(parts)


def _fallback(event: Event) -> str:
    """Which checkpoint cannot be used, and which one the run goes on from."""

    def of(step: object) -> str:
        return "" if step is None else f" of step {step}"

    older = event.data.get("step")
    instead = f"goes on from that{of(older)}" if older is not None else "no older one is left"
    return f"checkpoint{of(event.data.get('lost'))} cannot be used, {instead} ({event.data.get('reason')})"


def _lead(event: Event) -> str:
    """How long the machine is still there, if a notice said so."""
    lead = event.data.get("lead_ms")
    return "" if lead is None else f", in {render.duration(lead / 1000)}"


def picture(monitor: Monitor) -> Group:
    """The sweep as it is now."""
    from rich.console import Group
    from rich.text import Text

    sweep = monitor.sweep
    title = Text.assemble(("sweep ", "bold"), (sweep.sweep_id, "bold"), "  ", render.state_text(sweep.state))
    if sweep.name:
        title.append(f"  {sweep.name}", "dim")
    parts: list[RenderableType] = ["", title, _progress_line(monitor), render.counts_text(sweep.counts), ""]
    if owned := monitor.owned():
        parts += [_owned_table(monitor, owned), ""]
    if sweep.queue:
        parts.append(Text.assemble(("run queue  ", "bold"), " ".join(sweep.queue[:SHOWN_RUNS])))
    waiting = sum(agent.run_id is None for agent in monitor.agents)
    agents = f"{len(monitor.agents)}, {waiting} waiting" if waiting else str(len(monitor.agents))
    parts.append(Text.assemble(("agents     ", "bold"), agents))
    if best := monitor.best():
        value = f"{sweep.metric_name} {render.number(best.metric)}"
        line = Text.assemble(("best       ", "bold"), best.run_id, "  ", (value, "green"), "  ")
        parts.append(line.append(render.params_text(best.params), "dim"))
    if monitor.away is not None:
        parts.append(Text(f"Redis is away, runs go on: {monitor.away}", "yellow"))
    return Group(*parts)


def _progress_line(monitor: Monitor) -> Text:
    from rich.text import Text

    progress = monitor.progress()
    line = Text()
    if progress.total is not None:
        line = render.bar(progress.done, progress.total).append(f"  {progress.done} of {progress.total}")
    else:
        line.append(f"{progress.done} runs ended, endless search")
    if progress.per_minute is not None:
        line.append(f"  {progress.per_minute:.1f} runs/min")
    if progress.eta_seconds:
        line.append(f"  {render.duration(progress.eta_seconds)} left")
    return line


def _owned_table(monitor: Monitor, owned: list[Run]) -> Table:
    leases = {lease.run_id: lease.remaining_ms / 1000 for lease in monitor.leases}
    rows = [
        (
            run.run_id,
            render.state_text(run.state),
            str(run.attempt),
            "–" if run.step is None else str(run.step),
            "–" if run.metric is None else render.number(run.metric),
            render.duration((monitor.now - (run.started_at or monitor.now)) / 1000),
            f"{leases[run.run_id]:.0f} s" if run.run_id in leases else "–",
            run.agent or "–",
            render.params_text(run.params),
        )
        for run in owned[:SHOWN_RUNS]
    ]
    metric = monitor.sweep.metric_name or "metric"
    columns = ("run", "state", "attempt", "step", metric, "time", "lease", "agent", "parameters")
    table = render.table(columns, rows, right=("attempt", "step", metric, "time", "lease"))
    if len(owned) > SHOWN_RUNS:
        table.caption = f"and {len(owned) - SHOWN_RUNS} more"
    return table
