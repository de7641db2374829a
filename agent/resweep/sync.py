"""Send the rows that runs left in files: what ``resweep sync`` does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resweep.connection import close_store, open_store
from resweep.errors import UsageError
from resweep.spill import (
    BATCH_ROWS,
    Commit,
    Entry,
    Header,
    Row,
    decode_entry,
    lock,
    read_records,
    spill_folder,
    take_batch,
)

if TYPE_CHECKING:
    from resweep_scheduler.store import ClaimToken, Objective, Store, WriteAnswer

PATIENCE = 5.0  # seconds for which a call is tried again
SILENCE = 60.0  # seconds after which a run that has no lease counts as given up


class SyncOutcome(StrEnum):
    """What became of one file."""

    STORED = "stored"  # everything is in Redis; the file is gone
    REFUSED = "refused"  # another attempt owns the run, or it was removed; the file is gone
    IN_USE = "in use"  # a living process writes and sends it itself
    UNREADABLE = "unreadable"  # no spill file, or of another version; it is left alone
    UNAVAILABLE = "unavailable"  # Redis did not answer, refused, or the run's agent has still to adopt it; try again


@dataclass(frozen=True, slots=True)
class SyncedFile:
    """One spill file and what became of it.

    Attributes:
        rows: Rows in the file.
        stored: Rows that were not in Redis before.
        detail: Why, where the outcome does not say it.
    """

    path: Path
    outcome: SyncOutcome
    run_id: str = ""
    rows: int = 0
    stored: int = 0
    detail: str = ""

    def __str__(self) -> str:
        what = {
            SyncOutcome.STORED: f"{self.stored} of {self.rows} rows stored, the others were there already",
            SyncOutcome.REFUSED: f"{self.rows} rows dropped, because {self.detail}",
            SyncOutcome.IN_USE: f"left alone, because {self.detail}",
            SyncOutcome.UNREADABLE: f"left alone, because it cannot be read: {self.detail}",
            SyncOutcome.UNAVAILABLE: f"{self.rows} rows kept for later, because {self.detail}",
        }[self.outcome]
        if self.outcome is SyncOutcome.STORED and self.stored == self.rows:
            what = f"{self.stored} rows stored"
        return f"run {self.run_id or 'unknown'}: {what} ({self.path})"


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What ``sync`` came to."""

    files: list[SyncedFile] = field(default_factory=list)

    def __str__(self) -> str:
        """A line for each file, for people."""
        return "\n".join(map(str, self.files)) or "no rows wait in files here"

    @property
    def stored(self) -> int:
        """Rows that are in Redis now and were not before."""
        return sum(file.stored for file in self.files)

    @property
    def complete(self) -> bool:
        """True when no file is left that could be sent later."""
        return all(file.outcome in (SyncOutcome.STORED, SyncOutcome.REFUSED) for file in self.files)


class _RefusedError(Exception):
    """The run is not this attempt's any more."""


class _LaterError(Exception):
    """The rows cannot be taken now."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What is to be sent where.

    Attributes:
        own: The nonces of offline runs that this very call has begun.
    """

    url: str | None
    run_id: str | None
    take_over: bool
    own: set[str] = field(default_factory=set)


def sync(
    directory: str | os.PathLike[str], url: str | None = None, *, run_id: str | None = None, take_over: bool = False
) -> SyncReport:
    """Send every spill file of a directory, and remove each that is stored whole or refused.

    Rows that were logged offline become an attempt of their own, so they wait while another process runs the run.

    Args:
        directory: The ``dir`` of the runs, the folder of the files, or one file.
        url: The server; defaults to RESWEEP_URL, REDIS_URL, the embedded server.
        run_id: Only the files of this run.
        take_over: Send rows that were logged offline even if a process runs the run now; it falls silent.

    Raises:
        UsageError: There is no such directory.
        CommError: The URL cannot be understood.
    """
    place = Path(directory)
    if not place.exists():
        raise UsageError(f"sync sends the rows below a directory, and {place} does not exist; give the dir of the run")
    order = _Order(url, run_id, take_over)
    return SyncReport([found for path in _spill_files(place) if (found := _sync_file(path, order)) is not None])


def _spill_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    folder = spill_folder(place)
    return sorted((folder if folder.is_dir() else place).glob("*.jsonl"), key=_written_at)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # its process has sent it meanwhile
        return 0.0


def _sync_file(path: Path, order: _Order) -> SyncedFile | None:
    """Send one file; None when it is not one of those that were asked for, or is not there any more."""
    try:
        header = Header.decode(next(read_records(path)))
        if order.run_id is not None and header.run_id != order.run_id:
            return None
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # its process, or another sync, has sent it meanwhile
    except (OSError, ValueError, TypeError, StopIteration) as error:
        why = "it has no header" if isinstance(error, StopIteration) else str(error)
        return None if order.run_id else SyncedFile(path, SyncOutcome.UNREADABLE, detail=why)
    try:
        if not lock(file):
            return SyncedFile(
                path, SyncOutcome.IN_USE, header.run_id, detail="its process still runs and sends it itself"
            )
        try:
            records = list(islice(read_records(path), 1, None))
        except FileNotFoundError:
            return None
        return _deliver(path, header, records, order)
    finally:
        os.close(file)


def _deliver(path: Path, header: Header, records: list[dict[str, Any]], order: _Order) -> SyncedFile:
    """Send what a file has after its header."""
    from resweep_scheduler.store import StoreError

    store = open_store(header.entity, header.project, order.url)
    delivery = _Delivery(store, header, path, records, order)
    try:
        delivery.send()
    except _RefusedError as error:
        path.unlink(missing_ok=True)
        return delivery.outcome(SyncOutcome.REFUSED, str(error))
    except (_LaterError, StoreError) as error:
        return delivery.outcome(SyncOutcome.UNAVAILABLE, str(error))
    finally:
        close_store(store)
    path.unlink(missing_ok=True)
    return delivery.outcome(SyncOutcome.STORED)


class _Delivery:
    """One file on its way."""

    def __init__(self, store: Store, header: Header, path: Path, records: list[dict[str, Any]], order: _Order) -> None:
        self._store = store.patient(PATIENCE)
        self._header = header
        self._path = path
        self._records = records
        self._order = order
        self._rows = 0
        self._stored = 0
        self._objective: Objective

    def outcome(self, outcome: SyncOutcome, detail: str = "") -> SyncedFile:
        return SyncedFile(self._path, outcome, self._header.run_id, self._rows, self._stored, detail)

    def send(self) -> None:
        """Everything in the file, in order.

        Raises:
            _RefusedError, _LaterError, StoreError: It was not taken.
        """
        facts: dict[str, Any] = {}
        entries: list[Entry] = []
        for record in self._records:
            entry = decode_entry(record)
            if entry is None:
                facts |= record
            else:
                entries.append(entry)
        self._rows = len({entry.seq for entry in entries if isinstance(entry, Row)})
        token = self._token(facts)
        for batch in _batches(entries):
            if isinstance(batch[0], Commit):
                self._commit(token, batch[0])
            else:
                self._log(token, [entry for entry in batch if isinstance(entry, Row)])
        self._send_facts(token, facts)

    def _token(self, facts: dict[str, Any]) -> ClaimToken:
        """The claim of the attempt that wrote the file; for a run that was logged offline a new one."""
        from resweep_scheduler.store import ClaimToken, InitOutcome, RunMeta

        run_id = self._header.run_id
        init = self._header.init
        if self._header.claim is not None:
            self._objective = self._store.objective(self._header.sweep_id)
            return ClaimToken.decode(run_id, self._header.claim)
        if init is None:
            raise _LaterError("its header names no claim; a later version may have written it")
        self._spare_the_living(run_id, init["nonce"])
        config = {**init["config"], **facts.pop("config", {})}
        tags = init["tags"]
        answer = self._store.init_run(
            run_id=run_id,
            resume="allow",
            nonce=init["nonce"],
            config=config,
            meta=RunMeta(init["name"], init["group"], init["notes"], None if tags is None else tuple(tags)),
        )
        if answer.outcome is InitOutcome.HELD:
            raise _LaterError("an agent runs the run now")
        if answer.token is None:
            raise _RefusedError("the run was taken over by another attempt")
        self._order.own.add(init["nonce"])
        self._objective = answer.objective
        return answer.token

    def _spare_the_living(self, run_id: str, nonce: str) -> None:
        """Rows of before must not end a run that another process has begun since."""
        seat = None if self._order.take_over else self._store.seat(run_id)
        if seat is None or seat.sweep_id is not None or not seat.is_owned:
            return
        silent = (self._store.redis_time() - seat.heard_at) / 1000
        if seat.token.nonce in (nonce, *self._order.own) or silent > SILENCE:
            return
        raise _LaterError(
            f"another process runs the run now (it was heard {max(0.0, silent):.0f} s ago) and would be "
            f"taken over; sync again when that has ended, or was not heard for {SILENCE:g} s"
        )

    def _log(self, token: ClaimToken, rows: list[Row]) -> None:
        from resweep_scheduler.store.batches import make_batch

        batch = make_batch(rows, None, self._objective)
        self._stored += self._check(self._store.log(token, first_seq=rows[0].seq, **batch)).accepted

    def _commit(self, token: ClaimToken, commit: Commit) -> None:
        # What is in an object store and is not there any more is passed over when it is to be restored.
        if "://" in commit.path or os.path.exists(commit.path):
            self._check(self._store.commit_checkpoint(token, **commit._asdict()))

    def _send_facts(self, token: ClaimToken, facts: dict[str, Any]) -> None:
        from resweep_scheduler.store.batches import make_batch

        if "summary" in facts:
            batch = make_batch([], facts["summary"], self._objective)
            self._check(self._store.log(token, first_seq=1, **batch))
        if facts.get("config"):
            self._check(self._store.update_config(token, config=facts["config"]))
        if "exit_code" in facts and self._header.sweep_id is None:
            self._store.finish_run(token, exit_code=facts["exit_code"])

    def _check(self, answer: WriteAnswer) -> WriteAnswer:
        from resweep_scheduler.store import Hold

        if answer.hold is Hold.GONE:
            raise _RefusedError("the run was removed")
        if answer.hold is Hold.STALE:
            raise _RefusedError("the run was taken over by another attempt")
        if answer.hold is Hold.LAPSED:
            raise _LaterError("the run's lease ran out, and its agent has not adopted it again yet")
        return answer


def _batches(entries: list[Entry]) -> Iterator[list[Entry]]:
    """What one call each can send."""
    start = 0
    while start < len(entries):
        batch = take_batch(islice(entries, start, start + BATCH_ROWS))
        yield batch
        start += len(batch)
