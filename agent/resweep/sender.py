"""The thread that carries rows, summary, config, checkpoints and marks of one attempt to the store.

The training thread never waits for it, but in the calls that say so (marks, commits, `close`).
While Redis is away, rows go to the spill file; when it is back they are sent in order. When the store says that the
attempt is stale, nothing more is sent.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from resweep.answers import FencedError, LapsedError, Left, Ticket
from resweep.notes import Notes, logger
from resweep.outbox import Outbox
from resweep.saving import Checkpoints
from resweep.spill import Commit, Row
from resweep.summaries import Summary
from resweep.waiting import wait_for

if TYPE_CHECKING:
    from resweep_scheduler.store import ClaimToken, Hold, Objective, Store, WriteAnswer

INTERVAL = 0.5  # seconds between two looks at the outbox
LONGEST_PAUSE = 2.0  # seconds between two tries while Redis is away
URGENT_PAUSE = 0.2  # the same while somebody waits for an answer
MARK_REASON = "script"


class Sender:
    """Sends for one attempt.

    Args:
        put_open_row: Calls `put` with the open row if it was not seen as it stands; called in the sender's thread.
        ends_run: Whether `close` reports the end; inside a sweep the agent does.
        checkpoints: Asked whether a checkpoint still waits for its commit, and told when Redis has it.
    """

    def __init__(
        self,
        store: Store | None,
        token: ClaimToken | None,
        outbox: Outbox,
        summary: Summary,
        notes: Notes,
        *,
        run_id: str,
        objective: Objective | None,
        ends_run: bool,
        put_open_row: Callable[[], None],
        checkpoints: Checkpoints,
    ) -> None:
        self._store = store
        self._token = token
        self._outbox = outbox
        self._summary = summary
        self._notes = notes
        self._run_id = run_id
        self._objective = objective
        self._ends_run = ends_run
        self._put_open_row = put_open_row
        self._checkpoints = checkpoints
        self._config: dict[str, Any] = {}  # top-level keys that the store does not have
        self._config_on_its_way: dict[str, Any] = {}
        self._config_lock = threading.Lock()
        self._marks: SimpleQueue[Ticket] = SimpleQueue()
        self._unanswered: list[Ticket] = []
        self._commits: dict[str, Ticket] = {}
        self._in_doubt = ""  # path of the commit for which Redis was asked without an answer: it may have it
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._exit_code: int | None = None
        self._next_try = 0.0
        self._pause = 0.0
        self._noted: dict[str, Any] = {}
        self._nudged = False
        self.silent = False  # log() has nothing to do
        self._drained = threading.Event()
        self._abandoned = False
        self._leaving = False  # somebody writes down what is left
        self._leaving_lock = threading.RLock()
        self._thread = threading.Thread(target=self._loop, name="resweep-sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # Called by the training thread.

    def put(self, step: int, values: dict[str, Any]) -> None:
        """Take a row, under the lock of the run; returns at once."""
        self._outbox.append_row(step, values)
        if self._outbox.crowded:
            self._nudge()

    def change_config(self, items: Mapping[str, Any]) -> None:
        """Have top-level items of the config stored."""
        with self._config_lock:
            self._config.update(items)

    def mark_preempting(self, timeout: float) -> bool:
        """Wait until the store has the mark, at most `timeout` seconds; it is sent later if that is not enough.

        May be called in a signal handler: it takes no lock that the interrupted code could hold.
        """
        ticket = Ticket()
        self._marks.put(ticket)
        self._nudge()
        return not self.silent and ticket.wait(timeout)

    def commit(self, commit: Commit, timeout: float) -> Ticket:
        """Have a checkpoint committed after the rows before it; waits at most `timeout` seconds."""
        ticket = self._commits[commit.path] = Ticket()
        self._outbox.append_commit(commit)
        self._nudge()
        if self.silent:
            ticket.answer(False)
        ticket.wait(timeout)
        return ticket

    def fall_back(self, lost: str, path: str | None, metadata: Mapping[str, Any], reason: str) -> None:
        """Tell the store which checkpoint is used in place of the newest one; if it is away, it is not told."""
        from resweep_scheduler.store import StoreError

        if self._store is not None and self._token is not None:
            with suppress(StoreError):
                store = self._store.patient(URGENT_PAUSE)
                store.fall_back(self._token, lost=lost, path=path, metadata=metadata, reason=reason)

    def close(self, exit_code: int, timeout: float) -> Left:
        """Send what waits and, outside a sweep, the end; returns what is left in the file.

        May be called again when it was interrupted, by another thread, and in a signal handler that interrupts it.
        """
        self._exit_code = exit_code
        self._nudge()
        done = wait_for(self._drained.is_set, timeout)
        self._abandoned = True
        self._nudge()
        with self._leaving_lock:
            if self._leaving:  # a signal handler, which interrupted the rest of this: that goes on after it
                return Left(self._outbox.rows_waiting, self._ends_run)
            self._leaving = True
            try:
                return self._leave(exit_code, done)
            finally:
                self._leaving = False

    def _leave(self, exit_code: int, done: bool) -> Left:
        """Write down what was not sent."""
        if done or self.silent:
            self._outbox.close()
            self._thread.join(1.0)
            return Left()
        for ticket in list(self._commits.values()):
            ticket.answer(None)  # nobody will know here
        left = Left(self._outbox.rows_waiting, self._ends_run)
        # The thread may be in the midst of a call that fails: everything is written down, whatever it has noted.
        with self._config_lock:
            config = self._config_on_its_way | self._config
        facts = {"summary": self._summary.snapshot(), "exit_code": exit_code}
        self._outbox.note(**facts | ({"config": config} if config else {}))
        self._outbox.close()
        return left

    def _nudge(self) -> None:
        # Whatever is to be done was queued before: a nudge that is seen once covers all before it.
        if not self._nudged:
            self._nudged = True
            self._wake.put(None)

    # The thread.

    def _loop(self) -> None:
        # Signals are for the main thread: one delivered here would not interrupt what it waits for.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._abandoned and not self._drained.is_set():
            with suppress(Empty):
                self._wake.get(timeout=self.tick(time.monotonic()))
            self._nudged = False

    def tick(self, now: float) -> float:
        """Send what can be sent; returns after how many seconds to look again."""
        if self._abandoned or self.silent:
            return INTERVAL
        try:
            self._take_open_row()
            if now < self._next_try and not self._urgent():
                self._outbox.write_down()
                return min(INTERVAL, self._next_try - now)
            self._deliver()
        except FencedError as error:
            self._fall_silent(error.hold)
        except LapsedError:
            self._wait(now, "its lease ran out, and its agent has not adopted it again yet")
        except Exception as error:
            self._wait(now, self._describe(error))
        else:
            self._resume()
        if self._urgent():
            return URGENT_PAUSE
        return min(INTERVAL, max(0.01, self._next_try - now)) if self._next_try else INTERVAL

    def _urgent(self) -> bool:
        return self._exit_code is not None or bool(self._unanswered) or not self._marks.empty()

    def _deliver(self) -> None:
        """One pass over everything that waits.

        Raises:
            StoreError: Redis is away or refuses.
        """
        self._send_marks()
        while entries := self._outbox.take():
            if isinstance(entries[0], Commit):
                self._send_commit(entries[0])
            else:
                self._send_rows([entry for entry in entries if isinstance(entry, Row)])
            self._outbox.stored()
            if self._abandoned:
                return
            self._send_marks()
        if self._summary.changed:
            self._send_rows([])
        self._send_config()
        if self._exit_code is not None and self._outbox.empty:
            self._end(self._exit_code)
            self._drained.set()

    def _take_open_row(self) -> None:
        # What a script leaves open is stored, too, before the script is killed. But a full memory would be waited for,
        # with the lock that `log` needs.
        if not self._outbox.crowded:
            self._put_open_row()

    def _send_marks(self) -> None:
        while not self._marks.empty():
            self._unanswered.append(self._marks.get())
        if self._unanswered:
            hold = self._write(lambda store, token: store.mark_preempting(token, reason=MARK_REASON))
            tickets, self._unanswered = self._unanswered, []
            for ticket in tickets:
                ticket.answer(hold == "owner")

    def _send_rows(self, rows: list[Row]) -> None:
        from resweep_scheduler.store.batches import make_batch

        assert self._objective is not None
        self._summary.changed, changed = False, self._summary.changed
        batch = make_batch(rows, self._summary.snapshot() if changed else None, self._objective)
        first_seq = rows[0].seq if rows else 1
        final = self._exit_code is not None
        accepted: list[int] = []

        def send(store: Store, token: ClaimToken) -> WriteAnswer:
            answer = store.log(token, first_seq=first_seq, final=final, **batch)
            accepted.append(answer.accepted)
            return answer

        try:
            self._write(send)
        except BaseException:
            self._summary.changed = changed or self._summary.changed
            raise
        if self._outbox.first_try and accepted[0] < len(rows):
            self._notes.once(
                "doubled",
                f"run {self._run_id}: another process logs to the same attempt, and rows of one of them are lost; "
                "log from one process (rank 0), or give each process a run id of its own",
            )

    def _send_commit(self, commit: Commit) -> None:
        granted: bool | None = False  # newer ones may have taken its place while it waited
        if self._checkpoints.is_there(commit.path):
            kept: list[str] = []

            def send(store: Store, token: ClaimToken) -> WriteAnswer:
                answer = store.commit_checkpoint(token, **commit._asdict())
                kept.extend(answer.kept)
                return answer

            try:
                granted = self._write(send) == "owner"
            except (FencedError, LapsedError):
                raise
            except BaseException:
                self._in_doubt = commit.path
                raise
            if granted:
                self._checkpoints.committed(commit.path, kept)
            elif self._in_doubt == commit.path:
                granted = None
        ticket = self._commits.pop(commit.path, None)
        if ticket is not None:
            ticket.answer(granted)

    def _send_config(self) -> None:
        with self._config_lock:
            self._config_on_its_way |= self._config
            self._config = {}
        if config := dict(self._config_on_its_way):
            self._write(lambda store, token: store.update_config(token, config=config))
            with self._config_lock:
                self._config_on_its_way = {}

    def _end(self, exit_code: int) -> None:
        if self._ends_run:
            assert self._store is not None
            assert self._token is not None
            self._store.finish_run(self._token, exit_code=exit_code)

    def _write(self, call: Callable[[Store, ClaimToken], WriteAnswer]) -> Hold:
        """One write under the claim; returns OWNER or ENDED.

        Raises:
            FencedError, LapsedError, StoreError: It was not taken.
        """
        from resweep_scheduler.store import Hold

        assert self._store is not None
        assert self._token is not None
        answer = call(self._store, self._token)
        if answer.hold in (Hold.STALE, Hold.GONE):
            raise FencedError(answer.hold)
        if answer.hold is Hold.LAPSED:
            raise LapsedError
        return answer.hold

    # When it does not work.

    def _wait(self, now: float, why: str) -> None:
        self._outbox.put_back()
        if self._pause == 0.0:
            self._notes.once(
                "away",
                f"run {self._run_id} goes on and keeps what it logs, because {why}; it is sent when that is over",
            )
        self._pause = min(LONGEST_PAUSE, self._pause * 2 or INTERVAL)
        self._next_try = now + self._pause * random.uniform(0.5, 1.0)
        self._note_facts()

    def _resume(self) -> None:
        if self._pause:
            logger.warning("run %s logs to Redis again; all that it kept is stored", self._run_id)
            self._notes.again("away")
        self._pause = self._next_try = 0.0

    def _describe(self, error: Exception) -> str:
        from resweep_scheduler.store import StoreError

        if isinstance(error, StoreError):
            return str(error)
        logger.debug("run %s: sending failed", self._run_id, exc_info=error)
        return f"sending failed ({type(error).__name__}: {error})"

    def _note_facts(self, **facts: Any) -> None:
        """Write down what the outbox does not hold, for `resweep sync` after this process."""
        with self._config_lock:
            config = self._config_on_its_way | self._config
        if config:
            facts["config"] = config
        if self._summary.changed:
            facts["summary"] = self._summary.snapshot()
        if facts and facts != self._noted:
            self._noted = facts
            self._outbox.note(**facts)

    def _fall_silent(self, hold: Hold) -> None:
        self.silent = True
        rows = self._outbox.discard()
        what = "was removed" if hold == "gone" else "was taken over by another attempt"
        self._notes.once(
            "fenced",
            f"run {self._run_id} {what}; this process logs nothing more ({rows} rows dropped) and is of no further use",
        )
        self._refuse_all()
        self._drained.set()

    def _refuse_all(self) -> None:
        while not self._marks.empty():
            self._unanswered.append(self._marks.get())
        for ticket in self._unanswered:
            ticket.answer(False)
        for path, ticket in list(self._commits.items()):
            # What is refused is removed; the one in doubt may be what the successor goes on from.
            ticket.answer(None if path == self._in_doubt else False)
        self._unanswered.clear()
        self._commits.clear()
