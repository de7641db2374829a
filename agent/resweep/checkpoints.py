"""Checkpoints on this machine's file system: copied whole or not at all, the last ones kept.

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
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resweep.notes import Notes
from resweep.saving import Found, Saving, existing, folder_name, superseded
from resweep.spill import Commit

if TYPE_CHECKING:
    from resweep.offline import Channel
    from resweep_scheduler.store import Checkpoint

KEPT = 2
MARK_TIMEOUT = 5.0  # seconds
_NAME = re.compile(r"step-(?P<step>\d+|none)-attempt-(?P<attempt>\d+)(?:-(?P<again>\d+))?")
_PARTIAL = ".partial-"
_PARTIAL_NAME = re.compile(rf"{re.escape(_PARTIAL)}(?P<attempt>\d+)-[0-9a-f]+")


class CheckpointFolder:
    """The checkpoints of one run in a folder, as one attempt writes and reads them.

    Args:
        base: The folder for checkpoints of all runs.
        keep: How many are kept.
        commit_timeout: Seconds to wait until Redis has a commit.
    """

    def __init__(
        self,
        base: Path,
        run_id: str,
        attempt: int,
        *,
        keep: int = KEPT,
        notes: Notes | None = None,
        commit_timeout: float = MARK_TIMEOUT,
    ) -> None:
        self.folder = base / run_id
        self._run_id = run_id
        self._attempt = attempt
        self._keep = keep
        self._notes = notes or Notes()
        self._commit_timeout = commit_timeout
        self._channel: Channel
        self._last: Checkpoint | None = None  # what was committed before this attempt
        self._waiting: list[Path] = []  # folders whose commit Redis does not have yet, as far as is known here
        self._tried: set[Path] = set()  # those of them that Redis was asked to name
        self._lock = threading.RLock()  # `committed` is called by the thread that sends

    def begin(self, channel: Channel, committed: Checkpoint | None) -> None:
        """See `Checkpoints`."""
        self._channel = channel
        self._last = committed

    def save(self, source: Path, step: int | None, metadata: dict[str, Any], *, wait: bool) -> Saving:
        """Copy it, in any case before this returns, and have it committed."""
        copy = self.store(source, step)
        commit = Commit(str(copy), step, metadata, keep=self._keep)
        ticket = self._channel.commit(commit, self._commit_timeout if wait else 0.0)
        if ticket.granted is False:
            self.drop(copy)
        saving = Saving(source if ticket.granted is False else copy, step)
        saving.handed_over(ticket)
        return saving

    def restore(self) -> Found | None:
        """The one that was committed last. If that one is not on this machine, an older one that is, with a warning."""
        if self._last is None:
            return None
        committed = self._last
        found = self.find(committed.path, committed.step, committed.attempt)
        if found is None or found.step != committed.step:
            instead = "starting without one" if found is None else f"going on from {found.path}, step {found.step}"
            self._notes.once(
                "restore",
                f"run {self._run_id}: the checkpoint {committed.path} (step {committed.step}) is not on this machine, "
                f"{instead}; set RESWEEP_CHECKPOINT_DIR to a folder that all machines share, or RESWEEP_CHECKPOINT_URL",
            )
        return found

    def is_there(self, path: str) -> bool:
        """See `Checkpoints`."""
        with self._lock:  # so that it is not removed between the look and the mark
            if not os.path.exists(path):
                return False
            self._tried.add(Path(path).parent)
            return True

    def finish(self, timeout: float) -> None:
        """Nothing is on its way."""

    def store(self, source: Path, step: int | None) -> Path:
        """Copy `source`, a file or a folder, so that it is there whole or not at all; returns the copy.

        Raises:
            UsageError: There is nothing at `source`.
            OSError: It cannot be copied.
        """
        source = existing(source)
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self._partial()
        partial.mkdir()
        try:
            copy_to(source, partial / source.name)
            _fsync_all(partial)
            with self._lock:
                target = self._free_name(step)
                partial.rename(target)
                self._waiting.append(target)
                for late in superseded(self._waiting, self._keep, self._tried):
                    self._waiting.remove(late)
                    self._remove(late)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _fsync(self.folder)
        return target / source.name

    def committed(self, path: str, kept: Sequence[str]) -> None:
        """The copy at `path` is the one to go on from: remove what is not kept."""
        folder = Path(path).parent
        with self._lock:
            if folder in self._waiting:
                del self._waiting[: self._waiting.index(folder) + 1]
            self._tried.intersection_update(self._waiting)
            self._remove_others(keep=[*(Path(path).parent for path in kept), *self._waiting])

    def drop(self, path: Path) -> None:
        """Remove a copy that was refused."""
        self._remove(path.parent)

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
        name = folder_name(step, self._attempt)
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
                self._remove(folder)

    def _remove(self, folder: Path) -> None:
        """Have it gone at once: of what is half removed when this is killed, nothing is taken for a checkpoint."""
        if not folder.name.startswith(_PARTIAL):
            with suppress(OSError):
                folder = folder.rename(self._partial())
        shutil.rmtree(folder, ignore_errors=True)

    def _partial(self) -> Path:
        return self.folder / f"{_PARTIAL}{self._attempt}-{secrets.token_hex(4)}"


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except OSError:
        return []


def copy_to(source: Path, target: Path) -> None:
    """Copy a file or a folder with all that is in it, links followed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=_dangling)
    else:
        shutil.copy2(source, target)


def _fsync_all(path: Path) -> None:
    """Have a file, or a folder with all that is in it, on the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            _fsync(Path(folder) / name)
        _fsync(Path(folder))
    if not path.is_dir():
        _fsync(path)


def _dangling(folder: str, names: list[str]) -> list[str]:
    # shutil's own option looks for the targets of relative links in the working directory.
    return [name for name in names if not os.path.exists(os.path.join(folder, name))]


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
