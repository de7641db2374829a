"""Search with a sampler of Optuna, chosen by name."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from resweep_scheduler.config.sections import SearchOptions
from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.distinct import key_of, new_point
from resweep_scheduler.search.encoding import Codec, Latent
from resweep_scheduler.search.impute import Goals, Verdict
from resweep_scheduler.search.samplers import Setting, question_of
from resweep_scheduler.search.space import dimensions_of, nest
from resweep_scheduler.search.study import Known, Past

_ROUNDS: Final = 4


class OptunaSearch(Search):
    """Proposes what a sampler of Optuna proposes, for one goal or several.

    The study is rebuilt from the runs at each question and seeded by the index, so nothing is lost or kept by whoever
    asks. Open runs, preempted ones too, are running trials. A point that is known is not proposed again while others
    are left. `samplers` says how samplers that keep a state get it back.

    Raises:
        SearchError: The config has no metric, nothing that can be searched, or a sampler that does not fit.
    """

    needs_runs = True
    size = None

    def __init__(self, config: SweepConfig) -> None:
        metrics = config.metrics or ((config.metric,) if config.metric is not None else ())
        if not metrics:
            raise SearchError("method bayes needs a metric (got none). Add metric: {name: loss, goal: minimize}.")
        self._parameters = config.parameters
        self._codec = Codec(dimensions_of(config.parameters))
        if not self._codec.coordinates:
            raise SearchError("method bayes needs a parameter that is not a constant (got constants only). Add one.")
        self._latent = LatentSearch(self._codec, Goals(metrics), config.search or SearchOptions(), config.seed)

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        latents = self._latent.suggest(first_index=first_index, count=count, runs=runs)
        return [nest(self._parameters, self._codec.decode(latent)) for latent in latents]


class LatentSearch:
    """The search over latent points.

    Args:
        codec: The space.
        goals: What is optimised.
        search: The sampler and its options.
        seed: Seed of the sweep.
    """

    def __init__(self, codec: Codec, goals: Goals, search: SearchOptions, seed: int) -> None:
        self._codec = codec
        self._goals = goals
        self._sampler = search.sampler
        self._setting = Setting(codec, goals.directions, search.options, seed)
        self._past = Past(codec, goals)

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun]) -> list[Latent]:
        """The latent points first_index … first_index + count - 1; see `Search.suggest`."""
        if not count:
            return []
        # Runs from first_index on are proposals that are being made again: they must not change them.
        past = [run for run in runs if run.index < first_index]
        known = self._past.read(past)
        # What the points of this question count as for those after them.
        proposed = self._goals.outcomes([*past, PastRun(first_index, {}, "pending", None)])[-1]
        keys = {key for one in known if (key := key_of(self._codec, one.latent)) is not None}
        ask = question_of(self._sampler)
        question = ask(self._setting, known)
        points: list[Latent] = []
        for index in range(first_index, first_index + count):
            point = new_point(self._codec, question.candidates(index), keys, seed=self._setting.seed, index=index)
            if (key := key_of(self._codec, point)) is not None:
                keys.add(key)
            known.append(Known(index, point, proposed))
            if proposed.verdict is Verdict.OPEN:
                question.add(known[-1])
            else:
                question = ask(self._setting, known)  # with `impute_while_running` they count at once
            points.append(point)
        return points


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
