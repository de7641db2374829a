"""`start`: create a sweep (or take an existing one), run agents here, show what happens, and the best run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import (
    Failure,
    Settings,
    command,
    error_line,
    notice,
    source_option,
    store_options,
    warning_line,
)

if TYPE_CHECKING:
    from resweep_scheduler.cli.local_agents import LocalAgents
    from resweep_scheduler.cli.monitor import Monitor
    from resweep_scheduler.cli.view import View
    from resweep_scheduler.config import SweepConfig
    from resweep_scheduler.store import Store

REFRESH = 0.3
"""Seconds between two pictures."""

GRACE_MARGIN = 15.0
"""Seconds that agents have to report, after the grace time of their runs."""

DIRECTORY = "resweep-runs"


@command(
    "start",
    "resweep start configs/quickstart.yaml",
    "resweep start sweep.yaml --agents 4",
    "resweep start SWEEP      # go on with a sweep, for instance after Ctrl-C",
)
@click.option("--agents", type=click.IntRange(min=1), metavar="N", help="Local agents. [default: 2, or 1 on one CPU]")
@click.option("--name", metavar="NAME", help="Name of the sweep, in place of the config's `name`.")
@click.option("--program", metavar="PROGRAM", help="Script that is run, in place of the config's `program`.")
@click.option("--dir", "directory", default=DIRECTORY, show_default=True, metavar="DIR", help="Where outputs go.")
@click.option("--wandb", is_flag=True, help="Have scripts that use `wandb` log here (docs/wandb.md).")
@source_option
@click.argument("what", metavar="FILE|SWEEP")
@store_options
def start_command(
    settings: Settings, *, what: str, agents: int | None, name: str | None, program: str | None, directory: str,
    sources: tuple[Path, ...], wandb: bool,
) -> None:  # fmt: skip
    """Create a sweep and run it here.

    Starts a few agents, shows the progress and the best run. Given the id of a sweep, goes on with it. Ctrl-C ends the
    agents; their runs go back on the run queue. Ends with 0 when the sweep is finished, with 9 when it is and some runs
    failed. The file that scheduler.source of a FILE names is executed; for a SWEEP name it again with --source.
    """
    from resweep_scheduler.cli.monitor import Monitor

    store, sweep_id, sources = _sweep_of(settings, what, name, program, sources)
    monitor = Monitor(store, sweep_id)
    if not _worth_starting(monitor):
        _conclude(monitor)
    _warn_of_others(monitor, sources)
    number = agents or min(2, os.cpu_count() or 1)
    with _signals() as received:
        code = _run_here(
            settings,
            store,
            monitor,
            number=number,
            directory=Path(directory),
            sources=sources,
            wandb=wandb,
            received=received,
        )
    if code is not None:
        raise click.exceptions.Exit(code)
    _conclude(monitor)


def _sweep_of(
    settings: Settings, what: str, name: str | None, program: str | None, sources: tuple[Path, ...]
) -> tuple[Store, str, tuple[Path, ...]]:
    """The sweep that `what` names, and the files that its agents may execute for the search.

    A file makes a new sweep, and its user trusts what it names; anything else is the path of an existing one.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.cli.create import STANDARD_INPUT, create_from, load_config, missing_program

    if not (what == STANDARD_INPUT or what.endswith((".yaml", ".yml")) or Path(what).is_file()):
        if name or program:
            raise click.UsageError("--name and --program belong to a new sweep, made from a YAML file.")
        return *open_sweep(settings, what), sources
    config, text = load_config(what, name=name, program=program)
    if missing := missing_program(config, what):
        raise Failure(missing, ExitCode.COMMAND_NOT_FOUND)
    sources = _with_source(config, sources)
    for warning in config.warnings:
        warning_line(warning)
    store, sweep_id = create_from(settings, config, text)
    notice(f"Created sweep {sweep_id} from {what}")
    return store, sweep_id, sources


def _with_source(config: SweepConfig, sources: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files that were given, and the one that the config names."""
    if config.scheduler is None or any(source.name == config.scheduler.file for source in sources):
        return sources
    source = Path(config.scheduler.source)
    if not source.is_file():
        raise Failure(
            f"the source {str(source)!r} is not in {os.getcwd()}: call from its folder, or add --source FILE",
            ExitCode.COMMAND_NOT_FOUND,
        )
    return (*sources, source)


def _warn_of_others(monitor: Monitor, sources: tuple[Path, ...]) -> None:
    """Say when the search is left to others, because its file was not named."""
    from resweep_scheduler.cli.access import config_of

    source = config_of(monitor.sweep).scheduler
    if source is not None and all(file.name != source.file for file in sources):
        warning_line(
            f"the search is in {source.source}, which these agents do not execute: they wait for "
            f"`resweep scheduler {source.option}`; or add {source.option} here"
        )


def _worth_starting(monitor: Monitor) -> bool:
    """Whether agents would find work; raises Failure when a person has to let the sweep go on first."""
    from resweep_scheduler.store.states import SweepState

    sweep = monitor.sweep
    by_hand = sweep.state is SweepState.FINISHED and sweep.reason == "stopped"
    if sweep.state in (SweepState.PAUSED, SweepState.CANCELED) or by_hand:
        state = "stopped" if by_hand else sweep.state.value
        raise Failure(
            f"sweep {sweep.sweep_id} is {state}, so agents would get nothing: "
            f"`resweep resume {sweep.sweep_id}` lets it go on",
            ExitCode.ILLEGAL_STATE,
        )
    return not sweep.state.is_over


def _run_here(
    settings: Settings,
    store: Store,
    monitor: Monitor,
    *,
    number: int,
    directory: Path,
    sources: tuple[Path, ...],
    wandb: bool,
    received: list[int],
) -> ExitCode | None:
    """Run agents until the sweep is over; returns an exit code when it did not come to that."""
    from resweep_scheduler.cli.access import store_url
    from resweep_scheduler.cli.local_agents import LocalAgents
    from resweep_scheduler.cli.render import counted
    from resweep_scheduler.cli.view import View

    sweep = monitor.sweep
    path = f"{store.scope}/{sweep.sweep_id}"
    logs = directory / sweep.sweep_id
    arguments = [
        "--dir", str(directory), *(word for source in sources for word in ("--source", str(source))),
        *(["--wandb"] if wandb else []),
    ]  # fmt: skip
    agents = LocalAgents(number, path, url=store_url(settings), logs=logs, arguments=arguments)
    total = "endless, Ctrl-C ends it" if monitor.planned is None else counted(monitor.planned, "run")
    notice(f"{counted(number, 'agent')}, {total}; output of the runs in {logs}")
    try:
        with View(monitor) as view:
            while agents.alive() and not received:
                view.update(monitor.step(REFRESH))
            if received:
                return _end_early(agents, monitor, view, received)
            view.update(monitor.step(0.001))
    finally:
        agents.end(GRACE_MARGIN)
    for _, line in agents.troubles():
        warning_line(line)
    if monitor.sweep.state.is_over:
        return None
    error_line(f"all agents ended before the sweep did: {_how_to_go_on(monitor)}")
    return next((code for code, _ in agents.troubles()), ExitCode.UNEXPECTED)


def _end_early(agents: LocalAgents, monitor: Monitor, view: View, received: list[int]) -> ExitCode:
    """End the agents as a notice would, at once when it is asked for again."""
    from resweep_scheduler.cli.access import config_of

    interrupted = received[0] == signal.SIGINT
    view.say("Ending the agents; their runs go back on the run queue. Once more ends them at once.")
    agents.notify()
    deadline = time.monotonic() + config_of(monitor.sweep).preemption.grace + GRACE_MARGIN
    while agents.alive() and len(received) == 1 and time.monotonic() < deadline:
        view.update(monitor.step(REFRESH))
    if agents.alive():
        agents.kill()
        view.say("The agents were killed: their runs go back on the run queue when their leases run out.")
    view.update(monitor.step(0.001))
    view.tell_state()
    notice(f"Nothing is lost. {_how_to_go_on(monitor)[0].upper()}{_how_to_go_on(monitor)[1:]}")
    return ExitCode.INTERRUPTED if interrupted else ExitCode.PREEMPTED


def _how_to_go_on(monitor: Monitor) -> str:
    from resweep_scheduler.cli.access import config_of

    source = config_of(monitor.sweep).scheduler
    return f"go on with: resweep start {monitor.sweep.sweep_id}{f' {source.option}' if source else ''}"


def _conclude(monitor: Monitor) -> None:
    """Print how the sweep ended and its best run, and end with the exit code for it."""
    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.runs import print_best
    from resweep_scheduler.cli.view import View
    from resweep_scheduler.store.states import SweepState

    sweep = monitor.sweep
    render.show("")
    View(monitor).tell_state()
    if best := monitor.best():
        print_best(sweep, best)
    elif sweep.metrics:
        notice(f"The runs that no other beats in all goals: resweep best {sweep.sweep_id}")
    notice(f"\nLook closer: resweep show {sweep.sweep_id}, resweep runs {sweep.sweep_id}")
    if sweep.state is SweepState.CANCELED:
        raise click.exceptions.Exit(ExitCode.ILLEGAL_STATE)
    if unsuccessful := monitor.unsuccessful():
        notice(
            f"{render.counted(unsuccessful, 'run')} failed or crashed; to try again: "
            f"resweep retry {sweep.sweep_id} --failed --crashed && resweep start {sweep.sweep_id}"
        )
        raise click.exceptions.Exit(ExitCode.RUNS_FAILED)
    raise click.exceptions.Exit(ExitCode.OK)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT, SIGTERM and SIGHUP in a list, in place of dying from them."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread gets signals, and may set handlers
        return
    # What is ignored stays ignored: nohup and `&` in scripts ask for that.
    everything = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in everything if signal.getsignal(number) is not signal.SIG_IGN]
    before = {
        number: signal.signal(number, lambda received_number, _: received.append(received_number)) for number in numbers
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
