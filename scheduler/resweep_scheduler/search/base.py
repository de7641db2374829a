"""The contract of every search: what it is asked, what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass


class SearchError(Exception):
    """A search cannot propose parameters; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """What a search may know of a run that was proposed before.

    Attributes:
        index: The index under which it was proposed; below 0 for runs of before the sweep (prior runs).
        params: Its parameters, nested as they were proposed.
        state: Its run state; a preempted run is still open and not done.
        value: Best finite value of the metric so far; None if there is none.
        last: Last finite value of the metric; None if there is none.
        values: Last finite value of each of several metrics, in the order of the config; empty with one metric.
        stopped: Whether early termination ended it: its values count, as those of a trial that was pruned.
    """

    index: int
    params: dict[str, object]
    state: str
    value: float | None
    last: float | None = None
    values: tuple[float | None, ...] = ()
    stopped: bool = False


class Search(ABC):
    """Proposes parameters for new runs.

    A search is a pure function of the sweep's config, the indices and the past runs: asked twice with the same
    arguments it gives the same answer, in whatever process. So nothing of it is stored, and two agents that ask for one
    index at the same time get the same point. It changes none of its arguments and keeps none of them. Instances are
    not shared by threads.

    Attributes:
        needs_runs: Whether `suggest` reads `runs`; if not, callers need not collect them.
        size: Number of points there are; None if the search never ends.
    """

    needs_runs: bool
    size: int | None

    @abstractmethod
    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        """Propose the points first_index … first_index + count - 1.

        Args:
            first_index: Index of the first point, from 0.
            count: How many points are wanted.
            runs: All runs proposed before, in any order; read only if `needs_runs`.

        Returns:
            The points: parameters nested as in the config, plain JSON values. Fewer than `count` means that the search
            is exhausted.

        Raises:
            SearchError: No point can be proposed.
            ValueError: An index or a count is negative.
        """


def check_request(first_index: int, count: int) -> None:
    """Refuse indices that cannot be meant.

    Raises:
        ValueError: `first_index` or `count` is negative.
    """
    if first_index < 0 or count < 0:
        raise ValueError(f"first_index and count must be at least 0 (got {first_index} and {count}). Count from 0.")
