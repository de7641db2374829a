"""Rows that could not be sent, in a file: ``<dir>/resweep/spill/<run id>-<attempt>-<pid>.jsonl``.

The first line is the header: whose rows these are and under which claim. After it come, in the order of logging, lines

    {"seq": 7, "step": 6, "row": {…}}                        a row; seq counts within the attempt
    {"checkpoint": {"path": …, "step": …, …}}                a checkpoint that is not committed yet
    {"summary": {…}}   {"config": {…}}   {"exit_code": 0}    the summary, changed config, the end; the last one counts

Rows are idempotent by seq, so a file may be sent again from its beginning. The writer holds a lock on the file: what is
locked belongs to a living process. A torn last line, of a process that was killed while it wrote, is left out.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from resweep.values import approximate_size

VERSION = 1
BATCH_ROWS = 500
BATCH_BYTES = 256 * 1024

encode = json.JSONEncoder(separators=(",", ":")).encode


class Row(NamedTuple):
    """A logged row. `seq` counts the rows of an attempt from 1."""

    seq: int
    step: int
    values: dict[str, Any]


class Commit(NamedTuple):
    """A checkpoint to be committed after the rows before it; `after` is the number of the last of them."""

    path: str
    step: int | None
    metadata: dict[str, Any]
    after: int = 0
    keep: int = 2


Entry = Row | Commit


def spill_folder(directory: Path) -> Path:
    """Where the spill files of runs in `directory` are."""
    return directory / "resweep" / "spill"


def encode_entry(entry: Entry) -> str:
    """One line, without its end."""
    if isinstance(entry, Row):
        return f'{{"seq":{entry.seq},"step":{entry.step},"row":{encode(entry.values)}}}'
    return encode({"checkpoint": entry._asdict()})


def decode_entry(record: Mapping[str, Any]) -> Entry | None:
    """The row or commit of a line; None for a line of another kind."""
    if "seq" in record:
        return Row(record["seq"], record["step"], record["row"])
    if "checkpoint" in record:
        return Commit(**record["checkpoint"])
    return None


def take_batch(entries: Iterable[Entry]) -> list[Entry]:
    """The first entries that one call can send: rows with consecutive numbers within the limits, or one commit."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if isinstance(entry, Commit):
            return batch or [entry]
        last = batch[-1] if batch else None
        if isinstance(last, Row) and entry.seq != last.seq + 1:
            return batch
        size += approximate_size(entry.values)
        if batch and (len(batch) >= BATCH_ROWS or size > BATCH_BYTES):
            return batch
        batch.append(entry)
    return batch


@dataclass(frozen=True, slots=True)
class Header:
    """Whose rows a spill file holds.

    Attributes:
        claim: The claim token as RESWEEP_CLAIM has it; None for rows logged offline outside a sweep.
        sweep_id: Set inside an attempt of a sweep.
        init: For rows logged offline: nonce, config, name, group, notes and tags with which the run is to be created.
    """

    run_id: str
    entity: str
    project: str
    claim: str | None
    sweep_id: str | None = None
    init: Mapping[str, Any] | None = None

    def encode(self) -> str:
        fields = {name: getattr(self, name) for name in self.__slots__}
        return encode({"resweep_spill": VERSION, **fields})

    @classmethod
    def decode(cls, record: Mapping[str, Any]) -> Header:
        """Raises ValueError when `record` is not the header of a file that this version can read."""
        if record.get("resweep_spill") != VERSION:
            raise ValueError(f"its first line is no header of version {VERSION}")
        fields: dict[str, Any] = {name: record.get(name) for name in cls.__slots__}
        return cls(**fields)


class SpillFile:
    """The spill file of this process, made when first needed and removed when all of it was sent.

    Not safe for threads: the outbox locks.
    """

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._header = header
        self._file: int | None = None
        self._sent = 0  # bytes of the file that need not be sent any more
        self._ahead = 0  # where `_sent` will be when the batch handed out is stored
        self._rows = 0  # not yet sent, counted with those that were sent already and repeat
        self._batch_rows = 0

    @property
    def rows(self) -> int:
        """How many rows wait in the file."""
        return self._rows

    @property
    def pending(self) -> bool:
        """Whether the file has something that `next_batch` has not handed out for good."""
        return self._file is not None and self._sent < self._size()

    def append(self, entries: Iterable[Entry]) -> None:
        """Write entries behind those that wait.

        Raises:
            OSError: The file cannot be written; it is as before.
        """
        lines = [encode_entry(entry) for entry in entries]
        self._write(lines)
        self._rows += sum(line.startswith('{"seq"') for line in lines)

    def note(self, **facts: Any) -> None:
        """Write down summary, config or exit_code, for whoever sends the file after this process.

        Raises:
            OSError: As `append`.
        """
        self._write([encode({name: value}) for name, value in facts.items()])

    def next_batch(self) -> list[Entry]:
        """The first entries that were not sent yet; `advance` says that they are stored now."""
        if self._file is None:
            return []
        # A line longer than the window is read with a larger one.
        window = BATCH_BYTES
        while True:
            data = os.pread(self._file, window, self._sent)
            end = data.rfind(b"\n") + 1
            if end or len(data) < window:
                break
            window *= 4
        entries: list[Entry] = []
        ends: list[int] = []
        position = self._sent
        for line in data[:end].splitlines(keepends=True):
            position += len(line)
            entry = decode_entry(json.loads(line))
            if entry is not None:
                entries.append(entry)
                ends.append(position)
        batch = take_batch(entries)
        self._ahead = ends[len(batch) - 1] if len(batch) < len(entries) else position
        self._batch_rows = sum(isinstance(entry, Row) for entry in batch)
        return batch

    def advance(self) -> None:
        """The batch handed out last is stored; the file is removed when it was the last one."""
        self._sent = self._ahead
        self._rows -= self._batch_rows
        self._batch_rows = 0
        if not self.pending:
            self.remove()

    def remove(self) -> None:
        """Delete the file, sent or not."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._release()

    def close(self) -> None:
        """Leave the file to whoever sends it later; remove it when nothing waits in it."""
        if not self.pending:
            self.remove()
        if self._file is not None:
            try:
                os.fsync(self._file)
            finally:
                self._release()

    def _release(self) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        self._sent = self._ahead = self._rows = 0
        fcntl.flock(file, fcntl.LOCK_UN)  # a forked child may hold the same open file
        os.close(file)

    def _size(self) -> int:
        assert self._file is not None
        return os.fstat(self._file).st_size

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        file = self._open()
        before = self._size()
        data = ("\n".join(lines) + "\n").encode()
        try:
            _write_all(file, data)
        except BaseException:  # what a signal handler raises, too
            os.ftruncate(file, before)
            raise

    def _open(self) -> int:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self._create()
            header = self._header.encode().encode() + b"\n"
            try:
                lock(file)
                _write_all(file, header)
            except OSError:
                os.close(file)
                self.path.unlink(missing_ok=True)
                raise
            self._file = file
            self._sent = self._ahead = len(header)
            self._rows = 0
        return self._file

    def _create(self) -> int:
        """A new file. In containers pids repeat: a file of that name holds rows of a process before this one."""
        stem, again = self.path.stem, 1
        while True:
            try:
                return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                again += 1
                self.path = self.path.with_name(f"{stem}-{again}.jsonl")


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def lock(file: int) -> bool:
    """Lock an open file for this process; False when a living process has it. A file system without locks says True."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a spill file as they stand; ends at a torn one.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                return
            if not isinstance(record, dict):
                return
            yield record
