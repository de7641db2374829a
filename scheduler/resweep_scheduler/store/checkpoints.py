"""The record of a run's checkpoints, as ``commit_checkpoint`` stores it, and the URLs under which they can be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

CHECKPOINT_SCHEMES: Final = ("s3", "gs", "az", "file", "memory")
CHECKPOINT_URL_PATTERN: Final = r"^((s3|gs|az)://[^/@?#]+(/[^?#]*)?|file:///[^?#]*|memory://[^@?#]*)$"
_MEANT: Final = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az", "adl": "az"}


class UrlFault(NamedTuple):
    """Why a URL cannot be one for checkpoints: the rule, what to show of the URL, and what to write instead."""

    rule: str
    shown: str
    cure: str


def checkpoint_url_fault(url: str) -> UrlFault | None:
    """What is wrong with a URL for checkpoints; None for a good one.

    URLs are stored in Redis and shown to people, so there is no room for a secret in them.
    """
    bare = url.partition("#")[0].partition("?")[0]
    scheme, separator, rest = bare.partition("://")
    host, _, _ = rest.rpartition("@") if "@" in rest.partition("/")[0] else ("", "", "")
    shown = f"{scheme}://…@{rest.rpartition('@')[2]}" if host else bare
    if not separator or scheme not in CHECKPOINT_SCHEMES:
        known = ", ".join(f"{name}://" for name in CHECKPOINT_SCHEMES)
        meant = _MEANT.get(scheme, "s3")
        cure = f"Write for instance {meant}://bucket/folder, or file:///folder for a folder."
        return UrlFault(f"must begin with one of {known}", shown, cure)
    if host:
        cure = "Take them out, and set them in the environment of the agents, as the provider's own tools have them."
        return UrlFault("must have no user and password: it is stored in Redis", shown, cure)
    if url != bare:
        cure = "End it before; options and keys are set in the environment, for instance AWS_ENDPOINT_URL."
        return UrlFault("must have no ? and no #", shown, cure)
    if scheme == "file" and not rest.startswith("/"):
        return UrlFault("must name a folder from the root on", shown, f"Write file:///{rest or 'folder'}.")
    if scheme in ("s3", "gs", "az") and not rest.partition("/")[0]:
        return UrlFault("must name a bucket", shown, f"Write {scheme}://bucket/folder.")
    return None


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
