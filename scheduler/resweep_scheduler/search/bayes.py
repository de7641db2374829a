"""Bayesian search: Optuna's TPE over a study that is rebuilt from the run records at every ask.

Numeric parameters are searched in the coordinate u of their cumulative distribution, so every distribution of the
config is a prior, and quantised values stay on their lattice; categories are searched by index, so values need no
order and may be of any type. The study lives in memory only; nothing of Optuna's is stored.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.metric import Metric
from resweep_scheduler.config.parameters import Categorical, CategoricalWithProbabilities, Constant
from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.impute import TERMINAL_STATES, Outcomes
from resweep_scheduler.search.random import RandomSearch
from resweep_scheduler.search.space import Dimension, dimensions_of, is_stepped, nest, pick, position_of, value_at

_log = logging.getLogger(__name__)

_STARTUP_RUNS: Final = 10
_DRAWS: Final = 4
_RANDOM_DRAWS: Final = 16
# u = 0 and u = 1 are infinity for normal distributions; further out than this are single draws in a million.
_MARGIN: Final = 1e-6


class BayesSearch(Search):
    """Proposes points that promise a better metric.

    The first points (until 10 runs count, or `n_startup_trials`) are those of random search with the same seed. Open
    runs, preempted ones too, are running trials, so that parallel agents spread. Failed, crashed and killed runs count
    as `metric.impute` says. Where all parameters take steps, a point that was proposed before is drawn again, up to a
    limit.

    Raises:
        SearchError: The config has no metric, or nothing that can be searched.
    """

    needs_runs = True
    size = None

    def __init__(self, config: SweepConfig) -> None:
        if config.metric is None:
            raise SearchError("method bayes needs a metric (got none). Add metric: {name: loss, goal: minimize}.")
        self._metric: Metric = config.metric
        self._parameters = config.parameters
        self._seed = config.seed
        self._random = RandomSearch(config.parameters, config.seed)
        self._constants: dict[tuple[str, ...], object] = {}
        self._coordinates: list[_Coordinate] = []
        for dimension in dimensions_of(config.parameters):
            if isinstance(dimension.parameter, Constant):
                self._constants[dimension.path] = dimension.parameter.value
            else:
                self._coordinates.append(_Coordinate(dimension))
        if not self._coordinates:
            raise SearchError("method bayes needs a parameter that is not a constant (got constants only). Add one.")
        self._distributions = {one.name: one.distribution for one in self._coordinates}
        self._all_stepped = all(is_stepped(one.parameter) for one in self._coordinates)
        options: dict[str, Any] = dict(config.search.options) if config.search else {}
        self._startup_runs = max(1, options.pop("n_startup_trials", _STARTUP_RUNS))
        # Optuna's own random start would know neither our probabilities nor our draws, so it is never reached.
        self._options = {"multivariate": True, "constant_liar": True, **options, "n_startup_trials": 0}

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        # Runs from first_index on are proposals that are being made again: they must not change them.
        past = sorted((run for run in runs if run.index < first_index), key=lambda run: run.index)
        trials = self._trials(past)
        learns = sum(trial.state is TrialState.COMPLETE for trial in trials) >= self._startup_runs
        study = self._study(trials) if learns else None
        known = {category_key(run.params) for run in past} if self._all_stepped else set()
        points: list[dict[str, object]] = []
        for index in range(first_index, first_index + count):
            point = self._new_point(study, index, known)
            if self._all_stepped:
                known.add(category_key(point))
            if study is not None and (running := self._trial(point, None)) is not None:
                study.add_trial(running)
            points.append(point)
        return points

    def _new_point(self, study: optuna.Study | None, index: int, known: set[str]) -> dict[str, object]:
        """The first candidate for an index that is not known; the first of all if there is none."""
        candidates = self._candidates(study, index)
        first = next(candidates)
        if not self._all_stepped or category_key(first) not in known:
            return first
        return next((point for point in candidates if category_key(point) not in known), first)

    def _candidates(self, study: optuna.Study | None, index: int) -> Iterator[dict[str, object]]:
        if study is not None:
            for draw in range(_DRAWS):
                yield self._ask(study, index, draw)
        for redraw in range(_RANDOM_DRAWS):
            yield self._random.point(index, redraw=redraw)

    def _ask(self, study: optuna.Study, index: int, draw: int) -> dict[str, object]:
        # A sampler rebuilt with one fixed seed proposes the first point for ever; the index makes the difference.
        seed = zlib.crc32(f"{self._seed}:{index}:{draw}".encode())
        study.sampler = TPESampler(seed=seed, **self._options)
        trial = study.ask(self._distributions)
        params = dict(trial.params)
        # The asked trial is withdrawn (TPE does not see failed ones); a point that is taken is added as running.
        study.tell(trial, state=TrialState.FAIL)
        values = {one.path: one.value(params[one.name]) for one in self._coordinates}
        return nest(self._parameters, {**self._constants, **values})

    def _study(self, trials: list[FrozenTrial]) -> optuna.Study:
        with _without_optuna_log():
            study = optuna.create_study(storage=InMemoryStorage(), direction=self._metric.goal)
        study.add_trials(trials)
        return study

    def _trials(self, past: Sequence[PastRun]) -> list[FrozenTrial]:
        outcomes = Outcomes(self._metric, past)
        trials: list[FrozenTrial] = []
        for run in past:
            value = outcomes.value(run)
            if value is None and run.state in TERMINAL_STATES:
                continue
            if (trial := self._trial(run.params, value)) is None:
                _log.warning("run %d is left out of the search: its parameters do not fit the config", run.index)
            else:
                trials.append(trial)
        return trials

    def _trial(self, params: Mapping[str, object], value: float | None) -> FrozenTrial | None:
        """A complete trial with a value, or a running one without; None if the parameters are not of this space."""
        latent: dict[str, Any] = {}
        for one in self._coordinates:
            try:
                position = one.position(pick(params, one.path))
            except KeyError:
                position = None
            if position is None:
                return None
            latent[one.name] = position
        state = TrialState.RUNNING if value is None else TrialState.COMPLETE
        return create_trial(state=state, value=value, params=latent, distributions=self._distributions)


class _Coordinate:
    """One dimension as Optuna sees it: an index of a category, or the u of a number."""

    def __init__(self, dimension: Dimension) -> None:
        self.name = dimension.name
        self.path = dimension.path
        self.parameter = dimension.parameter
        self._choices: tuple[object, ...] = ()
        self.distribution: BaseDistribution = FloatDistribution(_MARGIN, 1 - _MARGIN)
        if isinstance(self.parameter, Categorical | CategoricalWithProbabilities):
            self._choices = self.parameter.values
            self.distribution = CategoricalDistribution(_possible_indices(self.parameter))
        self._indices = {category_key(value): index for index, value in reversed(list(enumerate(self._choices)))}

    def value(self, latent: Any) -> object:
        """The value of the parameter at a coordinate."""
        return self._choices[latent] if self._choices else value_at(self.parameter, latent)

    def position(self, value: object) -> float | int | None:
        """The coordinate of a value; None if the parameter cannot have it."""
        if self._choices:
            index = self._indices.get(category_key(value))
            possible = isinstance(self.distribution, CategoricalDistribution) and index in self.distribution.choices
            return index if possible else None
        u = position_of(self.parameter, value)
        return None if u is None else min(max(u, _MARGIN), 1 - _MARGIN)


def _possible_indices(parameter: Categorical | CategoricalWithProbabilities) -> list[int]:
    """The indices of values that differ and can occur."""
    first: dict[str, int] = {}
    for index, value in enumerate(parameter.values):
        if isinstance(parameter, Categorical) or parameter.probabilities[index] > 0:
            first.setdefault(category_key(value), index)
    return list(first.values())


@contextmanager
def _without_optuna_log() -> Iterator[None]:
    """Keep Optuna's messages of this thread out of the log, and leave its settings and other threads alone."""
    thread = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("optuna.storages._in_memory")
    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)
