"""Brute force: each point of a finite space once, in an order that the seed shuffles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.encoding import Codec
from resweep_scheduler.search.space import dimensions_of, nest

_ROUNDS: Final = 4


class BruteForceSearch(Search):
    """Each point of a finite space once, in an order that the seed shuffles; then it ends.

    Optuna's sampler of this name looks for a free point in the tree of all trials, and parallel workers may repeat
    points or leave some out. Here the point of an index is a permutation of the space, so nobody needs to look at runs.

    Raises:
        SearchError: The space is not finite.
    """

    needs_runs = False
    size: int

    def __init__(self, config: SweepConfig) -> None:
        self._parameters = config.parameters
        self._codec = Codec(dimensions_of(config.parameters))
        size = self._codec.size
        if size is None:
            endless = [one.name for one in self._codec.coordinates if one.levels is None]
            raise SearchError(
                f"brute_force needs parameters that can be counted (got {', '.join(endless)}). "
                "Use values, int_uniform or q_uniform."
            )
        self.size = size
        self._seed = config.seed

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        end = min(first_index + count, self.size)
        places = (shuffled(index, self.size, self._seed) for index in range(first_index, end))
        return [nest(self._parameters, self._codec.decode(self._codec.at(place))) for place in places]


def shuffled(index: int, size: int, seed: int) -> int:
    """The place of `index` in a permutation of range(size) that follows from the seed."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    place = index
    # A Feistel network permutes a range of 4 ** half numbers, fewer than four times size or so; those beyond are
    # sent round again until they fall inside, which keeps it a permutation.
    while True:
        left, right = place >> half, place & mask
        for step in range(_ROUNDS):
            digest = hashlib.blake2b(f"{seed}:{step}:{right}".encode(), digest_size=8 + half // 8).digest()
            left, right = right, left ^ (int.from_bytes(digest) & mask)
        place = left << half | right
        if place < size:
            return place
