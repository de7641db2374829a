"""`runs`, `run`, `best`: looking at runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.options import (
    Settings,
    command,
    json_option,
    notice,
    run_argument,
    store_options,
    sweep_argument,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resweep_scheduler.accounts import RunCost
    from resweep_scheduler.store import Store
    from resweep_scheduler.store.records import Run, Sweep


@command(
    "runs",
    "resweep runs SWEEP",
    "resweep runs SWEEP --state failed --state crashed",
    "resweep runs SWEEP --json | jq -r '.[] | [.id, .state, .metric] | @tsv'",
)
@click.option("--state", multiple=True, metavar="STATE", help="Only runs in this state; may be repeated.")
@click.option("--best-first", is_flag=True, help="Order by the sweep's metric or metrics, not by creation.")
@json_option
@sweep_argument
@store_options
def runs_command(settings: Settings, sweep: str, state: tuple[str, ...], best_first: bool, as_json: bool) -> None:
    """List the runs of a sweep.

    In the order of their creation.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.cli.objects import run_object, to_json
    from resweep_scheduler.store.states import RunState

    known = [member.value for member in RunState]
    for name in state:
        if name not in known:
            raise click.UsageError(f"there is no run state {name!r}: use {', '.join(known)}.")
    store, sweep_id = open_sweep(settings, sweep)
    record = store.sweep(sweep_id)
    runs = store.runs(sweep_id, states=[RunState(name) for name in state] or None)
    if best_first:
        ordered = _best_first(record, runs)
        placed = {run.run_id for run in ordered}
        runs = ordered + [run for run in runs if run.run_id not in placed]
    if as_json:
        click.echo(to_json([run_object(run) for run in runs]))
    elif runs:
        print_runs(record, runs)
    else:
        notice(f"Sweep {sweep_id} has no such runs. Agents make them: sweep-agent {sweep_id}")


def _best_first(sweep: Sweep, runs: list[Run]) -> list[Run]:
    """The runs that can be compared, best first; with several metrics front by front."""
    from resweep_scheduler.cli.fronts import fronts_of
    from resweep_scheduler.cli.render import best_of

    if sweep.metrics:
        return [run for front in fronts_of(runs, sweep.metrics) for run in front]
    return best_of(runs, sweep.metric_goal)


def print_runs(sweep: Sweep, runs: list[Run]) -> None:
    """Print runs as a table."""
    from resweep_scheduler.cli import render

    rows: list[tuple[RenderableType, ...]] = [
        (
            run.run_id,
            render.state_text(run.state),
            str(run.attempt),
            "–" if run.step is None else str(run.step),
            *_metric_cells(sweep, run),
            render.params_text(run.params),
            run.agent or "–",
            render.ending(run),
        )
        for run in runs
    ]
    metrics = [name for name, _ in sweep.metrics] or [sweep.metric_name or "metric"]
    columns = ("run", "state", "attempt", "step", *metrics, "parameters", "agent", "ending")
    render.show(render.table(columns, rows, right=("attempt", "step", *metrics)))


def _metric_cells(sweep: Sweep, run: Run) -> list[str]:
    from resweep_scheduler.cli import render

    values = (run.metric,) if not sweep.metrics else run.values or (None,) * len(sweep.metrics)
    return ["–" if value is None else render.number(value) for value in values]


@command("best", "resweep best SWEEP", "resweep best SWEEP -n 5", "resweep best SWEEP --json | jq .params")
@click.option(
    "-n",
    "--number",
    type=click.IntRange(min=1),
    help="How many runs. [default: 1; with several metrics all that count]",
)
@json_option
@sweep_argument
@store_options
def best_command(settings: Settings, sweep: str, number: int | None, as_json: bool) -> None:
    """Show the best run.

    By the metric of the sweep. With several metrics: the Pareto front, the finished runs that no other beats in all of
    them. With --json: an object; with -n above 1 or several metrics, an array.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.cli.exitcodes import ExitCode
    from resweep_scheduler.cli.objects import run_object, to_json
    from resweep_scheduler.cli.options import Failure
    from resweep_scheduler.cli.render import best_of

    store, sweep_id = open_sweep(settings, sweep)
    record = store.sweep(sweep_id)
    if record.metrics:
        _show_front(store, record, number, as_json)
        return
    if record.metric_name is None:
        raise Failure(
            f"the best run is told by `metric:`, and sweep {sweep_id} has none: "
            "add it to the YAML and create the sweep again",
            ExitCode.ILLEGAL_STATE,
        )
    number = number or 1
    best = best_of(store.runs(sweep_id), record.metric_goal)[:number]
    if as_json:
        objects = [run_object(run) for run in best]
        click.echo(to_json(objects if number > 1 else objects[0] if objects else None))
    elif not best:
        notice(f"No run of sweep {sweep_id} has logged a finite {record.metric_name} yet.")
    elif number > 1:
        print_runs(record, best)
    else:
        print_best(record, best[0])


def _show_front(store: Store, sweep: Sweep, number: int | None, as_json: bool) -> None:
    from resweep_scheduler.cli.fronts import front_of
    from resweep_scheduler.cli.objects import run_object, to_json

    front = front_of(store.runs(sweep.sweep_id), sweep.metrics)[:number]
    if as_json:
        click.echo(to_json([run_object(run) for run in front]))
    elif front:
        print_runs(sweep, front)
    else:
        names = " and ".join(name for name, _ in sweep.metrics)
        notice(f"No finished run of sweep {sweep.sweep_id} has logged finite {names} yet.")


def print_best(sweep: Sweep, run: Run) -> None:
    """Print the best run, and how to look at it."""
    from rich.text import Text

    from resweep_scheduler.cli import render

    value = Text(f"{sweep.metric_name} {render.number(run.metric)}", "bold green")
    pairs: list[tuple[str, RenderableType]] = [
        ("best run", Text.assemble((run.run_id, "bold"), "  ", value)),
        ("parameters", render.params_text(run.params)),
    ]
    if run.checkpoint:
        pairs.append(("checkpoint", run.checkpoint.path))
    render.show(render.facts(pairs))


@command(
    "run",
    "resweep run RUN",
    "resweep run RUN --project digits",
    "resweep run RUN --json | jq .summary",
    "resweep run RUN --json | jq '.cost.attempts[] | {agent, ended, lost_seconds}'",
)
@json_option
@run_argument
@store_options
def run_command(settings: Settings, run: str, as_json: bool) -> None:
    """Show one run, its attempts, and what they cost."""
    from resweep_scheduler.accounts import read_run_cost
    from resweep_scheduler.cli.access import open_run
    from resweep_scheduler.cli.costs import attempts_table, run_cost_object
    from resweep_scheduler.cli.objects import event_object, run_object, to_json

    store, record = open_run(settings, run)
    events = []
    if record.sweep_id is not None:
        events = [event for event in store.events(record.sweep_id) if event.run_id == record.run_id]
    cost = read_run_cost(store, record, events, now=store.redis_time())
    if as_json:
        told = {"cost": run_cost_object(cost), "events": [event_object(event) for event in events]}
        click.echo(to_json({**run_object(record), **told}))
        return
    _print_run(store, record, cost)
    if events:
        from resweep_scheduler.cli import render

        if cost.attempts:
            render.show("", attempts_table(cost))
        rows = [
            (
                render.clock_time(event.at),
                str(event.attempt or "–"),
                event.kind,
                event.agent or "–",
                event_detail(event.data),
            )
            for event in events
        ]
        render.show("", render.table(("time", "attempt", "event", "agent", "what"), rows, right=("attempt",)))


def event_detail(data: object) -> str:
    """The data of an event as `name=value` pairs; empty texts tell nothing."""
    from collections.abc import Mapping

    from resweep_scheduler.cli.render import params_text

    if not isinstance(data, Mapping):
        return ""
    return params_text({name: value for name, value in data.items() if value != ""})


def _print_run(store: Store, run: Run, cost: RunCost) -> None:
    from rich.text import Text

    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.costs import run_cost_lines

    now = store.redis_time()
    state = render.state_text(run.state)
    if how := render.ending(run):
        state.append(f" ({how})", "dim")
    pairs: list[tuple[str, RenderableType]] = [
        ("run", Text(run.run_id, "bold")),
        ("project", str(store.scope)),
        ("sweep", run.sweep_id or "none"),
        ("state", state),
        ("attempt", f"{run.attempt}" + (f" on {run.agent}" if run.agent else "")),
        ("step", "–" if run.step is None else str(run.step)),
        ("started", render.ago(run.started_at, now)),
        *(
            run_cost_lines(cost)
            if run.sweep_id
            else [("time", f"{render.duration(run.seconds)} in attempts that ended")]
        ),
    ]
    optional = {
        "name": run.name,
        "group": run.group,
        "tags": " ".join(run.tags),
        "notes": run.notes,
        "parameters": render.params_text(run.params),
        "config": render.params_text(run.config) if run.config != run.params else "",
        "summary": render.params_text(run.summary),
        "checkpoint": run.checkpoint.path if run.checkpoint else "",
        "stop": run.stop,
    }
    pairs += [(name, text) for name, text in optional.items() if text]
    render.show(render.facts(pairs))
