"""Prior runs: what was known before the sweep began, given to its search with every question."""

from __future__ import annotations

from collections.abc import Sequence

from resweep_scheduler.config.prior import Prior
from resweep_scheduler.search.base import PastRun, Search


def past_runs_of(priors: Sequence[Prior]) -> list[PastRun]:
    """Prior runs as a search sees them: the last one has the index -1, those before it lower ones."""
    return [
        PastRun(
            index=place - len(priors),
            params=dict(prior.params),
            state=prior.state,
            value=prior.value,
            last=prior.last,
            values=prior.values,
            stopped=prior.stopped,
        )
        for place, prior in enumerate(priors)
    ]


class PriorSearch(Search):
    """A search that learns from prior runs, too.

    Args:
        search: The search that learns.
        priors: The prior runs of the sweep.
    """

    needs_runs = True

    def __init__(self, search: Search, priors: Sequence[Prior]) -> None:
        self._search = search
        self._priors = past_runs_of(priors)
        self.size = search.size

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        return self._search.suggest(first_index=first_index, count=count, runs=[*self._priors, *runs])
