"""An Optuna study in memory, made from what is known of the runs, and thrown away after the question.

`Past` is what a search knows: the runs that fit the space, as latent points with their outcomes. `make_study` turns it
into trials, in the order of the indices:

    open, preempted too         RUNNING
    counts                      COMPLETE, with its own or imputed values
    stopped early               PRUNED, with its value as the only intermediate value
    over, and nothing is known  PRUNED without values: below every other trial, so that samplers keep away

Samplers read pruned trials differently. TPE puts them below all complete ones, which is why a worthless run does not
attract it again, while a FAIL would be invisible to it. CMA-ES takes those with values if asked to; GP and the genetic
samplers look at complete trials only.
"""

from __future__ import annotations

import datetime
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from resweep_scheduler.optuna_log import without_optuna_log
from resweep_scheduler.search.base import PastRun
from resweep_scheduler.search.encoding import MARGIN, Codec, Coordinate, Latent, holds
from resweep_scheduler.search.impute import Goals, Outcome, Verdict

_log = logging.getLogger(__name__)

_STATES: Final = {
    Verdict.OPEN: TrialState.RUNNING,
    Verdict.COUNTS: TrialState.COMPLETE,
    Verdict.STOPPED: TrialState.PRUNED,
    Verdict.WORTHLESS: TrialState.PRUNED,
}
_LARGEST: Final = 1e100
"""Samplers square what they get; a run that is as bad as this is no worse than another one."""
_SOME_TIME: Final = datetime.datetime(2000, 1, 1)
"""Samplers read no times, and the same question must give the same study."""


_PROPOSED: Final = PastRun(0, {}, "pending", None)


@dataclass(frozen=True, slots=True)
class Known:
    """A run as a search sees it."""

    index: int
    latent: Latent
    outcome: Outcome


class Past:
    """What a search knows: all runs of the space in the order of their indices, prior runs first.

    Args:
        codec: The space.
        goals: What the runs count as.
    """

    def __init__(self, codec: Codec, goals: Goals) -> None:
        self._codec = codec
        self._goals = goals
        # Encoding costs most of the time; parameters of an index rarely differ from those of the last question.
        self._encoded: dict[int, tuple[str, Latent | None]] = {}

    def read(self, runs: Sequence[PastRun]) -> tuple[list[Known], Outcome]:
        """The runs that fit the space, and what a run that is proposed now counts as.

        Runs that do not fit are named in the log.
        """
        ordered = sorted(runs, key=lambda run: run.index)
        *outcomes, proposed = self._goals.outcomes([*ordered, _PROPOSED])
        known = []
        for run, outcome in zip(ordered, outcomes, strict=True):
            latent = self._encode(run)
            if latent is None:
                _log.warning("run %d is left out of the search: its parameters do not fit the config", run.index)
            else:
                known.append(Known(run.index, latent, outcome))
        return known, proposed

    def _encode(self, run: PastRun) -> Latent | None:
        text = repr(run.params)
        cached = self._encoded.get(run.index)
        if cached is not None and cached[0] == text:
            return cached[1]
        latent = self._codec.encode(run.params)
        self._encoded[run.index] = (text, latent)
        return latent


class TrialStorage(InMemoryStorage):
    """Optuna's storage in memory, which takes many trials at once and gives up the last one."""

    def load(self, study_id: int, trials: Sequence[FrozenTrial]) -> None:
        """Append trials as they are, without a copy; they belong to the storage from now on."""
        kept = self._studies[study_id].trials
        for trial in trials:
            self._max_trial_id += 1
            trial.number, trial._trial_id = len(kept), self._max_trial_id
            self._trial_id_to_study_id_and_number[trial._trial_id] = (study_id, trial.number)
            kept.append(trial)
            self._update_cache(trial._trial_id, study_id)

    def withdraw(self, study_id: int) -> None:
        """Forget the last trial."""
        trial = self._studies[study_id].trials.pop()
        del self._trial_id_to_study_id_and_number[trial._trial_id]
        self._max_trial_id -= 1


class LatentStudy:
    """A study over latent points that a sampler can be asked with again and again.

    Attributes:
        study: Optuna's; the identifier of a trial is the place of its run.

    Args:
        codec: The space.
        directions: `minimize` or `maximize` for each goal.
        known: The runs.
        attributes: System attributes of the trial of each run, for samplers that want some; by its place.
    """

    def __init__(
        self,
        codec: Codec,
        directions: Sequence[Literal["minimize", "maximize"]],
        known: Sequence[Known],
        attributes: Callable[[int], dict[str, object]] = lambda place: {},
    ) -> None:
        self._codec = codec
        self._distributions = {one.name: distribution_of(one) for one in codec.coordinates}
        self._subsets: dict[tuple[str, ...], dict[str, BaseDistribution]] = {}
        self._storage = TrialStorage()
        with without_optuna_log():
            self.study = optuna.create_study(storage=self._storage, directions=list(directions))
        trials = [self._trial(one, attributes(place)) for place, one in enumerate(known)]
        self._storage.load(self.study._study_id, trials)

    def ask(self, sampler: BaseSampler) -> Latent:
        """What the sampler proposes next; the trials are as before afterwards."""
        self.study.sampler = sampler
        trial = self.study.ask()
        latent: Latent = {}
        for one in self._codec.coordinates:
            if not holds(one.conditions, latent):
                continue
            distribution = self._distributions[one.name]
            if isinstance(distribution, CategoricalDistribution):
                latent[one.name] = int(str(trial.suggest_categorical(one.name, distribution.choices)))
            else:
                latent[one.name] = trial.suggest_float(one.name, MARGIN, 1 - MARGIN)
        self._storage.withdraw(self.study._study_id)
        return latent

    def keep(self, key: str, value: list[int]) -> None:
        """Set a system attribute of the study."""
        self._storage.set_study_system_attr(self.study._study_id, key, value)

    def add(self, known: Known) -> None:
        """Take one more run into the study."""
        self._storage.load(self.study._study_id, [self._trial(known, {})])

    def _trial(self, known: Known, attributes: dict[str, object]) -> FrozenTrial:
        outcome = known.outcome
        values = clamped(outcome.values)
        state = _STATES[outcome.verdict]
        if outcome.verdict is Verdict.STOPPED and len(outcome.values) > 1:
            state = TrialState.COMPLETE  # intermediate values are for one goal only
        complete = state is TrialState.COMPLETE
        pruned_at = {1: values[0]} if state is TrialState.PRUNED and values else {}
        names = tuple(known.latent)
        if names not in self._subsets:
            self._subsets[names] = {name: self._distributions[name] for name in names}
        return FrozenTrial(
            number=-1,
            state=state,
            value=None,
            values=values if complete else None,
            datetime_start=_SOME_TIME,
            datetime_complete=None if state is TrialState.RUNNING else _SOME_TIME,
            params=dict(known.latent),
            distributions=self._subsets[names],
            user_attrs={},
            system_attrs=attributes,
            intermediate_values=pruned_at,
            trial_id=-1,
        )


def clamped(values: Sequence[float]) -> tuple[float, ...]:
    """Values as a sampler can bear them."""
    return tuple(min(max(value, -_LARGEST), _LARGEST) for value in values)


def distribution_of(one: Coordinate) -> BaseDistribution:
    """A coordinate as Optuna sees it: the index of a category, or the u of a number."""
    return CategoricalDistribution(one.choices) if one.choices else FloatDistribution(MARGIN, 1 - MARGIN)


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Keep quiet that Optuna calls something experimental: users chose it, and hear it once in the documentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
