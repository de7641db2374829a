"""What a checkpoint in an object store consists of: ``manifest.json``, the last of its objects to be written.

    <url>/<entity>/<project>/<run id>/step-<step>-attempt-<n>-<random>/manifest.json
                                                                      /files/<name>

The manifest has name, size and digest of every file. So whoever finds it can tell whether the checkpoint is whole; and
it says nothing of whether the checkpoint counts, which Redis knows alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote

VERSION = 1
MANIFEST = "manifest.json"
_DIGEST_LENGTH = 64  # sha256, in hexadecimal


class DamagedError(Exception):
    """A checkpoint that is not there, or not whole, or not what was saved; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class File:
    """One file. `name` is relative to the folder that was saved; for a single file it is the name of that."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint.

    Attributes:
        name: Of the file or folder that was saved.
        folder: Whether it was a folder.
        empty: Folders in it, at any depth, that hold nothing.
    """

    name: str
    folder: bool
    files: tuple[File, ...]
    empty: tuple[str, ...] = ()
    step: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps({"resweep_checkpoint": VERSION, **asdict(self)}, indent=1).encode()

    @classmethod
    def decode(cls, text: bytes) -> Manifest:
        """Read what `encode` wrote.

        Raises:
            DamagedError: It is something else, or names a file that does not belong into the checkpoint's folder.
        """
        try:
            record = json.loads(text)
            version = record.pop("resweep_checkpoint")
            files = tuple(File(**file) for file in record.pop("files"))
            manifest = cls(files=files, empty=tuple(record.pop("empty")), **record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedError(f"its manifest cannot be read ({type(error).__name__})") from None
        if version != VERSION:
            raise DamagedError(f"its manifest is of version {version!r}, and this is version {VERSION}")
        manifest._check()
        return manifest

    def _check(self) -> None:
        names = [file.name for file in self.files]
        bad = [name for name in (*names, *self.empty) if not _is_inside(name)]
        if not _is_inside(self.name) or "/" in self.name:
            bad.append(self.name)
        if bad:
            raise DamagedError(f"its manifest names {bad[0]!r}, which does not lie in the checkpoint's folder")
        if len(set(names)) < len(names) or not (self.folder or names == [self.name]):
            raise DamagedError("its manifest does not name each file once")
        for file in self.files:
            if type(file.size) is not int or file.size < 0 or len(str(file.sha256)) != _DIGEST_LENGTH:
                raise DamagedError(f"its manifest has no size and digest of {file.name!r}")


def _is_inside(name: object) -> bool:
    """Whether a relative name, with ``/`` between its parts, stays in the folder to which it is relative."""
    return isinstance(name, str) and "\0" not in name and all(part not in ("", ".", "..") for part in name.split("/"))


def key_of(name: str) -> str:
    """A relative name as a key: what object stores do not take, or take to be something else, is percent-encoded."""
    return quote(name, safe="/", errors="surrogateescape")
