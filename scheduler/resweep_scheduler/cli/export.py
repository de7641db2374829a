"""`export`: all runs of a sweep, all that they logged, or all that happened to it, as JSON lines or CSV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, Settings, command, notice, store_options, sweep_argument

if TYPE_CHECKING:
    from resweep_scheduler.store import Store


@command(
    "export",
    "resweep export SWEEP > runs.jsonl",
    "resweep export SWEEP --format csv -o runs.csv",
    "resweep export SWEEP --history --format csv -o history.csv",
    "resweep export SWEEP --events | jq -r '[.at, .run, .kind] | @tsv'",
)
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv"]), default="jsonl", show_default=True)
@click.option(
    "--history", "what", flag_value="rows", default=None, help="Every row that every run logged, not one line per run."
)
@click.option(
    "--events", "what", flag_value="events", help="All that happened, in its order: claims, ends, requeues and so on."
)
@click.option("-o", "--output", metavar="FILE", help="Write this file; it is replaced when all is written.")
@sweep_argument
@store_options
def export_command(settings: Settings, sweep: str, kind: str, what: str | None, output: str | None) -> None:
    """Export a sweep as JSON lines or CSV.

    In CSV, nested names are joined by dots: params.lr, summary.loss.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.cli.logs import csv_text
    from resweep_scheduler.cli.objects import flatten, to_json

    store, sweep_id = open_sweep(settings, sweep)
    store.sweep(sweep_id)
    read = {None: _runs, "rows": _history, "events": _events}[what]
    rows = list(read(store, sweep_id))
    if kind == "csv":
        text = csv_text([flatten(row) for row in rows])
    else:
        text = "".join(to_json(row, indent=None) + "\n" for row in rows)
    if output is None:
        click.echo(text, nl=False)
        return
    _write(Path(output), text)
    notice(f"Wrote {len(rows)} {what or 'runs'} to {output}")


def _runs(store: Store, sweep_id: str) -> Iterator[dict[str, Any]]:
    from resweep_scheduler.cli.objects import run_object

    for run in store.runs(sweep_id):
        yield run_object(run)


def _history(store: Store, sweep_id: str) -> Iterator[dict[str, Any]]:
    from resweep_scheduler.cli.objects import row_object

    for run in store.runs(sweep_id):
        for row in store.history(run.run_id):
            yield {"run": run.run_id, **row_object(row)}


def _events(store: Store, sweep_id: str) -> Iterator[dict[str, Any]]:
    from resweep_scheduler.cli.objects import event_object

    for event in store.events(sweep_id):
        yield event_object(event)


def _write(path: Path, text: str) -> None:
    """Write beside the file and rename, so that a full disk leaves the old one as it was."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8", errors="replace")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Failure(f"{path} cannot be written ({error.strerror}): choose another file", ExitCode.USAGE) from error
