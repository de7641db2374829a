"""Checkpoints in an object store: sent whole or not at all, committed under the claim, brought back and checked.

    <url>/<entity>/<project>/<run id>/step-<step>-attempt-<n>-<random>/…            see manifest.py
    <dir>/resweep/restored/<run id>/step-…/<name of the file or folder>             what was brought back
    <dir>/resweep/uploads/<run id>/step-…/<name of the file or folder>              copies that wait to be sent

What an upload writes is of no account until Redis has accepted it under the attempt's claim. So an attempt that was
taken over can send what it likes: it changes nothing for its successor, whose objects it never touches, because an
attempt removes only what attempts up to its own number wrote.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resweep.bucket import Bucket, UnreachableError
from resweep.checkpoints import copy_to
from resweep.errors import CommError
from resweep.manifest import MANIFEST, DamagedError, Manifest, key_of
from resweep.notes import Notes, logger
from resweep.saving import Found, Saving, existing, folder_name, superseded
from resweep.spill import Commit
from resweep.transfer import download, upload
from resweep.uploads import Job, Uploads

if TYPE_CHECKING:
    from resweep.offline import Channel
    from resweep_scheduler.store import Checkpoint

_NAME = re.compile(r"step-(?:\d+|none)-attempt-(?P<attempt>\d+)-[0-9a-f]{8}")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0  # seconds between two tries to restore


class RemoteCheckpoints:
    """The checkpoints of one run in an object store, as one attempt saves and restores them.

    Args:
        scope: ``entity/project`` of the run.
        directory: The run's; below it lie what is brought back and what waits to be sent.
        keep: How many are kept.
        commit_timeout: Seconds to wait until Redis has a commit.
        patience: Seconds to wait for an object store that cannot be reached, when a checkpoint is restored.
    """

    def __init__(
        self,
        bucket: Bucket,
        run_id: str,
        attempt: int,
        *,
        scope: str,
        directory: Path,
        keep: int,
        notes: Notes,
        commit_timeout: float,
        patience: float,
    ) -> None:
        self._bucket = bucket
        self._run_id = run_id
        self._attempt = attempt
        self._prefix = key_of(f"{scope}/{run_id}")
        base = bucket.url if bucket.url.endswith("/") else f"{bucket.url}/"
        self._url = f"{base}{self._prefix}"
        self._restored = directory / "resweep" / "restored" / run_id
        self._staging = directory / "resweep" / "uploads" / run_id
        self._keep = keep
        self._notes = notes
        self._commit_timeout = commit_timeout
        self._patience = patience
        self._channel: Channel
        self._last: Checkpoint | None = None  # what was committed before this attempt
        self._sent: list[str] = []  # names of those whose commit Redis may not have yet, and of the one being sent
        self._tried: set[str] = set()  # names of those of them that Redis was asked to name
        self._kept: list[str] = []  # names of those that count, as Redis said last
        self._lock = threading.RLock()  # `committed` is called by the thread that commits
        self._uploads = Uploads(self._complain)

    def begin(self, channel: Channel, committed: Checkpoint | None) -> None:
        """See `Checkpoints`."""
        self._channel = channel
        self._last = committed

    def save(self, source: Path, step: int | None, metadata: dict[str, Any], *, wait: bool) -> Saving:
        """Send it, from a copy when nobody waits; see `Checkpoints`."""
        saving = Saving(source, step)
        source = existing(source)
        name = f"{folder_name(step, self._attempt)}-{secrets.token_hex(4)}"
        staged = self._staging / name
        if not wait:
            self._clear_staging()
            try:
                copy_to(source, staged / source.name)
            except BaseException:  # a full disk would stay full
                shutil.rmtree(staged, ignore_errors=True)
                raise
            source = staged / source.name

        def send(check: Callable[[], None]) -> None:
            self._send(saving, source, name, metadata, check)

        self._uploads.put(Job(saving, send, lambda: shutil.rmtree(staged, ignore_errors=True), urgent=wait))
        if wait:
            self._uploads.wait(saving)
        return saving

    def _send(
        self, saving: Saving, source: Path, name: str, metadata: dict[str, Any], check: Callable[[], None]
    ) -> None:
        """In the thread that sends: upload, then commit."""
        with self._lock:
            self._sent.append(name)
        try:
            prefix = f"{self._prefix}/{name}"
            upload(self._bucket, prefix, source, step=saving.step, metadata=metadata, check=check)
        except BaseException:
            with self._lock:
                self._sent.remove(name)
            self._uploads.chore(lambda: self._remove([name]))
            raise
        self._notes.again("upload")
        with self._lock:
            late = superseded(self._sent, self._keep, self._tried)
            self._sent = [one for one in self._sent if one not in late]
        self._uploads.chore(lambda: self._remove(late))
        commit = Commit(f"{self._url}/{name}", saving.step, metadata, keep=self._keep)
        ticket = self._channel.commit(commit, self._commit_timeout)
        if ticket.granted is False:
            self._uploads.chore(lambda: self._remove([name]))
        saving.handed_over(ticket)

    def _complain(self, saving: Saving, error: BaseException) -> None:
        self._notes.once(
            "upload", f"run {self._run_id}: the checkpoint of step {saving.step} was not saved: {saving.error}"
        )
        logger.debug("run %s: an upload failed", self._run_id, exc_info=error)

    def is_there(self, path: str) -> bool:
        """See `Checkpoints`."""
        name = _name_of(path)
        with self._lock:
            if name not in self._sent:
                return False
            self._tried.add(name)
            return True

    def committed(self, path: str, kept: Sequence[str]) -> None:
        """See `Checkpoints`."""
        name = _name_of(path)
        with self._lock:
            self._kept = [_name_of(one) for one in kept]
            if name in self._sent:
                del self._sent[: self._sent.index(name) + 1]
            self._tried.intersection_update(self._sent)
        self._uploads.chore(self._clear_away)

    def _clear_away(self) -> None:
        """Remove what is not kept of this attempt and of those before, whole or not."""
        names = self._bucket.folders(self._prefix)
        with self._lock:  # after the look: what came since is not in it
            kept = {*self._kept, *self._sent}
        old = [(name, _NAME.fullmatch(name)) for name in names if name not in kept]
        self._remove([name for name, match in old if match and int(match["attempt"]) <= self._attempt])

    def _remove(self, names: Sequence[str]) -> None:
        for name in names:
            keys = list(self._bucket.sizes(f"{self._prefix}/{name}"))
            # The manifest first: what is half removed is seen to be gone.
            keys.sort(key=lambda key: not key.endswith(f"/{MANIFEST}"))
            if keys:
                self._bucket.delete(keys[:1])
                self._bucket.delete(keys[1:])

    def _clear_staging(self) -> None:
        """Remove the copies that earlier attempts left here when they were killed."""
        for folder in self._staging.glob("step-*"):
            match = _NAME.fullmatch(folder.name)
            if match and int(match["attempt"]) < self._attempt:
                shutil.rmtree(folder, ignore_errors=True)

    def restore(self) -> Found | None:
        """The newest that is whole, of those that are kept; see `Checkpoints`."""
        if self._last is None:
            return None
        wrong: list[str] = []
        with self._alone():
            for checkpoint in (self._last, *self._last.kept):
                try:
                    path, manifest = self._bring(checkpoint)
                except DamagedError as error:
                    wrong.append(str(error))
                    continue
                if wrong:
                    self._fall_back(wrong[0], checkpoint, manifest)
                return Found(path, checkpoint.step, checkpoint.attempt)
        self._fall_back(wrong[0], None, None)
        return None

    def _bring(self, checkpoint: Checkpoint) -> tuple[Path, Manifest]:
        """Have it on this machine.

        Raises:
            DamagedError: It is not whole, or not there.
            CommError: The object store cannot be reached for longer than it is waited for.
        """
        name = _name_of(checkpoint.path)
        if "://" not in checkpoint.path or not _NAME.fullmatch(name):
            raise DamagedError(f"it was saved at {checkpoint.path}, and not to {self._url}")
        self._restored.mkdir(parents=True, exist_ok=True)
        for other in self._restored.glob("step-*"):
            if other.name.removesuffix(".partial") != name:
                shutil.rmtree(other, ignore_errors=True)
        deadline, pause = time.monotonic() + self._patience, FIRST_PAUSE
        while True:
            try:
                return download(self._bucket, f"{self._prefix}/{name}", self._restored / name)
            except UnreachableError as error:
                if error.hopeless or time.monotonic() + pause > deadline:
                    raise CommError(
                        f"run {self._run_id} cannot restore its checkpoint of step {checkpoint.step}: {error}. "
                        f"Tried for {self._patience:g} s (RESWEEP_INIT_TIMEOUT); starting without it would lose it"
                    ) from error
                self._notes.once("restore", f"run {self._run_id} waits up to {self._patience:g} s: {error}")
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _fall_back(self, why: str, found: Checkpoint | None, manifest: Manifest | None) -> None:
        """Tell people and Redis that the newest checkpoint cannot be used."""
        assert self._last is not None
        instead = "starting without one" if found is None else f"going on from that of step {found.step}"
        self._notes.once(
            "fallback",
            f"run {self._run_id}: the checkpoint {self._last.path} (step {self._last.step}) is damaged or missing: "
            f"{why}; {instead}",
        )
        self._channel.fall_back(
            self._last.path, found.path if found else None, manifest.metadata if manifest else {}, why
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process of this machine at a time brings checkpoints of the run; the others find them here."""
        self._restored.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._restored / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:  # a file system without locks
                logger.debug("run %s: no lock: %s", self._run_id, error)
            yield
        finally:
            os.close(lock)

    def finish(self, timeout: float) -> None:
        """See `Checkpoints`. What was brought back is removed by the process that saves."""
        unfinished = self._uploads.finish(timeout)
        if unfinished is not None:
            self._notes.once(
                "unfinished",
                f"run {self._run_id}: the checkpoint of step {unfinished.step} could not be sent within {timeout:g} s "
                "and is lost; save it with wait=True, or set RESWEEP_FINISH_TIMEOUT to more seconds",
            )
        if not self._channel.silent:
            shutil.rmtree(self._restored, ignore_errors=True)


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]
