"""Signals as notices: the source that is always there."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from resweep_agent.notices.base import Notice

NOTICE_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SLURM and submitit send the user's signals as notices; without a handler they would end the agent."""


class SignalSource:
    """SIGTERM, SIGHUP and the user's signals are notices; SIGINT once means to finish, twice is a notice.

    The handlers set flags and nothing else. A signal that is ignored when the agent starts (nohup) stays ignored.
    Outside the main thread no handler can be set: then this source is silent.
    """

    def __init__(self) -> None:
        self._notice: Notice | None = None
        self._interrupts = 0
        self._previous: dict[int, Any] = {}
        self._previous_wakeup: int | None = None

    @property
    def finish_requested(self) -> bool:
        """True after the first SIGINT: finish what runs, claim nothing more."""
        return self._interrupts > 0

    @property
    def preemptible(self) -> bool:
        """A signal says nothing of the machine before it comes."""
        return False

    def start(self, wake_descriptor: int) -> None:
        """Set the handlers; Python writes a byte to `wake_descriptor` for each signal."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._previous_wakeup = signal.set_wakeup_fd(wake_descriptor, warn_on_full_buffer=False)
        for number in NOTICE_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._previous[number] = signal.signal(number, self._on_notice)
        self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)

    def poll(self) -> Notice | None:
        """Return the notice if one came."""
        return self._notice

    def stop(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()
        if self._previous_wakeup is not None:
            signal.set_wakeup_fd(self._previous_wakeup)
            self._previous_wakeup = None

    def _on_notice(self, number: int, frame: FrameType | None) -> None:
        if self._notice is None:
            self._notice = Notice(signal.Signals(number).name)

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._interrupts >= 2 and self._notice is None:
            self._notice = Notice("Ctrl-C pressed twice")
