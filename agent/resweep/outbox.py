"""The rows between the thread that logs and the thread that sends: in memory, and in a file when that is not enough.

Order is kept: what was handed out and not stored comes first, then the file, then memory. A row leaves only when the
store has it, or when the store says that it is not wanted.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from resweep.spill import Commit, Entry, Row, SpillFile, take_batch

LIMIT = 10_000
"""Rows in memory; more go to the file."""
HARD_LIMIT = 10 * LIMIT
"""Rows in memory when the file cannot be written either; more are lost, and it is said."""
DISK_PAUSE = 5.0
"""Seconds before a file that could not be written is tried again."""
WRITE_WAIT = 1.0
"""Seconds for which the thread that logs waits until a full memory is written down; after that it goes on."""


class Outbox:
    """One thread at a time appends rows, one sends, either may write the file."""

    def __init__(
        self, spill: SpillFile, warn: Callable[[str, str], None], *, first_seq: int = 1, limit: int = LIMIT
    ) -> None:
        self._spill = spill
        self._warn = warn
        self._limit = limit
        self._hard_limit = limit * (HARD_LIMIT // LIMIT)
        self._next_seq = first_seq
        self._memory: deque[Entry] = deque()
        self._sending: list[Entry] = []  # from memory, handed out
        self._sending_is_on_disk = False
        self._from_file = False  # the batch handed out comes from the file
        self._lock = threading.RLock()
        self._writer: threading.Thread | None = None
        self._writing: threading.Event | None = None  # set when what was asked for last is written
        self._demands: SimpleQueue[threading.Event | None] = SimpleQueue()
        self._disk_retry_at = 0.0
        self._closed = False
        self._tried_seq = 0  # rows up to this one were handed out before
        self.first_try = True  # whether nothing of the batch handed out was
        self.lost = 0

    @property
    def rows_waiting(self) -> int:
        """Rows that are not known to be stored."""
        with self._lock:
            held = [*self._memory, *([] if self._sending_is_on_disk else self._sending)]
            return self._spill.rows + sum(isinstance(entry, Row) for entry in held)

    @property
    def empty(self) -> bool:
        return not self._memory and not self._sending and not self._spill.pending

    @property
    def crowded(self) -> bool:
        """Whether so much waits in memory that it is better sent now than in a moment."""
        return len(self._memory) > self._limit // 5

    def append_row(self, step: int, values: dict[str, Any]) -> None:
        """Take a row; never waits for the store. Its callers hold a lock against each other."""
        if len(self._memory) >= self._limit:
            self._make_room()
            if len(self._memory) >= self._hard_limit:
                self.lost += 1
                self._warn("lost", "rows are lost: Redis is away and the disk cannot be written; make room on the disk")
                return
        self._memory.append(Row(self._next_seq, step, values))
        self._next_seq += 1

    def _make_room(self) -> None:
        """Have another thread write memory down.

        The thread that logs holds no lock while it waits: a signal handler that interrupts it may mark and finish.
        """
        if self._writing is not None and not self._writing.is_set():
            return  # the disk is slow, and was waited for
        if self._writer is None:
            writer = threading.Thread(target=self._write_on_demand, name="resweep-writer", daemon=True)
            try:
                writer.start()
            except RuntimeError:  # the interpreter ends
                self.write_down()
                return
            self._writer = writer
        self._writing = done = threading.Event()
        self._demands.put(done)
        done.wait(WRITE_WAIT)

    def _write_on_demand(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (done := self._demands.get()) is not None:
            self.write_down()
            done.set()

    def append_commit(self, commit: Commit) -> None:
        """Take a checkpoint, to be committed after the rows before it."""
        self._memory.append(commit._replace(after=self._next_seq - 1))

    def take(self) -> list[Entry]:
        """Hand out the next batch; `stored` or `put_back` must follow. Empty when nothing waits."""
        with self._lock:
            while self._spill.pending and not self._closed:
                batch = self._spill.next_batch()
                if batch:
                    self._from_file = True
                    self._note_try(batch)
                    return batch
                self._spill.advance()  # facts only, which the sender knows
            self._from_file = False
            self._sending = take_batch(self._memory.copy())
            self._sending_is_on_disk = False
            for _ in self._sending:
                self._memory.popleft()
            self._note_try(self._sending)
            return self._sending

    def _note_try(self, batch: list[Entry]) -> None:
        seqs = [entry.seq for entry in batch if isinstance(entry, Row)]
        self.first_try = bool(seqs) and seqs[0] > self._tried_seq
        self._tried_seq = max([self._tried_seq, *seqs[-1:]])

    def stored(self) -> None:
        """The batch handed out is stored."""
        with self._lock:
            if self._from_file and not self._closed:
                self._spill.advance()
            elif not self._spill.pending and not self._closed:
                self._spill.remove()  # a file that got no further than its header
            self._sending = []
            self._from_file = False

    def put_back(self) -> None:
        """The batch handed out may not be stored: it will come again, and everything is written to the file."""
        with self._lock:
            self.write_down()
            if self._sending and not self._sending_is_on_disk:
                self._memory.extendleft(reversed(self._sending))
            self._sending = []
            self._from_file = False

    def write_down(self) -> None:
        """Write to the file what is in memory; keep it there when the file cannot be written."""
        with self._lock:
            if self._closed or time.monotonic() < self._disk_retry_at:
                return
            entries = [*([] if self._sending_is_on_disk else self._sending), *self._memory]
            if not entries:
                return
            count = len(self._memory)
            try:
                self._spill.append(entries)
            except OSError as error:
                self._disk_retry_at = time.monotonic() + DISK_PAUSE
                self._warn(
                    "disk", f"cannot write {self._spill.path}: {error}; rows stay in memory until Redis takes them"
                )
                return
            self._sending_is_on_disk = True
            for _ in range(count):
                self._memory.popleft()

    def note(self, **facts: Any) -> None:
        """Write summary, config or exit_code to the file, for whoever sends it after this process."""
        with self._lock:
            if self._closed:
                return
            try:
                self._spill.note(**facts)
            except OSError as error:
                self._warn("disk", f"cannot write {self._spill.path}: {error}; make room on the disk")

    def discard(self) -> int:
        """Drop everything, the file too; returns how many rows that were."""
        with self._lock:
            rows = self.rows_waiting
            self._memory.clear()
            self._sending = []
            self._from_file = False
            self._spill.remove()
        self._demands.put(None)
        return rows

    def close(self) -> None:
        """Leave what waits in the file. Nothing that a call still under way says later changes it."""
        with self._lock:
            self._disk_retry_at = 0.0
            self.write_down()
            self._closed = True
            self._sending = []
            self._spill.close()
        self._demands.put(None)
