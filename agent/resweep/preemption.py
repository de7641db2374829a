"""How a script learns that its machine will be taken away: a flag, and callbacks.

The agent writes the file that RESWEEP_NOTICE_FILE names before it sends the signal that RESWEEP_NOTICE_SIGNAL names.
Its first word is "preempting" for a notice, and "stop" when a person or the sweep ends the run. A thread looks for it,
from the first time that the script asks on; nothing is changed in a process that never asks.

A process that asks, and has no handler of its own for the signal, leaves a file "….watched-PID" beside it: then the
agent sends no signal. So the flag can be looked at before the signal's default action ends the process, and helper
processes (of a data loader, say) live on while the script saves.

Signals that do not come from the agent (SLURM and systemd send SIGTERM to every process of a job) end a script all the
same, unless it called ``on_preempt``: that makes them notices, by a handler where there was none.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

from resweep.notes import logger

INTERVAL = 0.1  # seconds between two looks at the file
DEFAULT_ACTIONS = (signal.SIG_DFL, signal.default_int_handler)

Callback = TypeVar("Callback", bound=Callable[[], object])


class NoticeWatch:
    """Looks for a notice to this process.

    Nothing here takes a lock that a signal handler could wait for.

    Args:
        file: What the agent writes; None outside an agent.
        number: The signal that the agent sends; None when it sends none.
    """

    def __init__(self, file: Path | None, number: signal.Signals | None) -> None:
        self._file = file
        self._signal = number
        self._told = False
        self._callbacks: deque[Callable[[], object]] = deque()
        self._owner = os.getpid()
        self._watcher = 0  # the process in which the thread runs
        self._thread: threading.Thread | None = None
        self._closing: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._handled: list[signal.Signals] = []
        self._mark: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> NoticeWatch:
        """As the agent says; outside one, SIGTERM is what ``on_preempt`` makes a notice."""
        file = environ.get("RESWEEP_NOTICE_FILE")
        name = environ.get("RESWEEP_NOTICE_SIGNAL", "")
        return cls(Path(file) if file else None, signal.Signals.__members__.get(name))

    def told(self) -> bool:
        """Whether a notice has come; the first call starts to look."""
        self._begin()
        return self._told

    def call(self, callback: Callable[[], object]) -> None:
        """Have it called once, in the thread that looks: after the notice, or at once if that has come."""
        if threading.current_thread() is threading.main_thread():
            self._make_signals_notices()
        self._callbacks.append(callback)
        self._begin()

    def close(self, patience: float) -> None:
        """Look no more. Callbacks that run are waited for, at most `patience` seconds."""
        if os.getpid() != self._owner or self._closed:
            return
        self._closing.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)
        self._closed = True
        if threading.current_thread() is threading.main_thread():
            for number in self._handled:
                if signal.getsignal(number) == self._on_signal:
                    signal.signal(number, signal.SIG_DFL)
        if self._mark is not None:
            with suppress(OSError):
                self._mark.unlink()

    def _begin(self) -> None:
        if self._watcher == os.getpid() or self._closed:
            return
        self._watcher = os.getpid()
        if self._watcher == self._owner:
            self._leave_mark()
        else:  # forked: the thread and the callbacks are the parent's
            self._callbacks, self._closing = deque(), SimpleQueue()
        self._look()
        self._thread = threading.Thread(target=self._loop, name="resweep-notice", daemon=True)
        self._thread.start()

    def _leave_mark(self) -> None:
        if self._file is None or self._signal is None:
            return
        if signal.getsignal(self._signal) in (*DEFAULT_ACTIONS, self._on_signal):
            mark = self._file.with_name(f"{self._file.name}.watched-{os.getpid()}")
            with suppress(OSError):  # without it the signal comes, too
                mark.touch()
                self._mark = mark

    # The thread.

    def _loop(self) -> None:
        # Signals are for the main thread: one delivered here would not interrupt what it waits for.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ending = False
        while not ending:
            with suppress(Empty):
                self._closing.get(timeout=INTERVAL)
                ending = True
            self._look()
            while self._told and self._callbacks:
                self._run(self._callbacks.popleft())

    def _look(self) -> None:
        if not self._told and self._word() == "preempting":
            self._told = True

    def _run(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except BaseException as error:
            logger.warning(
                "%r, which was to be called on preemption, failed (%s: %s); the training goes on",
                callback,
                type(error).__name__,
                error,
                exc_info=error,
            )

    def _word(self) -> str:
        if self._file is None:
            return ""
        try:
            return self._file.read_text(encoding="utf-8").partition(" ")[0]
        except OSError:
            return ""

    # Signals.

    def _make_signals_notices(self) -> None:
        for number in {self._signal or signal.SIGTERM, signal.SIGTERM}:
            if not self._closed and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, self._on_signal)
                self._handled.append(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._closed or os.getpid() != self._owner or self._word() == "stop":
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        else:
            self._told = True


class Preempting:
    """Whether this machine will be taken away: like a ``threading.Event``, but that others set it.

    It is set within a tenth of a second after the agent's notice, by a signal after ``on_preempt``, and by
    ``mark_preempting``.
    """

    def __init__(self, watch: NoticeWatch) -> None:
        self._watch = watch
        self._marked = False

    def is_set(self) -> bool:
        """True from the notice on. Never blocks."""
        return self._marked or self._watch.told()

    __bool__ = is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Return True as soon as it is set, False after `timeout` seconds without; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = INTERVAL if deadline is None else deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(INTERVAL, left))
        return True

    def mark(self) -> None:
        """The script itself said so."""
        self._marked = True

    def __repr__(self) -> str:
        return f"<preempting: {self.is_set()}>"
