"""Which client of a run a request comes from.

The protocol carries no attempt. But a client appends its lines where the server says that the run's lines end, and
sends the number of the first one with each request. So the server says that they end at ``writer * SPAN``, and every
line tells which writer, that is which beginning of the run, it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from resweep_scheduler.store.gateway import Seat

SPAN = 1_000_000_000
"""Lines of one writer, at most; a client that was told nothing counts from 0."""

HISTORY = "wandb-history.jsonl"
SUMMARY = "wandb-summary.json"
OUTPUT = "output.log"
EVENTS = "wandb-events.jsonl"
_COUNTED = (HISTORY, OUTPUT, EVENTS)


def first_line(writer: int) -> int:
    """The number of a writer's first line."""
    return writer * SPAN


def marked_writer(files: Mapping[str, Any]) -> int | None:
    """The writer by the numbers of the lines in a request; None when nothing in it has a number that tells."""
    offsets = (part.get("offset") for name in _COUNTED if isinstance(part := files.get(name), Mapping))
    numbers: Iterable[int] = (offset // SPAN for offset in offsets if isinstance(offset, int))
    return max((number for number in numbers if number > 0), default=None)


def is_current(seat: Seat, marked: int | None) -> bool:
    """Whether a request comes from the client that may write; one without a mark is given the benefit of the doubt."""
    return seat.has_writer and marked in (None, seat.writer)
