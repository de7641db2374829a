"""The end of a run, which nothing may cut short: neither a second call, nor another thread, nor a signal."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from resweep.answers import Left
from resweep.notes import Notes
from resweep.saving import Checkpoints
from resweep.waiting import wait_for

if TYPE_CHECKING:
    from resweep.offline import Channel

END_TIMEOUT = 5.0
"""Seconds that rows and the end have in any case, when checkpoints have taken all the time that `finish` has."""


class Ending:
    """Sees to it that all that a run took is sent, or written down.

    Args:
        timeout: Seconds that it may take, of RESWEEP_FINISH_TIMEOUT.
        on_over: Called once, with the exit code, when that is so.

    Attributes:
        over: Whether it is.
    """

    def __init__(
        self,
        *,
        run_id: str,
        directory: str | os.PathLike[str],
        timeout: float,
        channel: Channel,
        checkpoints: Checkpoints,
        notes: Notes,
        on_over: Callable[[int], None],
    ) -> None:
        self.over = False
        self._run_id = run_id
        self._directory = directory
        self._timeout = timeout
        self._channel = channel
        self._checkpoints = checkpoints
        self._notes = notes
        self._on_over = on_over
        self._finisher = 0  # the thread that sees to it
        self._exit_code = 0
        self._deadline = 0.0

    def begin(self, exit_code: int) -> None:
        """From now on the time runs; called once, by the first thread that finishes the run."""
        self._finisher = threading.get_ident()
        self._exit_code = exit_code
        self._deadline = time.monotonic() + self._timeout

    def reach(self) -> None:
        """Have all sent or written down when this returns, or raises.

        The first call does it; others must not let the process end before. One of another thread waits for the first.
        One in a signal handler that interrupted the first takes its place, because the handler may end the process.
        """
        at_least = min(END_TIMEOUT, self._timeout)
        try:
            if self._finisher != threading.get_ident() and wait_for(lambda: self.over, self._timeout + at_least):
                return
            self._checkpoints.finish(round(max(0.0, self._deadline - time.monotonic()), 1))
            left = self._channel.close(self._exit_code, max(at_least, self._deadline - time.monotonic()))
        except BaseException:  # KeyboardInterrupt, or a handler's sys.exit()
            self._deadline = 0.0  # there is no time to wait
            self._conclude(self._channel.close(self._exit_code, 0.0))
            raise
        self._conclude(left)

    def _conclude(self, left: Left) -> None:
        if self.over:
            return
        if left.rows or left.end:
            what = f"{left.rows} rows" if left.rows else "its end"
            kept = "are kept in a file; send them" if left.rows else "is kept in a file; send it"
            when = f"within {self._timeout:g} s" if self._deadline else "before finish was interrupted"
            self._notes.once(
                "left",
                f"run {self._run_id}: {what} could not be sent {when} and {kept} with: resweep sync {self._directory}",
            )
        self.over = True
        self._on_over(self._exit_code)
