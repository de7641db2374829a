"""The record of a run's checkpoints, as ``commit_checkpoint`` stores it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What ``save_checkpoint`` committed last, and what it keeps besides.

    Attributes:
        path: A file or folder, or a URL.
        step: The step that it completes; None when nothing was logged before.
        saved_at: ms on the Redis clock.
        metadata: What the script said of it; empty for those in `kept`.
        kept: The ones before it that are kept, newest first.
    """

    path: str
    step: int | None
    attempt: int
    saved_at: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    kept: tuple[Checkpoint, ...] = ()


def decode_checkpoint(text: str | None) -> Checkpoint | None:
    """A checkpoint with those that are kept; None where none was committed."""
    return _decode(json.loads(text)) if text else None


def _decode(record: Mapping[str, Any]) -> Checkpoint:
    step = record.get("step")
    return Checkpoint(
        path=record["path"],
        step=None if step is None else int(step),
        attempt=int(record["attempt"]),
        saved_at=int(record["saved_at"]),
        metadata=json.loads(record.get("metadata") or "{}"),
        kept=tuple(_decode(older) for older in record.get("kept") or ()),
    )
