"""Search with a sampler of Optuna, chosen by name."""

from __future__ import annotations

from collections.abc import Sequence

from resweep_scheduler.config.sections import SearchOptions
from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.distinct import key_of, new_point
from resweep_scheduler.search.encoding import Codec, Latent
from resweep_scheduler.search.impute import Goals, Verdict
from resweep_scheduler.search.samplers import Setting, question_of
from resweep_scheduler.search.space import dimensions_of, nest
from resweep_scheduler.search.study import Known, Past


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
        self._sampler = search.sampler
        self._setting = Setting(codec, goals.directions, search.options, seed)
        self._past = Past(codec, goals)

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun]) -> list[Latent]:
        """The latent points first_index … first_index + count - 1; see `Search.suggest`."""
        if not count:
            return []
        # Runs from first_index on are proposals that are being made again: they must not change them.
        known, proposed = self._past.read([run for run in runs if run.index < first_index])
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
