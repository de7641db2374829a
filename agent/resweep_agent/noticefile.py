"""The file by which the processes of an attempt learn that their machine goes, also without a signal."""

from __future__ import annotations

import glob
import logging
from dataclasses import dataclass
from pathlib import Path

from resweep_agent.logs import event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NoticeFile:
    """One line: "preempting SOURCE", or "stop REASON" when a person or the sweep ends the run.

    A process that looks for it, and would be ended by the signal, says so by a file of the same name with
    ".watched-PID" behind it (`resweep.preemption`).
    """

    path: Path

    def prepare(self) -> None:
        """Make its folder, in which the script may leave its mark. Whatever cannot be written is said by `write`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._failed(error)

    def write(self, word: str, reason: str) -> bool:
        """Write it, at once or not at all; False when the disk does not take it."""
        part = self.path.with_name(f".{self.path.name}")
        try:
            part.write_text(f"{word} {reason}\n", encoding="utf-8")
            part.rename(self.path)
        except OSError as error:
            self._failed(error)
            return False
        return True

    @property
    def watched(self) -> bool:
        """Whether a process of the attempt wants to be told by the file alone."""
        return any(self.path.parent.glob(f"{glob.escape(self.path.name)}.watched-*"))

    def _failed(self, error: OSError) -> None:
        event(
            _log, logging.WARNING, "notice-file-failed", path=self.path, error=error, next="the signal tells it alone"
        )
