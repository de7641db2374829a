"""Reading when attempts logged which steps, without reading whole histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resweep_scheduler.store.base import StoreBase

_FLIGHT = 500  # windows a flight
_FIRST_ROWS = 4  # the last rows of the attempt before may have come in the millisecond of the claim
_FIRST_PAGE = 16  # rows from the end of a window
_PAGE = 512


@dataclass(frozen=True, slots=True)
class Window:
    """The time in which the rows of one attempt came: from its claim until the next one's."""

    run_id: str
    attempt: int
    start: int
    end: int | None = None  # exclusive


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of what an attempt logged, by a step.

    Attributes:
        last_before: When its last row below the step came, ms; None when there is none.
        from_there: How many of its steps are not below it.
    """

    last_before: int | None
    from_there: int


class StepReads(StoreBase):
    """Reads of what preemption cost. The more rows an attempt lost, the more are read of it."""

    def first_steps(self, windows: Sequence[Window]) -> list[int | None]:
        """The first step that each attempt logged; None for one that logged nothing."""
        rows: list[Any] = []
        for page in _pages(windows):

            def fill(pipe: Any, page: Sequence[Window] = page) -> None:
                for window in page:
                    key = self.keys.run(window.run_id, "history")
                    pipe.xrange(key, str(window.start), _until(window), count=_FIRST_ROWS)

            rows += self._read(fill)
        return [_first_of(window.attempt, found) for window, found in zip(windows, rows, strict=True)]

    def tails(self, windows: Sequence[Window], steps: Sequence[int | None]) -> list[Tail]:
        """For each attempt what stands before and after a step; with None everything stands before it."""
        lost: list[set[int]] = [set() for _ in windows]
        found: list[int | None] = [None] * len(windows)
        open_ones = {place: _until(window) for place, window in enumerate(windows)}
        size = _FIRST_PAGE
        while open_ones:
            for page in _pages(sorted(open_ones)):

                def fill(pipe: Any, page: Sequence[int] = page, size: int = size) -> None:
                    for place in page:
                        key = self.keys.run(windows[place].run_id, "history")
                        pipe.xrevrange(key, open_ones[place], str(windows[place].start), count=size)

                for place, rows in zip(page, self._read(fill), strict=True):
                    found[place] = _look(rows, windows[place].attempt, steps[place], lost[place])
                    if found[place] is not None or len(rows) < size:
                        del open_ones[place]
                    else:
                        open_ones[place] = f"({rows[-1][0]}"
            size = _PAGE
        return [Tail(at, len(after)) for at, after in zip(found, lost, strict=True)]


def _first_of(attempt: int, rows: Sequence[Any]) -> int | None:
    return next((int(fields["step"]) for _, fields in rows if int(fields["attempt"]) == attempt), None)


def _look(rows: Sequence[Any], attempt: int, step: int | None, lost: set[int]) -> int | None:
    """Goes back through rows to the last one below the step, and gathers the steps after it."""
    for entry, fields in rows:
        if int(fields["attempt"]) != attempt:
            continue
        if step is None or int(fields["step"]) < step:
            return int(entry.partition("-")[0])
        lost.add(int(fields["step"]))
    return None


def _until(window: Window) -> str:
    return "+" if window.end is None else f"({window.end}"


def _pages(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _FLIGHT] for start in range(0, len(items), _FLIGHT)]
