"""Checkpoints on this machine's file system: copied whole or not at all, the last two kept.

    <RESWEEP_CHECKPOINT_DIR, else dir/resweep/checkpoints>/<run id>/step-<step>-attempt-<n>/<name of the file or folder>

A checkpoint is the one to go on from only when Redis has accepted its path under the attempt's claim. So an attempt
that was taken over can copy what it likes: it changes nothing for its successor, whose files it never touches, because
an attempt removes only what attempts up to its own number wrote.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from resweep.errors import UsageError

KEPT = 2
_NAME = re.compile(r"step-(?P<step>\d+|none)-attempt-(?P<attempt>\d+)(?:-(?P<again>\d+))?")
_PARTIAL = ".partial-"
_PARTIAL_NAME = re.compile(rf"{re.escape(_PARTIAL)}(?P<attempt>\d+)-[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint on this machine."""

    path: Path  # of the copied file or folder
    step: int | None
    attempt: int


class CheckpointFolder:
    """The checkpoints of one run, as one attempt writes and reads them."""

    def __init__(self, base: Path, run_id: str, attempt: int) -> None:
        self.folder = base / run_id
        self._attempt = attempt
        self._committed: list[Path] = []  # folders, the newest last
        self._waiting: list[Path] = []  # folders whose commit Redis does not have yet
        self._lock = threading.RLock()  # `committed` is called by the thread that sends

    def store(self, source: Path, step: int | None) -> Path:
        """Copy `source`, a file or a folder, so that it is there whole or not at all; returns the copy.

        Raises:
            UsageError: There is nothing at `source`.
            OSError: It cannot be copied.
        """
        source = source.resolve()
        if not source.exists():
            raise UsageError(
                f"save_checkpoint copies a file or a folder, and {source} does not exist; save it there first"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{_PARTIAL}{self._attempt}-{secrets.token_hex(4)}"
        partial.mkdir()
        try:
            _copy(source, partial / source.name)
            _fsync(partial)
            with self._lock:
                target = self._free_name(step)
                partial.rename(target)
                self._waiting.append(target)
                # During a long outage only the newest copies that wait are worth their room.
                while len(self._waiting) > KEPT:
                    shutil.rmtree(self._waiting.pop(0), ignore_errors=True)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _fsync(self.folder)
        return target / source.name

    def committed(self, path: str) -> None:
        """The copy at `path` is the one to go on from: remove what is older than the last two of this kind."""
        folder = Path(path).parent
        with self._lock:
            if folder in self._waiting:
                del self._waiting[: self._waiting.index(folder) + 1]
            self._committed = [*self._committed, folder][-KEPT:]
            self._remove_others(keep=[*self._committed, *self._waiting])

    def remember(self, path: str) -> None:
        """The copy at `path` is committed already, by an earlier attempt."""
        self._committed = [Path(path).parent]

    def drop(self, path: Path) -> None:
        """Remove a copy that was refused."""
        shutil.rmtree(path.parent, ignore_errors=True)

    def find(self, path: str, step: int | None, attempt: int) -> Found | None:
        """The committed checkpoint if it is on this machine, else the newest older one that is, else None."""
        for candidate in (Path(path), self.folder / Path(path).parent.name / Path(path).name):
            if candidate.exists():
                return Found(candidate, step, attempt)
        older = [
            found
            for found in self._all()
            if found.attempt <= attempt and found.step is not None and (step is None or found.step <= step)
        ]
        return max(older, key=lambda found: (found.step or 0, found.attempt), default=None)

    def _free_name(self, step: int | None) -> Path:
        name = f"step-{'none' if step is None else step}-attempt-{self._attempt}"
        target, again = self.folder / name, 2
        while target.exists():
            target, again = self.folder / f"{name}-{again}", again + 1
        return target

    def _all(self) -> list[Found]:
        found = []
        for folder in _folders(self.folder):
            match = _NAME.fullmatch(folder.name)
            contents = list(folder.iterdir()) if match else []
            if match and len(contents) == 1:
                step = None if match["step"] == "none" else int(match["step"])
                found.append(Found(contents[0], step, int(match["attempt"])))
        return found

    def _remove_others(self, keep: Iterable[Path]) -> None:
        kept = {path.name for path in keep}
        for folder in _folders(self.folder):
            match = _NAME.fullmatch(folder.name) or _PARTIAL_NAME.fullmatch(folder.name)
            if match is None or folder.name in kept:
                continue
            of_attempt = int(match["attempt"])
            being_made = of_attempt == self._attempt and folder.name.startswith(_PARTIAL)
            if of_attempt <= self._attempt and not being_made:
                shutil.rmtree(folder, ignore_errors=True)


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder with all that is in it, links followed, and have it on the disk."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=_dangling)
    else:
        shutil.copy2(source, target)
        _fsync(target)
        return
    for folder, _, names in os.walk(target):
        for name in names:
            _fsync(Path(folder) / name)
        _fsync(Path(folder))


def _dangling(folder: str, names: list[str]) -> list[str]:
    # shutil's own option looks for the targets of relative links in the working directory.
    return [name for name in names if not os.path.exists(os.path.join(folder, name))]


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
