"""`ls`, `show`, `missing`: looking at sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from resweep_scheduler.cli.options import Settings, command, json_option, notice, store_options, sweep_argument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from resweep_scheduler.accounts import SweepCost
    from resweep_scheduler.config import SweepConfig
    from resweep_scheduler.config.stopping import StoppingRule
    from resweep_scheduler.store import Store
    from resweep_scheduler.store.records import AgentRecord, Run, Sweep

NOT_YET = "not yet run"
SHOWN_BANDS = 4
SHOWN_SILENT = 3


@command("ls", "resweep ls", "resweep ls --project digits", "resweep ls --state running --json | jq -r '.[].id'")
@click.option("--state", multiple=True, metavar="STATE", help="Only sweeps in this state; may be repeated.")
@json_option
@store_options
def ls_command(settings: Settings, state: tuple[str, ...], as_json: bool) -> None:
    """List the sweeps, oldest first."""
    from resweep_scheduler.cli.access import all_sweeps
    from resweep_scheduler.cli.objects import sweep_object, to_json
    from resweep_scheduler.store.states import SweepState

    _check_states(state, [member.value for member in SweepState])
    sweeps = [sweep for sweep in all_sweeps(settings) if not state or sweep.state.value in state]
    if as_json:
        click.echo(to_json([sweep_object(sweep) for sweep in sweeps]))
    elif sweeps:
        _print_sweeps(sweeps)
    else:
        notice("No sweeps here. Make one: resweep create FILE, or resweep start FILE")


def _check_states(given: tuple[str, ...], known: list[str]) -> None:
    for state in given:
        if state not in known:
            raise click.UsageError(f"there is no state {state!r}: use {', '.join(known)}.")


def _print_sweeps(sweeps: list[Sweep]) -> None:
    import time

    from resweep_scheduler.cli import render

    now = round(time.time() * 1000)
    rows = [
        (
            sweep.sweep_id,
            render.state_text(sweep.state),
            sweep.scope,
            sweep.name,
            render.counts_text(sweep.counts),
            render.ago(sweep.created_at, now),
        )
        for sweep in sweeps
    ]
    render.show(render.table(("sweep", "state", "project", "name", "runs", "created"), rows))


@command(
    "show",
    "resweep show SWEEP",
    "resweep show SWEEP --config > sweep.yaml   # the YAML it was made from",
    "resweep show SWEEP --json | jq .counts",
    "resweep show SWEEP --json | jq .cost.goodput",
)
@click.option(
    "--config", "only_config", is_flag=True, help="Print the YAML that the sweep was made from, nothing else."
)
@json_option
@sweep_argument
@store_options
def show_command(settings: Settings, sweep: str, as_json: bool, only_config: bool) -> None:
    """Show one sweep.

    State, counts, run queue, agents, best run, missing grid points; attempts, time lost, goodput (docs/goodput.md).
    """
    from resweep_scheduler.accounts import add_up, read_sweep_costs
    from resweep_scheduler.cli.access import config_of, open_sweep
    from resweep_scheduler.cli.objects import to_json

    store, sweep_id = open_sweep(settings, sweep)
    record = store.sweep(sweep_id)
    if only_config:
        click.echo(record.config_text.rstrip("\n"))
        return
    config = config_of(record)
    runs = store.runs(sweep_id)
    cost = add_up(read_sweep_costs(store, runs, store.events(sweep_id), now=store.redis_time()))
    if as_json:
        click.echo(to_json(_sweep_details(store, record, config, runs, cost)))
    else:
        _print_sweep(store, record, config, runs, cost)


def _sweep_details(store: Store, sweep: Sweep, config: SweepConfig, runs: list[Run], cost: SweepCost) -> dict[str, Any]:
    from resweep_scheduler.cli.access import planned_runs
    from resweep_scheduler.cli.costs import sweep_cost_object
    from resweep_scheduler.cli.fronts import front_of
    from resweep_scheduler.cli.objects import agent_object, lease_object, run_object, sweep_object
    from resweep_scheduler.cli.render import best_of

    best = best_of(runs, sweep.metric_goal)
    front = front_of(runs, sweep.metrics) if sweep.metrics else []
    return {
        **sweep_object(sweep),
        "method": config.method,
        "planned": planned_runs(config),
        "missing": _missing_count(config, runs),
        "best": run_object(best[0]) if best else None,
        "front": [run.run_id for run in front],
        "agents": [agent_object(agent) for agent in store.agents(sweep.sweep_id)],
        "leases": [lease_object(lease) for lease in store.leases(sweep.sweep_id)],
        "cost": sweep_cost_object(cost),
        "config": config.model_dump(mode="json"),
    }


def _print_sweep(store: Store, sweep: Sweep, config: SweepConfig, runs: list[Run], cost: SweepCost) -> None:
    from rich.text import Text

    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.access import planned_runs
    from resweep_scheduler.cli.costs import sweep_cost_lines
    from resweep_scheduler.cli.progress import measure

    now = store.redis_time()
    planned = planned_runs(config)
    ends = [run.ended_at for run in runs if run.ended_at and run.state.is_terminal]
    progress = measure(sweep.counts, planned, ends, now)
    state = render.state_text(sweep.state)
    if sweep.reason:
        # Retried runs of an exhausted sweep run again, while its search stays closed.
        state.append(f" ({sweep.reason})" if sweep.state.is_over else f" (no new runs: {sweep.reason})", "dim")
    pairs: list[tuple[str, RenderableType]] = [("sweep", Text(sweep.sweep_id, "bold"))]
    if sweep.name:
        pairs.append(("name", sweep.name))
    pairs += [
        ("project", sweep.scope),
        ("state", state),
        ("search", _search_text(config) + (f", {planned} runs" if planned is not None else ", endless")),
        ("runs", render.counts_text(sweep.counts)),
    ]
    if config.scheduler is not None and not sweep.state.is_over and not store.service(sweep.sweep_id):
        start = f"resweep scheduler {config.scheduler.option}"
        pairs.append(("scheduler", f"none; {start}, or agents with --source, must run"))
    if config.early_terminate is not None:
        pairs.append(("early stop", _stopping_text(config.early_terminate, runs)))
    if planned:
        pairs.append(("progress", render.bar(progress.done, planned).append(f" {progress.done} of {planned}")))
    if sweep.queue:
        pairs.append(("run queue", " ".join(sweep.queue)))
    pairs.append(("agents", _agents_text(store, sweep, now, lease_ms=round(config.lease.duration * 1000))))
    if sweep.metrics:
        from resweep_scheduler.cli.fronts import front_of

        number = len(front_of(runs, sweep.metrics))
        pairs.append(("front", f"{render.counted(number, 'run')} (resweep best {sweep.sweep_id})"))
    elif best := render.best_of(runs, sweep.metric_goal):
        value = f"{sweep.metric_name} {render.number(best[0].metric)}"
        pairs.append(("best", f"{best[0].run_id}  {value}  {render.params_text(best[0].params)}"))
    if missing := _missing_count(config, runs):
        pairs.append(
            ("missing", f"{render.counted(missing, 'grid point')} not finished (resweep missing {sweep.sweep_id})")
        )
    pairs += sweep_cost_lines(cost)
    pairs.append(("created", render.ago(sweep.created_at, now)))
    render.show(render.facts(pairs))


def _search_text(config: SweepConfig) -> str:
    sampler = f" by {config.search.sampler}" if config.search is not None else ""
    if config.scheduler is not None:
        sampler = f" by {' and '.join(config.scheduler.functions.values())} in {config.scheduler.source}"
    learnt = f", with {len(config.priors)} prior runs" if config.priors else ""
    return config.method + sampler + learnt


def _stopping_text(rule: StoppingRule, runs: list[Run]) -> str:
    """Which rule ends weak runs, and how many it ended: their state is killed, as that of runs which a person ended."""
    from resweep_scheduler.cli import render
    from resweep_scheduler.config.stopping import Hyperband, OptunaPruner

    name = f"Optuna's {rule.pruner}" if isinstance(rule, OptunaPruner) else rule.type
    bands = ""
    if isinstance(rule, Hyperband):
        more = ", …" if len(rule.bands) > SHOWN_BANDS else ""
        bands = f" at iterations {', '.join(map(str, rule.bands[:SHOWN_BANDS]))}{more}"
    return f"{name}{bands}, {render.counted(sum(run.stopped for run in runs), 'run')} stopped"


def _agents_text(store: Store, sweep: Sweep, now: int, *, lease_ms: int) -> str:
    from resweep_scheduler.cli import render

    def is_silent(agent: AgentRecord) -> bool:
        # An agent that was killed cannot take leave; who waits is heard more often than a lease lasts.
        return not agent.run_id and now - agent.last_seen > lease_ms

    agents = store.agents(sweep.sweep_id)
    heard = [agent for agent in agents if not is_silent(agent)]
    silent = sorted((agent for agent in agents if is_silent(agent)), key=lambda agent: agent.last_seen, reverse=True)
    lines = [
        f"{agent.agent}  {agent.run_id or does}  seen {render.ago(agent.last_seen, now)}"
        for does, some in (("waits", heard), ("silent", silent[:SHOWN_SILENT]))
        for agent in some
    ]
    if more := silent[SHOWN_SILENT:]:
        lines.append(
            f"and {len(more)} more that took no leave, last seen {render.ago(more[0].last_seen, now)} or before"
        )
    nobody = "none" if sweep.state.is_over else f"none (start one: sweep-agent {sweep.sweep_id})"
    return "\n".join(lines) or nobody


@command("missing", "resweep missing SWEEP", "resweep missing SWEEP --json | jq length", "resweep retry SWEEP --failed")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="At most N points.")
@json_option
@sweep_argument
@store_options
def missing_command(settings: Settings, sweep: str, limit: int | None, as_json: bool) -> None:
    """List the grid points that are not finished.

    They are not yet run, running, waiting, failed, crashed or killed.
    """
    import itertools

    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.access import config_of, open_sweep
    from resweep_scheduler.cli.exitcodes import ExitCode
    from resweep_scheduler.cli.objects import to_json
    from resweep_scheduler.cli.options import Failure

    store, sweep_id = open_sweep(settings, sweep)
    config = config_of(store.sweep(sweep_id))
    if config.method != "grid":
        raise Failure(
            f"only a grid has points to miss, sweep {sweep_id} is {config.method}: `resweep runs {sweep_id}` lists its "
            "runs",
            ExitCode.ILLEGAL_STATE,
        )
    points = list(itertools.islice(_missing(config, store.runs(sweep_id)), limit))
    if as_json:
        click.echo(to_json(points))
    elif points:
        rows = [
            (str(point["index"]), point["run"] or "–", point["state"] or NOT_YET, render.params_text(point["params"]))
            for point in points
        ]
        render.show(render.table(("point", "run", "state", "parameters"), rows, right=("point",)))
    else:
        notice("Nothing is missing: every point of the grid is finished.")


def _missing(config: SweepConfig, runs: list[Run]) -> Iterator[dict[str, Any]]:
    """The planned points that have no finished run, in the order of the grid."""
    from resweep_scheduler.cli.access import planned_runs
    from resweep_scheduler.search import create_search
    from resweep_scheduler.store.states import RunState

    search = create_search(config)
    by_index = {run.index: run for run in runs}
    for index in range(planned_runs(config) or 0):
        run = by_index.get(index)
        if run is None:
            params = search.suggest(first_index=index, count=1)[0]
            yield {"index": index, "run": None, "state": None, "params": params}
        elif run.state is not RunState.FINISHED:
            yield {"index": index, "run": run.run_id, "state": run.state.value, "params": run.params}


def _missing_count(config: SweepConfig, runs: list[Run]) -> int | None:
    """How many planned points of a grid have no finished run; None for other searches."""
    from resweep_scheduler.cli.access import planned_runs
    from resweep_scheduler.store.states import RunState

    if config.method != "grid":
        return None
    return (planned_runs(config) or 0) - sum(run.state is RunState.FINISHED for run in runs)
