"""The thread that keeps the leases: heartbeats, adoption after an outage, and the tail of the output.

It never touches a slot. What the main thread must know goes to `post`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from resweep_agent.link import Backoff, Link
from resweep_agent.logs import event
from resweep_agent.output import OutputStream
from resweep_agent.pruning import Pruner
from resweep_scheduler.store import (
    ClaimedRun,
    ClaimToken,
    HeartbeatAnswer,
    Hold,
    Store,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)

_log = logging.getLogger(__name__)

OUTPUT_INTERVAL = 1.0
"""Seconds between two pieces of output of one run to Redis, at least."""
LAST_OUTPUT = 2.0
"""Seconds that the end of a run's output may take from the pipe to us."""
LEAVING_POLL = 0.1
"""Seconds between two looks whether it has come."""
LONGEST_HOLD = 0.5
"""Seconds that a heartbeat waits for a busy main thread."""
LAST_WORDS = 3.0
"""Seconds that the end of the agent waits for the thread to finish what it sends."""
LAST_TRIES = 2
"""Tries to send the output that is left at the end."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a heartbeat answered, where the main thread must act."""

    token: ClaimToken
    hold: Hold
    stop: str


@dataclass(slots=True)
class _Kept:
    agent: str
    run: ClaimedRun
    output: OutputStream | None
    beat_at: float = 0.0
    output_at: float = 0.0
    leaves_at: float = 0.0  # the end of the wait for the end of its output, once its attempt is over


@dataclass(slots=True)
class _Plan:
    """What is done in one step, taken under the lock and done without it."""

    beats: list[_Kept] = field(default_factory=list)
    outputs: list[_Kept] = field(default_factory=list)
    next_at: float | None = None


class Heart:
    """Keeps the leases of all slots.

    Args:
        store: Answers within a third of a lease.
        interval: Seconds between the heartbeats of a run.
        block: Seconds that a wait for a poke may block, below the timeout of the connection.
        post: Takes what the main thread must know; called from the thread.
        pruner: Judges the same runs, where the sweep names one of Optuna's pruners.

    Attributes:
        preemptible: The machine turned out to be one that may be taken away: heartbeats say so of their runs.
    """

    def __init__(
        self,
        store: Store,
        *,
        sweep_id: str,
        session: str,
        lease_ms: int,
        interval: float,
        block: float,
        post: Callable[[Beat], None],
        link: Link,
        pruner: Pruner | None = None,
    ) -> None:
        self._store = store
        self._pruner = pruner
        self._sweep_id = sweep_id
        self._session = session
        self._lease_ms = lease_ms
        self._interval = interval
        self._block = block
        self._post = post
        self._link = link
        self._backoff = Backoff()
        self.preemptible = False
        self._away = False
        self._kept: dict[ClaimToken, _Kept] = {}
        self._leaving: list[_Kept] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._sending = threading.Lock()
        self._calm = threading.Event()
        self._calm.set()
        self._thread = threading.Thread(target=self._run, name="resweep-heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()
        if self._pruner is not None:
            self._pruner.start()

    def keep(self, agent: str, run: ClaimedRun, output: OutputStream | None) -> None:
        """From now on the lease of `run` is kept; its first heartbeat says that the child is launched. Main thread."""
        with self._changed:
            self._kept[run.token] = _Kept(agent, run, output)
            self._changed.notify()
        if self._pruner is not None:
            self._pruner.keep(run.token)

    def drop(self, token: ClaimToken, *, send_output: bool) -> None:
        """The attempt is over; `send_output`: the rest of its output still goes to Redis. Main thread."""
        if self._pruner is not None:
            self._pruner.drop(token)
        with self._changed:
            kept = self._kept.pop(token, None)
            if kept is not None and send_output and kept.output is not None:
                kept.leaves_at = time.monotonic() + LAST_OUTPUT
                self._leaving.append(kept)
                self._changed.notify()

    def hold(self) -> None:
        """The main thread is between two runs: it shall not have to share the interpreter. Main thread."""
        self._calm.clear()

    def release(self) -> None:
        """The main thread sleeps. Main thread."""
        self._calm.set()

    def close(self) -> None:
        """Stop, and send the output that is left. The thread may take a moment to notice; nothing waits for it."""
        if self._pruner is not None:
            self._pruner.close()
        with self._changed:
            self._stopping = True
            self._changed.notify()
        # What the thread is sending just now must have arrived before the process ends.
        sent_by_thread = self._sending.acquire(timeout=LAST_WORDS)
        try:
            for left in range(LAST_TRIES - 1, -1, -1):
                try:
                    self._send_all_leaving()
                    return
                except StoreError as error:
                    if not left:
                        event(_log, logging.INFO, "output-unsent", error=error)
        finally:
            if sent_by_thread:
                self._sending.release()

    def step(self, now: float) -> float | None:
        """Send what is due; return when the next is due, None when nothing is kept."""
        plan = self._plan(now)
        try:
            for kept in plan.beats:
                self._beat(kept, now)
            for kept in plan.outputs:
                self._send_output(kept)
            leaving_at = self._send_leaving(now)
        except (StoreUnavailableError, StoreRefusedError) as error:
            return now + self._failed(error, now)
        if plan.beats or plan.outputs:
            self._worked(now)
        return min((at for at in (plan.next_at, leaving_at) if at is not None), default=None)

    def hurry(self) -> None:
        """Heartbeat everything in the next step."""
        with self._changed:
            for kept in self._kept.values():
                kept.beat_at = 0.0

    def _plan(self, now: float) -> _Plan:
        plan = _Plan()
        with self._changed:
            for kept in self._kept.values():
                if kept.beat_at <= now:
                    plan.beats.append(kept)
                if kept.output is not None and kept.output_at <= now and kept.output.has_tail:
                    plan.outputs.append(kept)
                    kept.output_at = now + OUTPUT_INTERVAL
                due = now + self._interval if kept.beat_at <= now else kept.beat_at
                plan.next_at = due if plan.next_at is None else min(plan.next_at, due)
        return plan

    def _beat(self, kept: _Kept, now: float) -> None:
        token = kept.run.token
        answer = self._store.heartbeat(
            self._sweep_id,
            agent=kept.agent,
            token=token,
            lease_ms=self._lease_ms,
            preemptible=self.preemptible,
        )
        kept.beat_at = now + self._interval
        if answer.hold in (Hold.LAPSED, Hold.STALE):
            # Stale may also mean that Redis forgot our claim (a rollback): adopting finds out.
            answer = self._adopt(kept)
        # ENDED: the main thread reported the end in this very moment.
        if answer.hold in (Hold.STALE, Hold.GONE) or (answer.hold is Hold.OWNER and answer.stop):
            self._post(Beat(token, answer.hold, answer.stop))

    def _adopt(self, kept: _Kept) -> HeartbeatAnswer:
        run = kept.run
        answer = self._store.adopt(
            self._sweep_id, agent=kept.agent, token=run.token, claimed_at=run.claimed_at, lease_ms=self._lease_ms
        )
        if answer.hold is Hold.OWNER:
            event(_log, logging.WARNING, "run-adopted", run=run.token.run_id, attempt=run.token.attempt)
        return answer

    def _send_output(self, kept: _Kept) -> None:
        if kept.output is None:
            return
        piece = kept.output.take_tail()
        if piece is None:
            return
        try:
            self._store.append_output(kept.run.token, piece.text, piece=piece.number)
        except StoreError:
            kept.output.put_back(piece)
            raise

    def _send_leaving(self, now: float) -> float | None:
        """Send the rest of one attempt's output, so that heartbeats come between; return when the next may be sent.

        Nobody waits here for the end of an output: the thread that reads it may be held up by a terminal.
        """
        with self._changed:
            kept = next((each for each in self._leaving if _has_all(each) or now >= each.leaves_at), None)
            if kept is None:
                return now + LEAVING_POLL if self._leaving else None
        # It stays in the list until its output has arrived: a reply may be lost.
        while kept.output is not None and kept.output.has_tail:
            self._send_output(kept)
        with self._changed:
            if kept in self._leaving:
                self._leaving.remove(kept)
            return now if self._leaving else None

    def _send_all_leaving(self) -> None:
        while (again_at := self._send_leaving(time.monotonic())) is not None:
            time.sleep(max(0.0, again_at - time.monotonic()))

    def _failed(self, error: StoreError, now: float) -> float:
        self._away = True
        if not self._stopping:
            self._link.failed(error, now)
        return self._backoff.next_pause()

    def _worked(self, now: float) -> None:
        if self._away:
            # After an outage every lease is looked at at once: some may have to be adopted.
            self.hurry()
        self._away = False
        self._backoff.reset()
        self._link.worked(now)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._calm.wait(LONGEST_HOLD)
                with self._sending:
                    next_at = self.step(time.monotonic())
                self._sleep(next_at)
            except Exception:
                # A fault of ours must not end the thread: the leases of healthy runs would run out.
                _log.exception("heartbeat-fault")
                self._pause(self._backoff.next_pause())

    def _sleep(self, next_at: float | None) -> None:
        if next_at is None:
            with self._changed:
                self._changed.wait_for(lambda: self._kept or self._leaving or self._stopping)
            return
        seconds = next_at - time.monotonic()
        if seconds <= 0:
            return
        if self._away:
            self._pause(seconds)
            return
        now = time.monotonic()
        try:
            if self._store.wait_for_poke(self._sweep_id, session=self._session, timeout=min(seconds, self._block)):
                self.hurry()
        except (StoreUnavailableError, StoreRefusedError) as error:
            self._pause(self._failed(error, now))

    def _pause(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping, timeout=seconds)


def _has_all(kept: _Kept) -> bool:
    return kept.output is None or kept.output.closed.is_set()
