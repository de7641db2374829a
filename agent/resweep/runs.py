"""A run as a training script sees it."""

from __future__ import annotations

import operator
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from resweep.configuration import Config
from resweep.ending import Ending
from resweep.exitstatus import code_of
from resweep.notes import Notes
from resweep.preemption import Callback, NoticeWatch, Preempting
from resweep.saving import Checkpoints, Saving
from resweep.steps import StepLedger
from resweep.summaries import Summary
from resweep.values import plain, plain_row

if TYPE_CHECKING:
    from resweep.offline import Channel
    from resweep_scheduler.store import Checkpoint


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a run when it begins, and does not change."""

    run_id: str
    entity: str
    project: str
    sweep_id: str | None
    name: str
    group: str
    notes: str
    tags: tuple[str, ...]
    directory: Path
    attempt: int
    resumed: bool
    starting_step: int
    checkpoint: Checkpoint | None
    finish_timeout: float
    mark_timeout: float


class Run:
    """One attempt of a run, from ``resweep.init`` to ``finish``.

    As a context manager it finishes itself: with exit code 0, 1 after an exception, 255 after KeyboardInterrupt, and
    SystemExit's own code. Nothing here raises because Redis is away.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        config: Config,
        summary: Summary,
        ledger: StepLedger,
        notes: Notes,
        checkpoints: Checkpoints,
        on_finish: Callable[[Run, int], None],
    ) -> None:
        self._facts = facts
        self._config = config
        self._summary = summary
        self._ledger = ledger
        self._notes = notes
        self._checkpoints = checkpoints
        self._on_finish = on_finish
        self._channel: Channel
        self._calls: deque[tuple[dict[str, Any], int | None, bool | None]] = deque()
        self._applying = False
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._watch = NoticeWatch.from_environment(os.environ)
        self._preempting = Preempting(self._watch)
        self._checkpoint_step: int | None = None
        self._finished = False  # takes no rows any more
        self._ending: Ending

    def begin(self, channel: Channel) -> None:
        """Connect it to what carries its rows; called once, by ``init``."""
        self._channel = channel
        self._ending = Ending(
            run_id=self.id,
            directory=self._facts.directory,
            timeout=self._facts.finish_timeout,
            channel=channel,
            checkpoints=self._checkpoints,
            notes=self._notes,
            on_over=lambda exit_code: self._on_finish(self, exit_code),
        )
        self._config.listen(lambda name: channel.change_config({name: Config.as_dict(self._config)[name]}))
        self._checkpoints.begin(channel, self._facts.checkpoint)
        channel.start()

    @property
    def id(self) -> str:
        """The run's id, the same over its whole life."""
        return self._facts.run_id

    @property
    def entity(self) -> str:
        return self._facts.entity

    @property
    def project(self) -> str:
        return self._facts.project

    @property
    def sweep_id(self) -> str | None:
        """The sweep that the run belongs to, None outside one."""
        return self._facts.sweep_id

    @property
    def name(self) -> str:
        """The display name; the id when none was given."""
        return self._facts.name or self._facts.run_id

    @property
    def group(self) -> str:
        return self._facts.group

    @property
    def notes(self) -> str:
        return self._facts.notes

    @property
    def tags(self) -> tuple[str, ...]:
        return self._facts.tags

    @property
    def dir(self) -> str:
        """The directory in which the run keeps its files, in a folder ``resweep``."""
        return str(self._facts.directory)

    @property
    def config(self) -> Config:
        """The run's config; what the sweep chose is locked."""
        return self._config

    @property
    def summary(self) -> Summary:
        """One value per logged name, kept over all attempts."""
        return self._summary

    @property
    def step(self) -> int:
        """Where the next ``log`` without a step writes."""
        return self._ledger.step

    @property
    def starting_step(self) -> int:
        """The first step of this attempt: the last one logged before, plus 1."""
        return self._facts.starting_step

    @property
    def resumed(self) -> bool:
        """True when the run was initialised before, and goes on now."""
        return self._facts.resumed

    @property
    def attempt(self) -> int:
        """Which execution of the run this is, from 1."""
        return self._facts.attempt

    @property
    def preempting(self) -> Preempting:
        """A flag that is set when this machine will be taken away: by a notice, and by ``mark_preempting``."""
        return self._preempting

    @property
    def finished(self) -> bool:
        return self._finished

    @property
    def checkpoint_step(self) -> int | None:
        """The step of the checkpoint that `restore_checkpoint` brought; None before, and without one."""
        return self._checkpoint_step

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """Log values at the current step, or at `step`. Returns at once and never raises.

        Args:
            data: Names and values: numbers, texts, booleans, None, lists and dicts of them, scalars of numpy and torch.
            step: Where to write; not below the current step. Calls with the same step write one row.
            commit: Whether the row is complete, so that the next call writes the next step; by default it is when no
                `step` is given.
        """
        if self._channel.silent or os.getpid() != self._pid:
            return
        try:
            if self._finished:
                self._notes.once(
                    "finished", f"run {self.id} is finished and logs nothing more; call resweep.init() again"
                )
                return
            row = plain_row(data, self._notes.odd_value)
            self._calls.append((row, None if step is None else operator.index(step), commit))
            self._apply()
        except Exception as error:
            self._notes.once(
                f"log {type(error).__name__}",
                f"log() takes a dict of names and values, and a step that is a whole number; a call is ignored "
                f"({type(error).__name__}: {error})",
            )

    def _apply(self) -> None:
        """Put the calls that wait into rows. A call from a signal handler, in the midst of another, waits its turn."""
        with self._lock:
            if self._applying:
                return
            try:
                self._applying = True
                while self._calls:
                    values, step, commit = self._calls.popleft()
                    complete = self._ledger.add(values, step, commit)
                    if complete is not None:
                        self._summary.observe(values)
                        for row in complete:
                            self._channel.put(*row)
            finally:
                self._applying = False

    def put_open_row(self) -> None:
        """Have the row that is not complete sent, unless it was as it stands; for the thread that sends.

        Under the lock: the row as it was must not come after the one that `log` completes meanwhile.
        """
        if not self._lock.acquire(timeout=0.1):
            return
        try:
            for row in self._ledger.look():
                self._channel.put(*row)
        finally:
            self._lock.release()

    def define_metric(self, name: str, summary: str | None = None, step_metric: str | None = None, **_: object) -> None:
        """Choose what the summary keeps of a metric: "last" (the default), "min", "max", "mean" or "none".

        `name` may be a pattern such as ``val/*``. W&B's other arguments are accepted and change nothing.

        Raises:
            UsageError: There is no such choice.
        """
        with self._lock:
            self._summary.define(name, summary)

    def mark_preempting(self) -> bool:
        """Say that this machine will be taken away: any end but exit code 0 puts the run back on its sweep's run queue.

        Returns True as soon as Redis has it, False when it did not answer within RESWEEP_MARK_TIMEOUT (5 s); the mark
        is then sent as soon as it answers. May be called in a signal handler, and more than once.
        """
        if os.getpid() != self._pid:
            return False
        self._preempting.mark()
        return self._channel.mark_preempting(self._facts.mark_timeout)

    def on_preempt(self, callback: Callback) -> Callback:
        """Have `callback()` called once, within a tenth of a second after a notice; at once if that has come.

        It is called in a thread of its own while the training goes on: what it raises is logged, and ``finish`` waits
        for it. The script has to end by itself, at the latest when the grace is over. Also a decorator.

        In the main thread SIGTERM and the sweep's ``preemption.signal`` become notices where their action is the
        default one, until ``finish``.
        """
        self._watch.call(callback)
        return callback

    @overload
    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: Literal[True] = True,
    ) -> Path: ...
    @overload
    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        wait: Literal[False],
    ) -> Saving: ...
    @overload
    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Path | Saving: ...
    def save_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        wait: bool = True,
    ) -> Path | Saving:
        """Copy a file or a folder to where the run's next attempt finds it, and make it the one to go on from.

        Where that is, and how many are kept, the sweep's ``checkpoint:`` says, or ``init``. Then waits up to
        RESWEEP_MARK_TIMEOUT (5 s) until Redis has it; if Redis is away it is committed later, after the rows that were
        logged before. Saves nothing on ranks other than 0, and in an attempt that was taken over.

        Args:
            step: The step that the checkpoint completes; by default the last one logged.
            metadata: Kept with it, for people and programs to read.
            wait: False: to an object store it is sent in the background, from a copy, and a newer one takes the place
                of one that waits for its turn. ``finish`` waits for it.

        Returns:
            The copy in the checkpoint folder; `path` where that is an object store, or where nothing is saved. With
            ``wait=False`` a handle: ``committed``, ``error``, ``wait(timeout)``.

        Raises:
            UsageError: There is nothing at `path`.
            OSError: It cannot be read or copied. That an object store fails is only told, by a warning.
        """
        source = Path(path)
        if self._channel.silent or self._finished or os.getpid() != self._pid:
            why = f"run {self.id}: this process saves no checkpoints (rank 0 does, before finish)"
            self._notes.once("checkpoint", why)
            saving = Saving(source, step)
            saving.failed(why)
        else:
            with self._lock:
                self._apply()
                last = self._ledger.last_step if step is None else operator.index(step)
                for row in self._ledger.look():
                    self._channel.put(*row)
            clean = plain(metadata or {}, "metadata", self._notes.odd_value)
            saving = self._checkpoints.save(source, last, clean, wait=wait)
        return saving.path if wait else saving

    def restore_checkpoint(self) -> Path | None:
        """Bring the checkpoint to go on from to this machine; None when there is none.

        The next ``log`` continues after its step, and rows logged again take the place of the earlier attempt's. It is
        the one that was committed last; when that one is damaged or missing, the one before, with a warning.

        Raises:
            CommError: The object store cannot be reached within RESWEEP_INIT_TIMEOUT. Starting anew would be worse.
        """
        found = self._checkpoints.restore()
        self._checkpoint_step = None if found is None else found.step
        if found is None:
            return None
        if found.step is not None:
            with self._lock:
                for row in self._ledger.go_to(found.step + 1):
                    self._channel.put(*row)
        return found.path

    def finish(self, exit_code: int = 0) -> None:
        """Send what waits, at most RESWEEP_FINISH_TIMEOUT (30 s), and end the run. Changes nothing when called again.

        When checkpoints take all that time, rows and the end have up to 5 s more.
        Returns when all is sent, or written down for ``resweep sync``; what interrupts it has it written down at once.

        Inside a sweep the agent reports the end by the exit status of the process; `exit_code` counts outside only.
        """
        if self._ending.over or os.getpid() != self._pid:
            return
        if not self._finished:
            self._watch.close(self._facts.finish_timeout)
        with self._lock:
            if not self._finished:  # neither before nor, by a callback, while it was waited for
                self._applying = False  # this may be a signal handler that interrupted `log`, which will not go on
                self._apply()
                for row in self._ledger.close():
                    self._channel.put(*row)
                self._ending.begin(exit_code)
                self._finished = True
        self._ending.reach()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(code_of(error))

    def __repr__(self) -> str:
        return f"<resweep run {self.entity}/{self.project}/{self.id}, attempt {self.attempt}>"
