"""Search by a study that a function of the user makes: W&B's ``scheduler`` with a ``source``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.pruners import NopPruner

from resweep_scheduler.config.sections import Source
from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.optuna_log import without_optuna_log
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.drawing import DeclaredDrawing, DefinedDrawing, Drawing
from resweep_scheduler.search.impute import Goals
from resweep_scheduler.search.live import Live, Seen
from resweep_scheduler.search.source import SourceFunctions, Sources
from resweep_scheduler.search.study import without_experimental_warnings


@dataclass(frozen=True, slots=True)
class SweepInfo:
    """What the user's `optimizer` is told of the sweep, under W&B's names.

    Attributes:
        id: Of the sweep.
        name, entity, project: Texts; None where the config has none.
        config: The config as a dict with W&B's keys, every default filled in; a copy of its own.
    """

    id: str
    name: str | None
    entity: str | None
    project: str | None
    config: dict[str, Any]


class SourceSearch(Search):
    """Proposes what the user's study proposes, for one goal or several.

    As pure as the user's sampler: one with a seed, as far as it learns from trials alone, gives the same points for the
    same runs, whoever asks. One without a seed draws another point each time it is asked, which does no harm, because
    the first answer for an index is taken and no other. The study is kept between the questions and told what has
    changed; when a run that ended goes on, or another one's answer was taken, it is made again from the runs.

    Args:
        config: Of the sweep; has a `scheduler`.
        sources: The files that may be executed here.
        sweep_id: For the user's function.

    Raises:
        SearchError: The file was not given, or cannot be used.
    """

    needs_runs = True
    size = None

    def __init__(self, config: SweepConfig, sources: Sources, sweep_id: str = "") -> None:
        metrics = config.metrics or ((config.metric,) if config.metric is not None else ())
        if config.scheduler is None or not metrics:
            raise SearchError("a search by source needs a metric (got none). Add metric: {name: loss}.")
        self._config = config
        self._source: Source = config.scheduler
        self._goals = Goals(metrics)
        self._sweep_id = sweep_id
        self._functions = SourceFunctions(config.scheduler, sources)
        self._drawing: Drawing = (
            DeclaredDrawing(config.parameters)
            if config.scheduler.search_space is None
            else DefinedDrawing(self._functions, config.scheduler.search_space)
        )
        self._live: Live | None = None

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        if not count:
            return []
        # Runs from first_index on are proposals that are being made again: they must not change them.
        earlier = [run for run in runs if run.index < first_index]
        outcomes = self._goals.outcomes(earlier)
        past = {run.index: Seen(run.params, outcome) for run, outcome in zip(earlier, outcomes, strict=True)}
        live, self._live = self._live, None
        if live is None or not live.follows(past):
            live = self._new()
        live.learn(past)
        points: list[dict[str, object]] = []
        for index in range(first_index, first_index + (0 if live.terminated() else count)):
            point = live.propose(index)
            if point is None:
                break
            points.append(point)
        self._live = live
        return points

    def _new(self) -> Live:
        study, terminator, what = self._made()
        self._check(study, what)
        return Live(study, terminator, self._drawing, self._functions, what)

    def _made(self) -> tuple[optuna.Study, Callable[[optuna.Study], object] | None, str]:
        """The user's study and terminator, or Optuna's default study, and what made it."""
        if self._functions.optimizer is None:
            with without_optuna_log():
                return optuna.create_study(directions=self._goals.directions, pruner=NopPruner()), None, "the study"
        what = repr(self._source.optimizer)
        with without_optuna_log(), without_experimental_warnings():
            made: object = self._functions.call(what, self._functions.optimizer, self._info())
        must, cure = "must return an optuna.Study, or a tuple of one and a terminator", "Return optuna.create_study(…)."
        study, terminator = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
        if not isinstance(study, optuna.Study):
            raise self._functions.wrong(what, must, _shown(made), cure)
        if terminator is not None and not callable(terminator):
            must, cure = "must return a terminator that can be called", "Return a function of the study."
            raise self._functions.wrong(what, must, _shown(terminator), cure)
        return study, terminator, what

    def _check(self, study: optuna.Study, what: str) -> None:
        goals = self._goals.directions
        directions = [direction.name.lower() for direction in study.directions]
        if directions != goals:
            must = "must return a study with the goals of the sweep"
            got = f"{', '.join(directions)} in place of {', '.join(goals)}"
            raise self._functions.wrong(what, must, got, f"Write optuna.create_study(directions={goals}).")
        names = [metric.name for metric in self._goals.metrics]
        if study.metric_names and study.metric_names != names:
            must = "must return a study with the metric names of the sweep"
            got = f"{', '.join(study.metric_names)} in place of {', '.join(names)}"
            raise self._functions.wrong(what, must, got, f"Write study.set_metric_names({names}), or leave it out.")

    def _info(self) -> SweepInfo:
        config = self._config
        dumped = config.model_dump(mode="json", exclude={"priors", "warnings"})
        written = {key: value for key, value in dumped.items() if value not in (None, [], {})}
        return SweepInfo(self._sweep_id, config.name, config.entity, config.project, {**written, "method": "custom"})


def _shown(value: object) -> str:
    kind = f"a {type(value).__name__}"
    return f"{kind} of {len(value)}" if isinstance(value, tuple) else kind
