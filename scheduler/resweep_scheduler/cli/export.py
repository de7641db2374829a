"""`export`: all runs of a sweep, all that they logged, or all that happened to it, as JSON lines or CSV."""

from __future__ import annotations

from pathlib import Path

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, Settings, command, notice, store_options, sweep_argument


@command(
    "export",
    "resweep export SWEEP > runs.jsonl",
    "resweep export SWEEP --format csv -o runs.csv",
    "resweep export SWEEP --history --format csv -o history.csv",
    "resweep export SWEEP --events | jq -r '[.at, .run, .kind] | @tsv'",
    "resweep export SWEEP --history --background",
)
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option(
    "--history", "what", flag_value="rows", default=None, help="Every row that every run logged, not one line per run."
)
@click.option(
    "--events", "what", flag_value="events", help="All that happened, in its order: claims, ends, requeues and so on."
)
@click.option("--background", is_flag=True, help="Let `resweep scheduler` write it, on its machine, and do not wait.")
@click.option("-o", "--output", metavar="FILE", help="Write this file; it is replaced when all is written.")
@sweep_argument
@store_options
def export_command(
    settings: Settings, *, sweep: str, kind: str, what: str | None, output: str | None, background: bool
) -> None:
    """Export a sweep as JSON lines or CSV.

    In CSV, nested names are joined by dots: params.lr, summary.loss.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.service.exports import export_text, write_text

    if background and output:
        raise click.UsageError("--background writes into the scheduler's folder for exports: leave -o out.")
    store, sweep_id = open_sweep(settings, sweep)
    what = what or "runs"
    if background:
        from resweep_scheduler.cli.background import ask_for

        store.sweep(sweep_id)
        ask_for(store, "export", sweep_id, what, kind)
        return
    text, count = export_text(store, sweep_id, what=what, kind=kind)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        write_text(Path(output), text)
    except OSError as error:
        raise Failure(f"{output} cannot be written ({error.strerror}): choose another file", ExitCode.USAGE) from error
    notice(f"Wrote {count} {what} to {output}")
