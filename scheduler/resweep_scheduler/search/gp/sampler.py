"""The Gaussian process as a sampler of Optuna, for studies, their dashboards and their importances."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from resweep_scheduler.search.gp.axes import Axes, Axis, Floats
from resweep_scheduler.search.gp.engine import GaussianProcess
from resweep_scheduler.search.gp.values import no_better_than_whole
from resweep_scheduler.search.random import uniform_draw
from resweep_scheduler.search.sobol import sobol_point, startup_points

_OPEN: Final = (TrialState.RUNNING, TrialState.WAITING)
_CLOSED: Final = (TrialState.COMPLETE, TrialState.PRUNED)


class GaussianProcessSampler(BaseSampler):
    """What ``method: bayes`` proposes, for a study with one goal.

    The parameters that all complete trials have in common are searched by the Gaussian process, any others at random.
    Running trials are open points; a pruned trial counts as its last value, never as better than the best complete one.
    Failed trials are no points of the model.

    Args:
        seed: The same seed, trials and trial number give the same parameters.
        n_startup_trials: Complete trials before the model is asked; until then Sobol points. None: 4, and one more for
            every 4 parameters, at most 10.
    """

    def __init__(self, seed: int = 0, n_startup_trials: int | None = None) -> None:
        self._seed = seed
        self._startup = n_startup_trials
        self._space = IntersectionSearchSpace()

    def reseed_rng(self) -> None:
        """Nothing to do: each trial has a seed of its own."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {name: one for name, one in self._space.calculate(study).items() if not one.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if len(study.directions) != 1:
            raise ValueError(
                f"GaussianProcessSampler needs a study with one goal (got {len(study.directions)}). Take TPESampler."
            )
        if not search_space:
            return {}
        axes = [_Translated(name, one) for name, one in search_space.items()]
        trials = [one for one in study.get_trials(deepcopy=False) if one.number != trial.number]
        closed = [(one, value) for one in trials if (value := _value(one, search_space)) is not None]
        if len(closed) < self._startup_trials(len(axes)):
            cube = sobol_point(self._seed, trial.number, len(axes))
            rows = Axes([axis.axis for axis in axes]).from_cube(np.array([cube]))
        else:
            rows = self._propose(study, axes, trials, closed, trial.number)
        return {axis.name: axis.value(float(place)) for axis, place in zip(axes, rows[0], strict=True)}

    def _propose(
        self,
        study: Study,
        axes: Sequence[_Translated],
        trials: Sequence[FrozenTrial],
        closed: Sequence[tuple[FrozenTrial, float]],
        number: int,
    ) -> Floats:
        sign = 1.0 if study.direction == StudyDirection.MINIMIZE else -1.0
        values = np.array([sign * value for _, value in closed])
        pruned = np.array([one.state == TrialState.PRUNED for one, _ in closed])
        values = no_better_than_whole(values, pruned)
        pending = [one for one in trials if one.state in _OPEN and all(axis.name in one.params for axis in axes)]
        process = GaussianProcess(Axes([axis.axis for axis in axes]))
        seed = zlib.crc32(f"{self._seed}:{number}".encode())
        return process.propose(_rows(axes, [one for one, _ in closed]), values, _rows(axes, pending), seed)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        axis = _Translated(param_name, param_distribution)
        u = uniform_draw(self._seed, trial.number, param_name)
        return axis.value(float(Axes([axis.axis]).from_cube(np.array([[u]]))[0, 0]))

    def _startup_trials(self, parameters: int) -> int:
        return max(1, startup_points(parameters) if self._startup is None else self._startup)


class _Translated:
    """A distribution of Optuna as an axis."""

    def __init__(self, name: str, distribution: BaseDistribution) -> None:
        self.name = name
        self._distribution = distribution
        self._values: tuple[Any, ...] = ()
        self.axis = Axis()
        if isinstance(distribution, CategoricalDistribution):
            self.axis = Axis(categories=len(distribution.choices))
        elif isinstance(distribution, IntDistribution) or (
            isinstance(distribution, FloatDistribution) and distribution.step is not None
        ):
            step = distribution.step or 1
            count = round((distribution.high - distribution.low) / step) + 1
            if count <= 1024:
                self._values = tuple(distribution.low + place * step for place in range(count))
                self.axis = Axis(steps=tuple(self.place(value) for value in self._values))

    def place(self, value: Any) -> float:
        """Where a value lies on the axis."""
        if isinstance(self._distribution, CategoricalDistribution):
            return float(self._distribution.to_internal_repr(value))
        low, high, forth, _ = self._ends()
        return float((forth(value) - low) / (high - low))

    def value(self, place: float) -> Any:
        """The value at a place."""
        one = self._distribution
        if isinstance(one, CategoricalDistribution):
            return one.to_external_repr(int(place))
        if self._values:
            return min(self._values, key=lambda value: abs(self.place(value) - place))
        low, high, _, back = self._ends()
        found = float(back(low + place * (high - low)))
        assert isinstance(one, FloatDistribution | IntDistribution)
        if one.step is not None:
            found = one.low + round((found - one.low) / one.step) * one.step
        found = min(max(found, one.low), one.high)
        return int(found) if isinstance(one, IntDistribution) else found

    def _ends(self) -> tuple[float, float, Callable[[float], float], Callable[[float], float]]:
        one = self._distribution
        assert isinstance(one, FloatDistribution | IntDistribution)
        # A step of an integer is as wide as any other, also at the ends.
        margin = one.step / 2 if isinstance(one, IntDistribution) else 0.0
        if one.log:
            return float(np.log(one.low - margin)), float(np.log(one.high + margin)), np.log, np.exp
        return one.low - margin, one.high + margin, float, float


def _value(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> float | None:
    """What a trial that is over counts as; None if it is no point of the model."""
    if trial.state not in _CLOSED or any(name not in trial.params for name in space):
        return None
    if trial.state == TrialState.COMPLETE:
        value = trial.value
    else:
        value = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
    return value if value is not None and np.isfinite(value) else None


def _rows(axes: Sequence[_Translated], trials: Sequence[FrozenTrial]) -> Floats:
    rows = [[axis.place(trial.params[axis.name]) for axis in axes] for trial in trials]
    return np.array(rows, dtype=np.float64).reshape(len(trials), len(axes))
