"""The thread that brings checkpoints to an object store, one after the other; of several that wait the newest wins."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from resweep.notes import logger
from resweep.saving import Saving
from resweep.waiting import wait_for

SUPERSEDED = "a newer checkpoint took its place before it was sent"
UNFINISHED = "the run was finished before it was sent"


class SupersededError(Exception):
    """A newer checkpoint, for which somebody waits, is to be sent at once."""


class AbandonedError(Exception):
    """The run is finished, and nobody waits any more."""


@dataclass(frozen=True, slots=True)
class Job:
    """One checkpoint to be sent.

    Attributes:
        send: Does it; gets a function to be called between two parts, which raises what shall end it.
        drop: Called in its place when it is not sent, and after it.
        urgent: Somebody waits for it: what is being sent now gives way.
    """

    saving: Saving
    send: Callable[[Callable[[], None]], None]
    drop: Callable[[], None]
    urgent: bool


class Uploads:
    """Jobs in the order in which they came. `put` may be called in a signal handler: it takes no lock."""

    def __init__(self, complain: Callable[[Saving, BaseException], None]) -> None:
        self._complain = complain
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._chores: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._urgent: SimpleQueue[None] = SimpleQueue()  # one for each urgent job that nobody has begun
        self._abandoned = False
        self._current: Saving | None = None
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def put(self, job: Job) -> None:
        """Have a job done, after the one that is being done."""
        if job.urgent:
            self._urgent.put(None)
        self._jobs.put(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._loop, name="resweep-uploads", daemon=True)
            self._thread.start()

    def wait(self, saving: Saving) -> None:
        """Wait until a checkpoint that was put is sent, or will not be."""
        while not saving.wait_for_transfer(1.0):
            if self._done.is_set():
                return

    def chore(self, call: Callable[[], None]) -> None:
        """Have something done that is less urgent than any job; what fails is left for the next time."""
        self._chores.put(call)

    def finish(self, timeout: float) -> Saving | None:
        """Do what waits, at most for `timeout` seconds; returns the checkpoint that is still being sent then."""
        if self._thread is None:
            return None
        self._jobs.put(None)
        if wait_for(self._done.is_set, timeout):
            return None
        self._abandoned = True
        return self._current

    def check(self) -> None:
        """Between two parts: whether to go on."""
        if self._abandoned:
            raise AbandonedError
        if not self._urgent.empty():
            raise SupersededError

    def _loop(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ending = False
        while not ending:
            job, ending = self._next()
            if job is not None:
                self._do(job)
            self._do_chores()
        self._done.set()

    def _next(self) -> tuple[Job | None, bool]:
        """The newest job that waits, and whether it is the last."""
        waiting = [self._jobs.get()]
        while True:
            try:
                waiting.append(self._jobs.get_nowait())
            except Empty:
                break
        jobs = [job for job in waiting if job is not None]
        for job in jobs:
            if job.urgent:
                self._urgent.get()
        for old in jobs[:-1]:
            old.drop()
            old.saving.failed(SUPERSEDED)
        return (jobs[-1] if jobs else None), None in waiting

    def _do(self, job: Job) -> None:
        self._current = job.saving
        try:
            job.send(self.check)
        except (SupersededError, AbandonedError) as ended:
            job.saving.failed(SUPERSEDED if isinstance(ended, SupersededError) else UNFINISHED)
        except BaseException as error:  # a panic of obstore's is no Exception, and must not end this thread
            job.saving.failed(str(error) or type(error).__name__)
            self._complain(job.saving, error)
        finally:
            job.drop()
            self._current = None

    def _do_chores(self) -> None:
        while self._jobs.empty():
            try:
                chore = self._chores.get_nowait()
            except Empty:
                return
            try:
                chore()
            except Exception as error:
                logger.debug("clearing away old checkpoints failed", exc_info=error)
