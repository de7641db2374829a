"""`pause`, `resume`, `stop`, `cancel`, `retry`, `rm`: telling sweeps and runs what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, Settings, command, notice, store_options, sweep_argument

if TYPE_CHECKING:
    from resweep_scheduler.store import Store
    from resweep_scheduler.store.records import Run


def _tell(settings: Settings, path: str, what: str) -> tuple[str, str]:
    """Send a command to a sweep; returns its id and its state after it."""
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.store.states import SweepCommand

    store, sweep_id = open_sweep(settings, path)
    return sweep_id, store.command_sweep(sweep_id, SweepCommand(what)).value


@command("pause", "resweep pause SWEEP")
@sweep_argument
@store_options
def pause_command(settings: Settings, sweep: str) -> None:
    """Let the agents of a sweep wait.

    Running runs go on, and no new one begins.
    """
    sweep_id, state = _tell(settings, sweep, "pause")
    notice(f"Sweep {sweep_id} is {state}: no run begins. Go on with: resweep resume {sweep_id}")


@command("resume", "resweep resume SWEEP && sweep-agent SWEEP")
@sweep_argument
@store_options
def resume_command(settings: Settings, sweep: str) -> None:
    """Let a sweep go on.

    It may be paused, stopped, canceled or finished.
    """
    sweep_id, state = _tell(settings, sweep, "resume")
    if state == "finished":
        notice(f"Sweep {sweep_id} has nothing left to run. Runs that failed: resweep retry {sweep_id} --failed")
    else:
        notice(f"Sweep {sweep_id} is {state}. Run agents with: sweep-agent {sweep_id}")


@command("stop", "resweep stop SWEEP", "resweep stop --run RUN", "resweep stop --run RUN --run RUN2 --project digits")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Stop this run, not a sweep; may be repeated.")
@click.argument("sweep", metavar="[SWEEP]", required=False)
@store_options
def stop_command(settings: Settings, sweep: str | None, runs: tuple[str, ...]) -> None:
    """Stop a sweep or a run.

    When a sweep is stopped, no run begins, and running ones may end. When a run is stopped, its agent ends it, and its
    state is killed.
    """
    if bool(sweep) == bool(runs):
        raise click.UsageError("give a sweep, or runs with --run.")
    if sweep:
        sweep_id, state = _tell(settings, sweep, "stop")
        notice(f"Sweep {sweep_id} is {state}: running runs may end. Go on with: resweep resume {sweep_id}")
    named = _open_runs(settings, runs)
    for _, record in named:
        if record.state.is_terminal:
            raise Failure(
                f"run {record.run_id} is {record.state.value}, so there is nothing to stop: `resweep runs` lists the "
                "running ones",
                ExitCode.ILLEGAL_STATE,
            )
    for store, record in named:
        state = store.stop_run(record.run_id, reason="stopped by user")
        name = f"Run {record.run_id}"
        notice(f"{name}: its agent was told to end it." if state.is_owned else f"{name} is killed.")


def _open_runs(settings: Settings, paths: tuple[str, ...]) -> list[tuple[Store, Run]]:
    """Find all runs that are named, so that a wrong name is told before anything is changed."""
    from resweep_scheduler.cli.access import open_run

    return [open_run(settings, path) for path in dict.fromkeys(paths)]


@command("cancel", "resweep cancel SWEEP")
@sweep_argument
@store_options
def cancel_command(settings: Settings, sweep: str) -> None:
    """Cancel a sweep, and kill its running runs.

    They get SIGTERM, the grace time of the config, then SIGKILL.
    """
    sweep_id, state = _tell(settings, sweep, "cancel")
    notice(f"Sweep {sweep_id} is {state}: running runs are being killed. Go on with: resweep resume {sweep_id}")


@command(
    "retry",
    "resweep retry SWEEP --failed --crashed",
    "resweep retry SWEEP RUN RUN2",
    "resweep retry SWEEP --failed && sweep-agent SWEEP",
)
@click.option("--failed", is_flag=True, help="All runs that failed.")
@click.option("--crashed", is_flag=True, help="All runs that crashed.")
@click.option("--killed", is_flag=True, help="All runs that were killed.")
@sweep_argument
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@store_options
def retry_command(
    settings: Settings, *, sweep: str, runs: tuple[str, ...], failed: bool, crashed: bool, killed: bool
) -> None:
    """Put runs back on the run queue.

    They keep their id, parameters, history and checkpoint. A sweep that is over runs again for them.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.store.states import RunState

    wanted = {
        state
        for state, given in ((RunState.FAILED, failed), (RunState.CRASHED, crashed), (RunState.KILLED, killed))
        if given
    }
    if not wanted and not runs:
        raise click.UsageError("say what to retry: --failed, --crashed, --killed, or ids of runs.")
    store, sweep_id = open_sweep(settings, sweep)
    known = {run.run_id: run for run in store.runs(sweep_id)}
    _check_retry(sweep_id, runs, known)
    chosen = list(dict.fromkeys([*runs, *(run.run_id for run in known.values() if run.state in wanted)]))
    done = list(store.retry_runs(sweep_id, chosen)) if chosen else []
    for run_id in done:
        click.echo(run_id)
    if done:
        notice(f"{len(done)} on the run queue of sweep {sweep_id}. Run agents with: sweep-agent {sweep_id}")
    else:
        notice(f"Sweep {sweep_id} has no such runs: nothing to retry.")


def _check_retry(sweep_id: str, asked: tuple[str, ...], known: dict[str, Run]) -> None:
    """Refuse runs that are named and cannot be retried, before anything is changed."""
    from resweep_scheduler.store.states import RunState

    for run_id in asked:
        if run_id not in known:
            raise Failure(
                f"sweep {sweep_id} has no run {run_id!r}: `resweep runs {sweep_id}` lists its runs", ExitCode.UNKNOWN
            )
        state = known[run_id].state
        if state is RunState.FINISHED or not state.is_terminal:
            raise Failure(
                f"only failed, crashed and killed runs can be retried, run {run_id} is {state.value}: leave it out",
                ExitCode.ILLEGAL_STATE,
            )


@command("rm", "resweep rm SWEEP", "resweep rm -y SWEEP", "resweep rm -y SWEEP --background", "resweep rm --run RUN")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Remove this run, not a sweep; may be repeated.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--background", is_flag=True, help="Let `resweep scheduler` do it, and do not wait.")
@click.argument("sweep", metavar="[SWEEP]", required=False)
@store_options
def rm_command(settings: Settings, *, sweep: str | None, runs: tuple[str, ...], yes: bool, background: bool) -> None:
    """Remove a sweep or runs from Redis.

    Files of runs and checkpoints stay.
    """
    from resweep_scheduler.cli.access import open_sweep

    if bool(sweep) == bool(runs):
        raise click.UsageError("give a sweep, or runs with --run.")
    if background and runs:
        raise click.UsageError("--background is for sweeps.")
    if sweep:
        store, sweep_id = open_sweep(settings, sweep)
        _remove_sweep(store, sweep_id, yes, background=background)
    named = _open_runs(settings, runs)
    for _, record in named:
        if record.state.is_owned:
            raise Failure(
                f"run {record.run_id} is {record.state.value}, and its agent would lose it: stop it first "
                f"(resweep stop --run {record.run_id})",
                ExitCode.ILLEGAL_STATE,
            )
    if named:
        list_of_runs = ", ".join(f"{record.run_id} ({record.state.value})" for _, record in named)
        _confirm(f"Remove run{'s' if len(named) > 1 else ''} {list_of_runs}?", yes)
    for store, record in named:
        if not store.remove_runs([record.run_id]):
            raise Failure(
                f"run {record.run_id} began to run meanwhile, and stays: stop it first", ExitCode.ILLEGAL_STATE
            )
        notice(f"Removed run {record.run_id}.")


def _remove_sweep(store: Store, sweep_id: str, yes: bool, *, background: bool) -> None:
    record = store.sweep(sweep_id)
    if owned := sum(count for state, count in record.counts.items() if state.is_owned):
        # The store refuses too, but only after it has removed the other runs.
        raise Failure(
            f"{owned} of its runs are running, so sweep {sweep_id} is not removed: cancel it first "
            f"(resweep cancel {sweep_id})",
            ExitCode.ILLEGAL_STATE,
        )
    _confirm(f"Remove sweep {sweep_id} ({record.state.value}) with {sum(record.counts.values())} runs?", yes)
    if background:
        from resweep_scheduler.cli.background import ask_for

        ask_for(store, "remove", sweep_id)
        return
    store.remove_sweep(sweep_id)
    notice(f"Removed sweep {sweep_id}.")


def _confirm(question: str, yes: bool) -> None:
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: give --yes.")
    if not click.confirm(question, err=True):
        raise Failure("nothing was removed", ExitCode.INTERRUPTED)
