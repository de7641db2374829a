"""Prior runs: results of before, read when a sweep is created and kept with it for its search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

from resweep_scheduler.config import ConfigError, Fault, Metric, SweepConfig
from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.faults import show
from resweep_scheduler.config.parameters import Constant
from resweep_scheduler.config.prior import Prior
from resweep_scheduler.search import create_search
from resweep_scheduler.search.encoding import Codec, holds
from resweep_scheduler.search.space import Dimension, dimensions_of, nest, pick
from resweep_scheduler.store import (
    Run,
    RunState,
    Scope,
    Store,
    UnknownRunError,
    UnknownSweepError,
    open_store,
    open_sweep,
)

PATIENCE = 5.0
"""Seconds for which a Redis that is away is waited for."""

_Metrics = tuple[tuple[str, str], ...]


def add_priors(
    url: str, config: SweepConfig, scope: Scope, *, runs: Sequence[str] = (), sweeps: Sequence[str] = ()
) -> SweepConfig:
    """The config with prior runs; those that cannot be used are left out, and the warnings say which and why.

    Args:
        url: The address of the store.
        config: The checked config of the new sweep.
        scope: Where the new sweep goes, and where runs and sweeps are looked for unless they say otherwise.
        runs: `[[entity/]project/]run` each.
        sweeps: `[[entity/]project/]sweep` each; all their runs are meant.

    Raises:
        ConfigError: The search of the sweep does not learn from runs.
        UnknownRunError: There is no such run.
        UnknownSweepError: There is no such sweep.
        StoreError: The store does not answer, or refuses.
    """
    if not runs and not sweeps:
        return config
    if config.scheduler is None and not create_search(config).needs_runs:
        rule, cure = "prior runs are for a search that learns from runs", "Use method: bayes, or leave them out."
        raise ConfigError([Fault("method", None, None, rule, config.method, cure)], "prior runs")
    reader = PriorReader(config)
    for path in sweeps:
        try:
            found, sweep_id = open_sweep(url, path)  # a bare id is that of a sweep anywhere on the server
        except ValueError as error:
            raise UnknownSweepError(f"{error}; `resweep ls` lists the sweeps") from None
        store = found.patient(PATIENCE)
        reader.take(store, store.runs(sweep_id))
    for path in runs:
        *place, run_id = path.split("/")
        if len(place) > 2 or not all((*place, run_id)):
            raise UnknownRunError(
                f"a run is given as RUN, PROJECT/RUN or ENTITY/PROJECT/RUN, not {path!r}; "
                "`resweep runs SWEEP` lists them"
            )
        project = place[-1] if place else scope.project
        store = open_store(url, Scope(place[0] if len(place) == 2 else scope.entity, project)).patient(PATIENCE)
        reader.take(store, [store.run(run_id)])
    changes = {"priors": (*config.priors, *reader.priors), "warnings": (*config.warnings, *reader.left_out)}
    return config.model_copy(update=changes)


class PriorReader:
    """Collects what can be used of runs.

    Attributes:
        priors: The runs that can be used.
        left_out: A sentence about each of the others.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        self._dimensions = dimensions_of(config.parameters)
        self._codec = Codec(self._dimensions)
        self._metrics = config.metrics or ((config.metric,) if config.metric is not None else ())
        self._seen: set[tuple[str, str]] = set()
        self._metrics_of: dict[str, _Metrics] = {}
        self.priors: list[Prior] = []
        self.left_out: list[str] = []

    def take(self, store: Store, runs: Sequence[Run]) -> None:
        """Take runs, each once, however often it is named."""
        for run in runs:
            if (str(store.scope), run.run_id) in self._seen:
                continue
            self._seen.add((str(store.scope), run.run_id))
            reason = self._refusal(run)
            if reason is None:
                prior = self._prior(store, run)
                missing = [
                    metric.name for metric, value in zip(self._metrics, _last(prior), strict=True) if value is None
                ]
                if prior.state == "finished" and missing:
                    reason = f"it has no finite {' and '.join(missing)}"
                else:
                    self.priors.append(prior)
            if reason is not None:
                self.left_out.append(f"prior run {run.run_id} is left out: {reason}")

    def _refusal(self, run: Run) -> str | None:
        if run.state not in (RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.KILLED):
            return f"it has not ended ({run.state.value})"
        latent: dict[str, float | int] = {}
        for one in self._codec.coordinates:
            if not holds(one.conditions, latent):
                continue
            name = ".".join(one.path)
            try:
                value = pick(run.config, one.path)
            except KeyError:
                return f"it has no {name}"
            position = one.position(value)
            if position is None:
                return f"its {name} does not fit the config (got {show(value)})"
            latent[one.name] = position
        return next((reason for one in self._dimensions if (reason := _other_constant(one, run, latent))), None)

    def _prior(self, store: Store, run: Run) -> Prior:
        latent = self._codec.encode(run.config) or {}
        values = self._codec.decode(latent)
        for one in self._codec.coordinates:
            if one.name in latent:
                values[one.path] = pick(run.config, one.path)  # as it was, not as it is encoded
        params = run.config if self._config.open_names else nest(self._config.parameters, values)
        found = [self._values(store, run, metric) for metric in self._metrics]
        several = len(found) > 1
        return Prior(
            run=run.run_id,
            params=cast(dict[str, Any], params),
            state=cast(Any, run.state.value),
            value=None if several else found[0][0],
            last=None if several else found[0][1],
            values=tuple(last for _, last in found) if several else (),
            stopped=run.stopped and run.state is RunState.KILLED,
        )

    def _values(self, store: Store, run: Run, metric: Metric) -> tuple[float | None, float | None]:
        """Best and last finite value of a metric, over history and summary."""
        summary = _finite(_find(run.summary, metric.name))
        known = self._metrics_of_sweep(store, run)
        if known == ((metric.name, metric.goal),) and run.metric is not None:
            return run.metric, summary if summary is not None else run.metric
        rows = [_finite(_find(row.values, metric.name)) for row in store.history(run.run_id)]
        logged = [value for value in rows if value is not None]
        everything = [*logged, summary] if summary is not None else logged
        if not everything:
            return None, None
        return (min if metric.goal == "minimize" else max)(everything), logged[-1] if logged else summary

    def _metrics_of_sweep(self, store: Store, run: Run) -> _Metrics:
        if run.sweep_id is None:
            return ()
        if run.sweep_id not in self._metrics_of:
            sweep = store.sweep(run.sweep_id)
            single = ((sweep.metric_name, sweep.metric_goal or "minimize"),) if sweep.metric_name else ()
            self._metrics_of[run.sweep_id] = sweep.metrics or single
        return self._metrics_of[run.sweep_id]


def _last(prior: Prior) -> tuple[float | None, ...]:
    return prior.values or (prior.last,)


def _other_constant(one: Dimension, run: Run, latent: Mapping[str, float | int]) -> str | None:
    """Say that a run had another value where the config has a constant."""
    if not isinstance(one.parameter, Constant) or not holds(one.conditions, latent):
        return None
    try:
        value = pick(run.config, one.path)
    except KeyError:
        return None  # the script of that time may not have known the parameter
    if category_key(value) == category_key(one.parameter.value):
        return None
    return f"its {'.'.join(one.path)} is another constant (got {show(value)})"


def _find(row: Mapping[str, Any], name: str) -> object:
    """The value called `name`, which may name a nested one by dots."""
    if name in row:
        return row[name]
    try:
        return pick(row, tuple(name.split(".")))
    except KeyError:
        return None


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
