"""The search service: a watcher in a thread, and an RQ worker for background jobs in the main thread.

The worker executes jobs in this process (RQ's SimpleWorker), because warm searches live here. What that breaks is of no
harm to these jobs: it sends no heartbeats while it works, but each job has a time limit, and RQ counts from that; a job
that takes the process down with it is a hint that is lost.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from resweep_scheduler.search.source import NO_SOURCES, Sources
from resweep_scheduler.service.courier import Courier
from resweep_scheduler.service.jobs import Jobs, call_for, job_class
from resweep_scheduler.service.queue import QUEUE, NoQueueError, queue_client
from resweep_scheduler.service.retention import is_old
from resweep_scheduler.service.watcher import Watched, Watcher
from resweep_scheduler.service.webhooks import deliver_due, note_events, targets_of
from resweep_scheduler.store import Delivery, IllegalTransitionError, Store, StoreError
from resweep_scheduler.store.faults import translate

if TYPE_CHECKING:
    from rq.worker import SimpleWorker

    from resweep_scheduler.config.webhooks import Webhook

_log = logging.getLogger(__name__)

DAY_MS = 86_400_000
QUIET = 10.0
"""Seconds between two looks at the webhooks of a sweep that is over, and between two at its age."""
STUCK = 30.0
"""Seconds after which a job that gets no delivery done is dead: a receiver has five to answer."""
WORKER_TTL = 60
EXPIRE_TTL = 60
"""Seconds after which a removal that nobody began with is dropped; the next look asks again."""
MAINTENANCE_INTERVAL = 30
LONGEST_BURST = 600.0
"""Seconds after which a burst leaves the rest to the next one, as when a receiver hangs at every delivery."""
PAUSE = 2.0
"""Seconds before a worker that lost Redis is replaced."""


@dataclass(frozen=True, slots=True)
class SchedulerOptions:
    """What a service was started with.

    Attributes:
        url: Of Redis.
        name: For people.
        ahead: How many runs are kept ready; None decides by itself.
        keep_finished: Days after which sweeps that are over are removed; None keeps them.
        exports: The folder for exports in the background.
        webhook_url: Is called for every sweep, besides those that the configs name.
        burst: End when nothing is left to do.
        entity, project: Only sweeps of these are looked after; None for all.
        sources: The files that may be executed for searches.
    """

    url: str
    name: str
    ahead: int | None = None
    keep_finished: float | None = None
    exports: Path = Path("resweep-exports")
    webhook_url: str | None = None
    burst: bool = False
    entity: str | None = None
    project: str | None = None
    sources: Sources = NO_SOURCES


class Duties:
    """What is done for a sweep besides suggestions. With RQ the work itself is a job, without it is done here."""

    def __init__(self, options: SchedulerOptions, *, queued: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._queued = queued
        self._clock = clock
        self._next_look: dict[str, float] = {}
        self._blocked_since: dict[str, float] = {}
        self._first_due: dict[str, Delivery | None] = {}
        self._courier = Courier()
        self.unfinished: set[str] = set()
        """The sweeps for which the last look found deliveries that are due."""

    def __call__(self, watched: Watched) -> None:
        """Look at one sweep.

        Raises:
            StoreError: Redis does not answer, or refuses.
        """
        self.unfinished.discard(watched.sweep_id)
        now = self._clock()
        if now < self._next_look.get(watched.sweep_id, now):
            return
        targets = targets_of(watched.config, self._options.webhook_url)
        if not targets and self._options.keep_finished is None:
            return
        store, sweep_id = watched.store, watched.sweep_id
        now_ms = store.redis_time()  # events and deliveries have its time
        due = None
        if targets:
            due = note_events(store, sweep_id, targets, now_ms=now_ms, to_the_end=self._options.burst)
        if due is not None:
            self.unfinished.add(sweep_id)
            self._deliver(watched, targets)
        else:
            self._blocked_since.pop(sweep_id, None)
        over = store.sweep_state(sweep_id).is_over
        if over and due is None:
            self._next_look[sweep_id] = now + QUIET
            self._remove_if_old(watched, now_ms)

    def _deliver(self, watched: Watched, targets: dict[str, Webhook]) -> None:
        store, sweep_id = watched.store, watched.sweep_id
        if self._queued and not self._is_blocked(store, sweep_id):
            return

        def deliver() -> None:
            deliver_due(store, sweep_id, targets, now_ms=store.redis_time)

        if self._options.burst:
            deliver()  # there is nothing else to do, and nobody waits
        else:
            self._courier.ask_for(sweep_id, deliver)

    def _is_blocked(self, store: Store, sweep_id: str) -> bool:
        """Ask for a job; True when an earlier one is there that gets nothing done.

        The service that executed it was killed, and its id is blocked for some minutes. Deliveries that are late are no
        sign of that: each takes seconds when a receiver hangs. But then the first that is due is soon another one.
        """
        now, now_ms = self._clock(), store.redis_time()
        asked = call_for(self._options.url, "deliver", sweep_id)
        first = next((one for one in store.deliveries(sweep_id)[1] if one.due <= now_ms), None)
        if asked or first != self._first_due.get(sweep_id):
            self._blocked_since[sweep_id] = now
        self._first_due[sweep_id] = first
        return now - self._blocked_since.setdefault(sweep_id, now) > STUCK

    def _remove_if_old(self, watched: Watched, now_ms: int) -> None:
        days = self._options.keep_finished
        if days is None:
            return
        max_age_ms = round(days * DAY_MS)
        if not is_old(watched.store, watched.sweep_id, max_age_ms, now_ms=now_ms):
            return
        if self._queue("expire", watched.sweep_id, str(max_age_ms), ttl=EXPIRE_TTL):
            return
        try:
            watched.store.remove_sweep(watched.sweep_id, only_over=True)
        except IllegalTransitionError:  # a run of it came back to life, or somebody resumed it
            return

    def _queue(self, function: str, sweep_id: str, *more: str, ttl: int | None = None) -> bool:
        if self._queued:
            call_for(self._options.url, function, sweep_id, *more, ttl=ttl)
        return self._queued


class Scheduler:
    """One service process."""

    def __init__(self, options: SchedulerOptions) -> None:
        self._options = options
        try:
            queue_client(options.url)
        except NoQueueError:
            self.queued = False
        else:
            self.queued = True
        self._duties = Duties(options, queued=self.queued)
        self._watcher = Watcher(
            options.url,
            name=options.name,
            ahead=options.ahead,
            duties=self._duties,
            entity=options.entity,
            project=options.project,
            sources=options.sources,
        )
        self._jobs = Jobs(self._watcher, exports=options.exports, webhook_url=options.webhook_url)
        self._stop = threading.Event()
        self._asked_to_end = False  # by a signal, in the main thread: an event's lock could be held by the same thread

    def run(self) -> None:
        """Work until SIGINT or SIGTERM; with `burst` until nothing is left.

        Raises:
            StoreError: Redis does not answer at the beginning, or refuses.
        """
        from rq.exceptions import StopRequested

        # RQ's workers have handlers of their own, from some moment after their start on, and leave them when they end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take_signal)
        with contextlib.suppress(StopRequested):
            if self._options.burst:
                self._burst()
            else:
                self._serve()

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        from rq.exceptions import StopRequested

        self._asked_to_end = True
        raise StopRequested

    def _serve(self) -> None:
        self._watcher.step()
        thread = threading.Thread(target=self._watcher.run, args=(self._stop,), name="watcher", daemon=True)
        thread.start()
        try:
            self._work_on() if self.queued else self._wait()
        finally:
            self._stop.set()
            thread.join(5.0)
            with contextlib.suppress(StoreError):
                self._watcher.withdraw()

    def _burst(self) -> None:
        """Look and work in turns, because one job makes only some of the deliveries that are due."""
        ends = time.monotonic() + LONGEST_BURST
        while not self._asked_to_end:
            self._watcher.step(at_once=True)
            worked = self._work(burst=True) if self.queued else True
            # Without work the job is in other hands, or blocked: nothing would change.
            if not self._duties.unfinished or not worked or time.monotonic() >= ends:
                return

    def _work_on(self) -> None:
        """Replace the worker as long as Redis takes it from us, and nobody asks us to end."""
        while not self._asked_to_end:
            try:
                self._work(burst=False)
            except StoreError as error:
                _log.warning("worker-lost: %s", error)
            if not self._asked_to_end:
                time.sleep(PAUSE)

    def _work(self, *, burst: bool) -> bool:
        """Execute jobs until the process is asked to end; with `burst` those that wait. Returns whether there were any.

        Raises:
            StoreError: Redis went away.
        """
        from redis.exceptions import RedisError

        try:
            return self._worker().work(burst=burst, logging_level="CRITICAL")
        except (RedisError, OSError) as error:
            raise translate(error, self._options.url) from error

    def _note_request(self) -> None:
        self._asked_to_end = True

    def _worker(self) -> SimpleWorker:
        from redis.exceptions import RedisError
        from rq import Queue, SimpleWorker
        from rq.serializers import JSONSerializer

        note_request = self._note_request

        class Worker(SimpleWorker):
            def request_stop(self, signum: int, frame: FrameType | None) -> None:
                # Before anything else: a worker that cannot reach Redis forgets that it was asked.
                note_request()
                with contextlib.suppress(RedisError, OSError):
                    super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

        known = job_class(self._jobs.table())
        connection = queue_client(self._options.url)
        queue = Queue(QUEUE, connection=connection, serializer=JSONSerializer, job_class=known)
        return Worker(
            [queue],
            name=f"{self._options.name}-{secrets.token_hex(4)}",
            connection=connection,
            serializer=JSONSerializer,
            job_class=known,
            worker_ttl=WORKER_TTL,
            maintenance_interval=MAINTENANCE_INTERVAL,
            log_job_description=False,
        )

    def _wait(self) -> None:
        while not self._asked_to_end:
            time.sleep(1.0)
