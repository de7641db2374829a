"""A study of the user that follows the runs of a sweep: what is known is told to it, what is wanted is asked.

It is a copy of the one that the user's function made, with its sampler, its finished trials and what is enqueued, in
memory: it may be thrown away and made again at any time, and nothing is written to where the user keeps the original.
Runs become trials by being drawn again with their values fixed, so that samplers which note something at each draw
(generations, a place in a sequence) go on where they were:

    open, preempted too         RUNNING
    counts                      COMPLETE, with its own or imputed values
    stopped early               PRUNED, with its value
    over, and nothing is known  FAIL

A sampler with a seed would draw its first point again after each restart, and in each agent. So before each point the
random states in it are set anew, from what the sampler was seeded with and the index of the run.
"""

from __future__ import annotations

import copy
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, BruteForceSampler, GPSampler, GridSampler, RandomSampler, TPESampler
from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.trial import TrialState, create_trial

from resweep_scheduler.optuna_log import without_optuna_log
from resweep_scheduler.search.drawing import Drawing
from resweep_scheduler.search.gp.sampler import GaussianProcessSampler
from resweep_scheduler.search.impute import Outcome, Verdict
from resweep_scheduler.search.source import SourceFunctions
from resweep_scheduler.search.study import TrialStorage, clamped, without_experimental_warnings

_log = logging.getLogger(__name__)

_STATES: Final = {
    Verdict.COUNTS: TrialState.COMPLETE,
    Verdict.STOPPED: TrialState.PRUNED,
    Verdict.WORTHLESS: TrialState.FAIL,
}
_OPEN: Final = Outcome(Verdict.OPEN)
_STOP_TEXT: Final = "`Study.stop` is supposed to be invoked inside"
"""Optuna's answer to a sampler that ends the search from outside `optimize`."""
_WITHOUT_MEMORY: Final = (TPESampler, GPSampler, RandomSampler, BruteForceSampler, GaussianProcessSampler)
"""Samplers that note nothing when they draw, so that runs of before need not go through them."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A run of before.

    Attributes:
        params: Its parameters.
        outcome: What it counts as.
    """

    params: Mapping[str, object]
    outcome: Outcome


@dataclass(slots=True)
class _Run:
    """A run in the study.

    Attributes:
        params: Its parameters.
        trial: Its trial; None if it does not fit.
        outcome: What the study was told.
    """

    params: Mapping[str, object]
    trial: optuna.Trial | None
    outcome: Outcome = _OPEN


class Live:
    """One study. After an exception it must not be used any more.

    Args:
        made: The study that the user's function made; it is not changed, but its sampler is used.
        terminator: Says when the search is over; None: never.
        drawing: Draws the parameters.
        functions: Calls what belongs to the user.
        what: What made the study, for messages.
    """

    def __init__(
        self,
        made: optuna.Study,
        terminator: Callable[[optuna.Study], object] | None,
        drawing: Drawing,
        functions: SourceFunctions,
        what: str,
    ) -> None:
        self._storage = TrialStorage()
        self._study = _copy(made, self._storage)
        self._enqueued = [
            trial.system_attrs.get("fixed_params", {}) for trial in made.get_trials(states=(TrialState.WAITING,))
        ]
        self._terminator = terminator
        self._drawing = drawing
        self._functions = functions
        self._what = what
        self._randomness = Randomness(made.sampler)
        self._runs: dict[int, _Run] = {}
        self._stopped = False

    def follows(self, past: Mapping[int, Seen]) -> bool:
        """Whether what the study was told is still so, and only more has come."""
        return all(
            (now := past.get(index)) is not None and now.params == run.params and run.outcome in (_OPEN, now.outcome)
            for index, run in self._runs.items()
        )

    def learn(self, past: Mapping[int, Seen]) -> None:
        """Take in the runs of before, by their indices.

        Raises:
            SearchError: A function of the user, or the sampler, failed.
        """
        for index, now in sorted(past.items(), key=lambda item: item[0]):
            if index not in self._runs:
                self._runs[index] = _Run(copy.deepcopy(now.params), self._repeat(index, now.params))
            run = self._runs[index]
            if run.outcome != now.outcome:
                run.outcome = now.outcome
                if run.trial is not None:
                    self._functions.call(self._what, self._tell, run.trial, now.outcome)

    def propose(self, index: int) -> dict[str, object] | None:
        """The parameters of a new run; None when there is nothing left.

        Raises:
            SearchError: A function of the user, or the sampler, failed, or gave what cannot be used.
        """
        if self._stopped or self._functions.call(self._what, self._exhausted):
            return None
        self._randomness.turn_to(index)
        if index < len(self._enqueued):
            self._enqueue(self._enqueued[index])
        trial = self._functions.call(self._what, self._study.ask)
        params = self._functions.call(self._what, self._drawing.draw, trial)
        self._drawing.check(trial, params)
        # It enumerates the points, and takes old ones when there are no others.
        if isinstance(self._study.sampler, BruteForceSampler) and self._is_known(trial):
            self._withdraw()
            return None
        self._runs[index] = _Run(params, trial)
        return copy.deepcopy(params)

    def terminated(self) -> bool:
        """Whether the user's terminator ends the search. It is asked when a trial is complete.

        Raises:
            SearchError: It failed.
        """
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if self._terminator is None or not complete:
            return False
        return bool(self._functions.call(f"the terminator of {self._what}", self._terminator, self._study))

    def _repeat(self, index: int, params: Mapping[str, object]) -> optuna.Trial | None:
        """Draw a run again, with its own values; None when it does not fit."""
        fixed = self._drawing.fixed(params)
        sampler = self._study.sampler
        self._randomness.turn_to(index)
        self._enqueue(fixed)
        try:
            if type(sampler) in _WITHOUT_MEMORY:
                self._study.sampler = RandomSampler(seed=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of values outside their range; they are left out
                trial = self._study.ask()
                if self._study.sampler is sampler:
                    _ = trial.relative_params  # else it would not be asked, because all values are given
                self._drawing.draw(trial)
            if all(name in fixed and _holds(trial.distributions[name], fixed[name]) for name in trial.params):
                return trial
            reason = "its parameters do not fit"
        except Exception as error:
            reason = str(error)
        finally:
            self._study.sampler = sampler
        self._withdraw()
        _log.warning("run %d is left out of the search: %s", index, reason)
        return None

    def _enqueue(self, fixed: Mapping[str, Any]) -> None:
        attributes = {"fixed_params": dict(fixed), **_place_in_grid(self._study.sampler, fixed)}
        self._study.add_trial(create_trial(state=TrialState.WAITING, system_attrs=attributes))

    def _withdraw(self) -> None:
        self._storage.withdraw(self._study._study_id)

    def _tell(self, trial: optuna.Trial, outcome: Outcome) -> None:
        values, state = clamped(outcome.values), _STATES[outcome.verdict]
        if state is TrialState.PRUNED and len(values) > 1:
            state = TrialState.COMPLETE  # intermediate values are for one goal only
        if state is TrialState.PRUNED:
            trial.report(values[0], step=1)
        try:
            self._study.tell(trial, values if state is TrialState.COMPLETE else None, state=state)
        except RuntimeError as error:
            if _STOP_TEXT not in str(error):
                raise
            self._stopped = True

    def _exhausted(self) -> bool:
        sampler = self._study.sampler
        if isinstance(sampler, GridSampler):
            # Optuna's own answer counts points that are running as left, and they would come twice.
            trials = self._study.get_trials(deepcopy=False)
            started = {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}
            return started.issuperset(range(len(sampler._all_grids)))
        is_exhausted = getattr(sampler, "is_exhausted", None)
        return is_exhausted is not None and bool(is_exhausted(self._study))

    def _is_known(self, trial: optuna.Trial) -> bool:
        others = self._study.get_trials(deepcopy=False)
        return any(other.number != trial.number and other.params == trial.params for other in others)


class Randomness:
    """The random states of a sampler, and what they were seeded with."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._states = [(state, _draw_seed(state)) for state in _random_states(sampler, set())]

    def turn_to(self, index: int) -> None:
        """Set the states to what belongs to an index, whatever was drawn before."""
        for state, seed in self._states:
            key = [seed, index % 2**32]
            if isinstance(state, np.random.RandomState):
                state.seed(key)
            elif isinstance(state, np.random.Generator):
                kind: Any = type(state.bit_generator)
                state.bit_generator.state = kind(key).state
            else:
                state.seed(str(key))


_State = np.random.RandomState | np.random.Generator | random.Random


def _random_states(owner: object, seen: set[int]) -> Iterator[_State]:
    """All random states in a sampler and in the parts of it that are Optuna's."""
    seen.add(id(owner))
    for part in list(getattr(owner, "__dict__", {}).values()):
        if isinstance(part, LazyRandomState):
            yield part.rng
        elif isinstance(part, np.random.RandomState | np.random.Generator | random.Random):
            yield part
        elif id(part) not in seen and (
            isinstance(part, BaseSampler) or type(part).__module__.startswith("optuna.samplers")
        ):
            yield from _random_states(part, seen)


def _draw_seed(state: _State) -> int:
    if isinstance(state, np.random.Generator):
        return int(state.integers(2**32))
    return state.randint(0, 2**32 - 1) if isinstance(state, random.Random) else int(state.randint(2**31))


def _copy(made: optuna.Study, storage: TrialStorage) -> optuna.Study:
    with without_optuna_log(), without_experimental_warnings():
        study = optuna.create_study(
            storage=storage,
            study_name=made.study_name,
            directions=made.directions,
            sampler=made.sampler,
            pruner=NopPruner(),
        )
        if made.metric_names:
            study.set_metric_names(made.metric_names)
    for key, value in made.user_attrs.items():
        study.set_user_attr(key, value)
    storage.load(study._study_id, [trial for trial in made.get_trials() if trial.state.is_finished()])
    return study


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    return distribution._contains(distribution.to_internal_repr(value))


def _place_in_grid(sampler: BaseSampler, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """What a grid notes of a trial that it draws, for one whose values are given."""
    if not isinstance(sampler, GridSampler):
        return {}
    names: Sequence[str] = sampler._param_names
    for grid_id, point in enumerate(sampler._all_grids):
        if all(name in fixed and fixed[name] == value for name, value in zip(names, point, strict=True)):
            return {"search_space": sampler._search_space, "grid_id": grid_id}
    return {}
