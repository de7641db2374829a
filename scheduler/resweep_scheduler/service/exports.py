"""What `resweep export` writes: all runs of a sweep, all that they logged, or all that happened to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from resweep_scheduler.store import Store

KINDS: Final = ("jsonl", "csv")


def export_text(store: Store, sweep_id: str, *, what: str, kind: str) -> tuple[str, int]:
    """The text of an export, and how many rows it has.

    Args:
        what: A key of `WHAT`.
        kind: One of `KINDS`.

    Raises:
        ValueError: `what` or `kind` is something else.
        StoreError: Redis does not answer, or refuses, or has no such sweep.
    """
    from resweep_scheduler.cli.logs import csv_text
    from resweep_scheduler.cli.objects import flatten, to_json

    export_name(sweep_id, what, kind)
    store.sweep(sweep_id)
    rows = list(WHAT[what](store, sweep_id))
    if kind == "csv":
        return csv_text([flatten(row) for row in rows]), len(rows)
    return "".join(to_json(row, indent=None) + "\n" for row in rows), len(rows)


def export_name(sweep_id: str, what: str, kind: str) -> str:
    """The name of a file for an export.

    Raises:
        ValueError: `what` or `kind` is not known.
    """
    if what not in WHAT or kind not in KINDS:
        raise ValueError(f"an export is of {', '.join(WHAT)} as {' or '.join(KINDS)}, got {what!r} as {kind!r}")
    return f"{sweep_id}-{what}.{kind}"


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the file and rename, so that a full disk leaves the old one as it was.

    Raises:
        OSError: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


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


WHAT: Final[dict[str, Callable[[Store, str], Iterator[dict[str, Any]]]]] = {
    "runs": _runs,
    "rows": _history,
    "events": _events,
}
