"""`logs` and `history`: what a run printed, and what it logged."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from resweep_scheduler.cli.options import Settings, command, json_option, notice, run_argument, store_options

if TYPE_CHECKING:
    from resweep_scheduler.store import Store
    from resweep_scheduler.store.records import OutputChunk

POLL = 0.5
"""Seconds between two looks of `logs -f`."""
_HIDDEN = ("_timestamp", "_attempt", "_runtime")
"""Columns that a table does not show: when a row was logged, and by whom; W&B's client sends the time, too."""


@command("logs", "resweep logs RUN", "resweep logs RUN -f", "resweep logs RUN --attempt 1")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run ends.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only what this attempt printed.")
@json_option
@run_argument
@store_options
def logs_command(settings: Settings, run: str, follow: bool, attempt: int | None, as_json: bool) -> None:
    """Print the end of a run's output.

    The last pieces that its agents sent, from wherever you are. The whole output of each attempt is a file on the
    machine that ran it.
    """
    from resweep_scheduler.cli.access import open_run
    from resweep_scheduler.cli.objects import to_json

    store, record = open_run(settings, run)
    chunks = _of_attempt(store.output(record.run_id), attempt)
    if as_json:
        if follow:
            raise click.UsageError("--json prints what there is at once: leave out --follow.")
        click.echo(to_json([{"attempt": chunk.attempt, "text": chunk.text} for chunk in chunks]))
        return
    if not chunks and not follow:
        notice(f"Run {record.run_id} has printed nothing{f' in attempt {attempt}' if attempt else ''}.")
    last = _print_chunks(chunks, 0)
    if follow:
        _follow(store, record.run_id, attempt, chunks, last)


def _of_attempt(chunks: Sequence[OutputChunk], attempt: int | None) -> list[OutputChunk]:
    return [chunk for chunk in chunks if attempt is None or chunk.attempt == attempt]


def _print_chunks(chunks: Sequence[OutputChunk], last_attempt: int) -> int:
    """Print chunks, with a line on stderr where another attempt begins; return the last attempt."""
    for chunk in chunks:
        if last_attempt and chunk.attempt != last_attempt:
            sys.stdout.flush()
            notice(f"--- attempt {chunk.attempt} ---")
        last_attempt = chunk.attempt
        click.echo(chunk.text, nl=False)
    return last_attempt


def _follow(store: Store, run_id: str, attempt: int | None, chunks: Sequence[OutputChunk], last: int) -> None:
    import time

    after = chunks[-1].chunk_id if chunks else "0"
    while True:
        # The state is read first: what was printed before the end is read after it, so nothing is left behind.
        ended = store.run(run_id).state.is_terminal
        fresh = store.output(run_id, after=after)
        after = fresh[-1].chunk_id if fresh else after
        last = _print_chunks(_of_attempt(fresh, attempt), last)
        if ended:
            return
        if not fresh:
            time.sleep(POLL)


@command(
    "history",
    "resweep history RUN",
    "resweep history RUN --key loss --key accuracy --tail 20",
    "resweep history RUN --format csv > history.csv",
)
@click.option("--key", "keys", multiple=True, metavar="NAME", help="Only this column; may be repeated.")
@click.option("--tail", type=click.IntRange(min=1), metavar="N", help="Only the last N steps.")
@click.option("--format", "kind", type=click.Choice(["table", "jsonl", "csv"]), default="table", show_default=True)
@json_option
@run_argument
@store_options
def history_command(
    settings: Settings, *, run: str, keys: tuple[str, ...], tail: int | None, kind: str, as_json: bool
) -> None:
    """Print what a run logged.

    One row per step; where attempts overlap, the later one's row counts.
    """
    from resweep_scheduler.cli.access import open_run
    from resweep_scheduler.cli.objects import flatten, row_object, to_json

    store, record = open_run(settings, run)
    rows = [row_object(row) for row in store.history(record.run_id)]
    if keys:
        rows = [{name: row[name] for name in ("_step", *keys) if name in row} for row in rows]
        rows = [row for row in rows if len(row) > 1]
    rows = rows[-tail:] if tail else rows
    if as_json:
        click.echo(to_json(rows))
    elif kind == "jsonl":
        for row in rows:
            click.echo(to_json(row, indent=None))
    elif kind == "csv":
        click.echo(csv_text([flatten(row) for row in rows]), nl=False)
    elif rows:
        _print_rows([flatten(row) for row in rows])
    else:
        notice(f"Run {record.run_id} has logged nothing{' under these keys' if keys else ''}.")


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as CSV: a column for every name that occurs, in the order of the first occurrence."""
    from resweep_scheduler.cli.objects import plain, to_json

    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        return ""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = {name: plain(value) for name, value in row.items()}
        writer.writerow(
            {
                name: to_json(value, indent=None) if isinstance(value, list | dict | bool) else value
                for name, value in cells.items()
            }
        )
    return out.getvalue()


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    from resweep_scheduler.cli import render

    columns = list(dict.fromkeys(name for row in rows for name in row if name not in _HIDDEN))
    attempts = len({row.get("_attempt") for row in rows}) > 1
    if attempts:
        columns.insert(1, "_attempt")
    cells = [["" if name not in row else render.number(row[name]) for name in columns] for row in rows]
    titles = [{"_step": "step", "_attempt": "attempt"}.get(name, name) for name in columns]
    render.show(render.table(titles, cells, right=titles))
