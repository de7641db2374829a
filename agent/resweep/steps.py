"""At which step a logged row stands, and when it is complete.

W&B's rules: ``log(values)`` writes the row of the current step and moves on to the next one; ``log(values, step=k)``
moves to step k and leaves its row open, so that further calls with k (or one without a step) add to it.

Two rules are resweep's own. A resumed attempt may begin below the step at which the run stands, because it goes on from
an older checkpoint: nothing that it logs is dropped, and its rows replace the earlier attempt's. And an open row can be
looked at, so that it is stored before the process that left it open dies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Row = tuple[int, dict[str, Any]]
"""A step and the values logged there."""


class StepLedger:
    """Puts values into rows. Not safe for threads: its owner locks.

    Attributes:
        step: The current step: where the next ``log`` without a step writes.
    """

    def __init__(self, starting_step: int, warn: Callable[[str], None]) -> None:
        self.step = starting_step
        self._warn = warn
        self._open: dict[str, Any] | None = None
        self._seen = False  # whether the open row was handed out by `look` as it stands
        self._free = True  # nothing was logged since the start or since a restore: any step may come

    @property
    def last_step(self) -> int | None:
        """The largest step that has values, of this attempt or of those before; None when there is none."""
        last = self.step if self._open else self.step - 1
        return last if last >= 0 else None

    def add(self, values: dict[str, Any], step: int | None, commit: bool | None) -> list[Row] | None:
        """Take values over and return the rows that became complete, at most two; None when the values are refused."""
        complete: list[Row] = []
        if step is not None and step != self.step:
            if step < 0:
                self._warn(f"log(step=) counts from 0, got {step}; the row is ignored")
                return None
            if step < self.step and not self._free:
                self._warn(
                    f"Tried to log to step {step} that is less than the current step {self.step}. Steps must be "
                    "monotonically increasing, so this data will be ignored. Leave step= out to log at the current one."
                )
                return None
            complete = self.close()
            self.step = step
        if values:
            self._free = False
            self._seen = False
            if self._open is None:
                self._open = values
            else:
                self._open.update(values)
        if (step is None if commit is None else commit) and self._open is not None:
            complete += self.close()
            self.step += 1
        return complete

    def close(self) -> list[Row]:
        """Complete the open row, if there is one that nobody has seen as it stands."""
        row, seen = self._open, self._seen
        self._open, self._seen = None, False
        return [] if row is None or seen else [(self.step, row)]

    def look(self) -> list[Row]:
        """The open row as it stands, unless it was seen so before. When it grows it will be given out again, whole."""
        if self._open is None or self._seen:
            return []
        self._seen = True
        return [(self.step, dict(self._open))]

    def go_to(self, step: int) -> list[Row]:
        """Go on at `step`, forwards or backwards, as after a restored checkpoint; returns the row that was open."""
        complete = self.close()
        self.step = step
        self._free = True
        return complete
