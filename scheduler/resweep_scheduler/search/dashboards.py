"""A sweep as an Optuna study, for people: importances, plots, optuna-dashboard.

    import optuna
    from resweep_scheduler.search.dashboards import study_of
    from resweep_scheduler.store import open_sweep

    store, sweep_id = open_sweep("redis://localhost", "SWEEP")
    study = study_of(store, sweep_id)
    optuna.importance.get_param_importances(study)

For optuna-dashboard give a storage of your own and serve that:

    storage = optuna.storages.InMemoryStorage()
    study_of(store, sweep_id, storage=storage)
    optuna_dashboard.run_server(storage)

The study is a picture of the moment; nothing that is done to it reaches the sweep.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.parameters import (
    IntUniform,
    InvLogUniform,
    InvLogUniformValues,
    LogNormal,
    LogUniform,
    LogUniformValues,
    Parameter,
    QLogNormal,
    QLogUniform,
    QLogUniformValues,
)
from resweep_scheduler.optuna_log import without_optuna_log
from resweep_scheduler.search.encoding import MARGIN, Codec, Coordinate
from resweep_scheduler.search.space import dimensions_of, pick
from resweep_scheduler.search.study import TrialStorage, without_experimental_warnings
from resweep_scheduler.store import Run, RunState, Store

_STATES = {
    RunState.FINISHED: TrialState.COMPLETE,
    RunState.FAILED: TrialState.FAIL,
    RunState.CRASHED: TrialState.FAIL,
    RunState.KILLED: TrialState.FAIL,
    RunState.PENDING: TrialState.RUNNING,
    RunState.RUNNING: TrialState.RUNNING,
    RunState.PREEMPTING: TrialState.RUNNING,
    RunState.PREEMPTED: TrialState.RUNNING,
}
_LOGARITHMIC = (
    LogUniform | LogUniformValues | QLogUniform | QLogUniformValues
    | InvLogUniform | InvLogUniformValues | LogNormal | QLogNormal
)  # fmt: skip
_LARGEST_INT = 2**53
"""Optuna keeps all numbers as floats."""


def study_of(store: Store, sweep_id: str, *, storage: BaseStorage | None = None) -> optuna.Study:
    """An Optuna study of a sweep as it stands now.

    Each run is a trial: finished ones with their value are complete, those that early termination stopped are pruned,
    failed, crashed and killed ones failed, all others running. Parameters have their own values; those of choices the
    names of their branches, such as ``optimizer=sgd.momentum``. The user attribute `run` is the id of the run. Finished
    runs without a value of the metric, or with parameters that the config cannot give, are failed.

    Args:
        store: Of the project that has the sweep.
        sweep_id: The sweep.
        storage: Where the study goes, under the id of the sweep; default: memory of its own.

    Raises:
        UnknownSweepError: No such sweep in this project.
        ValueError: The sweep has no metric, or parameters that only its code knows.
    """
    sweep = store.sweep(sweep_id)
    config = SweepConfig.from_json(sweep.config_json)
    metrics = config.metrics or ((config.metric,) if config.metric is not None else ())
    if not metrics:
        raise ValueError(f"a study needs a metric, and sweep {sweep_id} has none. Choose a sweep with metric:.")
    if config.open_names:
        raise ValueError(
            f"a study needs parameters that stand in the config, and those of {sweep_id} are drawn by a function. "
            "Choose a sweep with parameters:."
        )
    codec = Codec(dimensions_of(config.parameters))
    runs = sorted(store.runs(sweep_id), key=lambda run: run.index or 0)
    distributions = {one.name: _distribution(one, runs) for one in codec.coordinates}
    trials = [_trial(run, codec, distributions, several=len(metrics) > 1) for run in runs]
    own = TrialStorage() if storage is None else None
    with without_optuna_log():
        study = optuna.create_study(
            storage=own if storage is None else storage,
            study_name=sweep_id,
            directions=[metric.goal for metric in metrics],
        )
    with without_experimental_warnings():
        study.set_metric_names([metric.name for metric in metrics])
    if own is not None:
        own.load(study._study_id, trials)
    else:
        study.add_trials(trials)
    return study


def _trial(run: Run, codec: Codec, distributions: Mapping[str, BaseDistribution], *, several: bool) -> FrozenTrial:
    latent = codec.encode(run.params)
    params: dict[str, Any] = {}
    for name, position in (latent or {}).items():
        one = codec.by_name[name]
        params[name] = _shown(one, position, pick(run.params, one.path))
    known = run.values if several else (run.metric,)
    values = [value for value in known if value is not None]
    state = _STATES[run.state]
    if run.stopped and run.state is RunState.KILLED:
        state = TrialState.PRUNED
    if state is TrialState.COMPLETE and (latent is None or not known or len(values) < len(known)):
        state = TrialState.FAIL
    last_step = run.step if run.step is not None else 0
    return FrozenTrial(
        number=-1,
        state=state,
        value=None,
        values=values if state is TrialState.COMPLETE else None,
        datetime_start=_time(run.started_at or run.created_at),
        datetime_complete=_time(run.ended_at or run.created_at) if state.is_finished() else None,
        params=params,
        distributions={name: distributions[name] for name in params},
        user_attrs={"run": run.run_id, "state": run.state.value, "attempts": run.attempt},
        system_attrs={},
        intermediate_values={last_step: values[0]} if state is TrialState.PRUNED and values else {},
        trial_id=-1,
    )


def _time(ms: int) -> datetime.datetime:
    # Optuna's times are local and carry no zone.
    return datetime.datetime.fromtimestamp(ms / 1000)


def _distribution(one: Coordinate, runs: Sequence[Run]) -> BaseDistribution:
    """The distribution of Optuna that shows a parameter best: its own values, on its own scale."""
    parameter = one.parameter
    if one.choices:
        return CategoricalDistribution(_labels(one))
    if _fits_optuna(parameter):
        return IntDistribution(parameter.min, parameter.max)
    if (limits := getattr(parameter, "limits", None)) is not None:
        low, high = limits
    else:
        # Without bounds: nearly all of the distribution, and what was drawn further out.
        known = [*(one.value(u) for u in (MARGIN, 1 - MARGIN)), *(_picked(run, one) for run in runs)]
        numbers = [float(value) for value in known if isinstance(value, int | float)]
        low, high = min(numbers), max(numbers)
    return FloatDistribution(low, high, log=isinstance(parameter, _LOGARITHMIC) and low > 0)


def _picked(run: Run, one: Coordinate) -> object:
    try:
        return pick(run.params, one.path)
    except KeyError:
        return None


def _shown(one: Coordinate, position: float, value: object) -> object:
    if one.choices:
        return _labels(one)[one.choices.index(int(position))]
    assert isinstance(value, int | float)  # else it had no position
    return int(value) if _fits_optuna(one.parameter) else float(value)


def _fits_optuna(parameter: Parameter) -> TypeGuard[IntUniform]:
    return isinstance(parameter, IntUniform) and max(abs(parameter.min), abs(parameter.max)) < _LARGEST_INT


def _labels(one: Coordinate) -> list[str]:
    """Categories as Optuna can keep them: as texts, because it takes 1, 1.0 and true for the same."""
    values = [one.value(choice) for choice in one.choices]
    plain = [value if isinstance(value, str) else category_key(value) for value in values]
    return plain if len(set(plain)) == len(plain) else [category_key(value) for value in values]
