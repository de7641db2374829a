"""resume="auto": which run goes on in this directory, in ``<dir>/resweep/auto-resume.json``.

The file has one entry for each run that was begun here with resume="auto" and has not ended with exit code 0: its id
and project, and the host, process and command that run it. So several runs can live in one directory: the run of a
living process of this host is never taken over, and of several dead ones the run of the same command is taken first,
then the newest. An entry of another host is taken for dead, because a job that is started again on another node must
find it at once; when the run was heard last says nothing then, as its first process may have been killed just before.

The file is written by rename, under a lock. A file that cannot be read is as good as none.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resweep.notes import logger

LOCK_TIMEOUT = 10.0  # seconds; whoever holds it only rewrites a small file


@dataclass(frozen=True, slots=True)
class Entry:
    """A run that goes on in this directory."""

    run_id: str
    scope: str
    host: str
    pid: int
    started: str  # when the process started, in the system's own unit, to tell a reused pid; "" where unknown
    command: list[str]

    @property
    def lives(self) -> bool:
        """Whether another process of this host has the run now."""
        if self.host != socket.gethostname() or self.pid == os.getpid():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return _start_of(self.pid) == self.started


def _start_of(pid: int) -> str:
    """The start time of a process as /proc has it, "" where there is no /proc; a dead one has none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return "zombie" if fields[0] in ("Z", "X") else fields[19]


class AutoResume:
    """The runs that go on in one directory, for one project."""

    def __init__(self, directory: Path, scope: str) -> None:
        self._path = directory / "resweep" / "auto-resume.json"
        self._scope = scope

    def choose(self, explicit_id: str | None, new_id: Callable[[], str]) -> str:
        """Return the run to go on with: the explicit one, a dead one, or a new one. This process has it from now on."""
        with self._locked() as entries:
            dead = [entry for entry in entries if entry.scope == self._scope and not entry.lives]
            # Newest last; the same command before others.
            dead.sort(key=lambda entry: entry.command == sys.argv)
            found = dead[-1] if dead else None
            run_id = explicit_id or (found.run_id if found else new_id())
            if found is not None and found.run_id != run_id:
                logger.warning(
                    "Ignoring ID %s loaded due to resume='auto' because the run ID is set to %s.", found.run_id, run_id
                )
            entries[:] = [entry for entry in entries if not self._is(entry, run_id)]
            entries.append(
                Entry(run_id, self._scope, socket.gethostname(), os.getpid(), _start_of(os.getpid()), list(sys.argv))
            )
            return run_id

    def ended(self, run_id: str) -> None:
        """The run ended with exit code 0: it shall not be resumed."""
        if self._path.exists():
            with self._locked() as entries:
                entries[:] = [entry for entry in entries if not self._is(entry, run_id)]

    def begin_anew(self) -> None:
        """A run begins here without resume: forget this script's dead runs, as W&B does. Other scripts' are kept."""
        if self._path.exists():
            with self._locked() as entries:
                entries[:] = [
                    entry
                    for entry in entries
                    if entry.scope != self._scope or entry.lives or entry.command[:1] != sys.argv[:1]
                ]

    def _is(self, entry: Entry, run_id: str) -> bool:
        return entry.scope == self._scope and entry.run_id == run_id

    @contextmanager
    def _locked(self) -> Iterator[list[Entry]]:
        """The entries, which are written back when the block changed them."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            logger.warning(
                "resume='auto' cannot write to %s: %s; this run will not be found again", self._path.parent, error
            )
            yield []
            return
        try:
            _wait_for(lock)
            entries = self._read()
            before = list(entries)
            yield entries
            if entries != before:
                self._write(entries)
        finally:
            os.close(lock)

    def _read(self) -> list[Entry]:
        try:
            records: Any = json.loads(self._path.read_text(encoding="utf-8"))["runs"]
            return [Entry(**record) for record in records]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError) as error:
            logger.warning("resume='auto' ignores %s, which cannot be read (%s)", self._path, error)
            return []

    def _write(self, entries: list[Entry]) -> None:
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            if entries:
                partial.write_text(json.dumps({"runs": [asdict(entry) for entry in entries]}), encoding="utf-8")
                partial.replace(self._path)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("resume='auto' cannot write %s: %s; this run will not be found again", self._path, error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _wait_for(lock: int) -> None:
    """Lock it; go on without when the file system has no locks or somebody keeps it for too long."""
    deadline = time.monotonic() + LOCK_TIMEOUT
    while time.monotonic() < deadline:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.01)
        except OSError:
            return
        else:
            return
