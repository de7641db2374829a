"""Optuna's pruners as judges of our runs: a study in memory that follows the curves in Redis.

A run is a trial whose number is its index and whose steps are the iterations, from 1. What a pruner notes of a trial
(the rungs of successive halving) is handed out, so that all agents know it; a note counts as long as the run has the
value with which it was made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from resweep_scheduler.config import OptunaPruner
from resweep_scheduler.config.pruners import make_pruner
from resweep_scheduler.optuna_log import without_optuna_log
from resweep_scheduler.store.records import CurvePoint, Note, RunCurve
from resweep_scheduler.store.states import RunState


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a pruner thinks of a run.

    Attributes:
        weak: It should be stopped.
        iteration: The iteration at which it was looked at last.
        notes: Everything that the pruner noted of the run up to now.
    """

    weak: bool
    iteration: int
    notes: Mapping[str, Note] = field(default_factory=dict)


@dataclass(slots=True)
class _Known:
    """A run as the study has it."""

    trial_id: int
    points: tuple[CurvePoint, ...] = ()
    notes: dict[str, Note] = field(default_factory=dict)
    finished: bool = False
    judged: int = 0


class PrunerJudge:
    """Asks one of Optuna's pruners about runs. One thread uses it.

    Args:
        rule: Names the pruner.
        goal: Of the metric, "minimize" or "maximize".
        name: Of the study: Optuna's hyperband draws the bracket of a trial from it.

    Attributes:
        name: Of the pruner.
    """

    def __init__(self, rule: OptunaPruner, *, goal: str, name: str) -> None:
        self.name = rule.pruner
        self._pruner = make_pruner(rule.pruner, rule.options)
        self._goal = goal
        self._study_name = name
        self._begin()

    def _begin(self) -> None:
        self._storage = InMemoryStorage()
        direction = StudyDirection.MAXIMIZE if self._goal == "maximize" else StudyDirection.MINIMIZE
        with without_optuna_log():
            self._study_id = self._storage.create_new_study([direction], self._study_name)
        self._study = optuna.load_study(study_name=self._study_name, storage=self._storage, pruner=self._pruner)
        self._runs: list[_Known] = []

    def look(self, curves: Mapping[str, RunCurve]) -> None:
        """Take in what the runs of the sweep are now."""
        runs = {run.index: run for run in curves.values()}
        before = self._runs
        if any(self._is_another(index, runs.get(index)) for index in range(len(self._runs))):
            self._begin()
        for index in range(len(self._runs), max(runs, default=-1) + 1):
            trial_id = self._storage.create_new_trial(self._study_id, create_trial(state=TrialState.RUNNING))
            self._runs.append(_Known(trial_id))
            if index < len(before) and index in runs:
                self._runs[index].judged = min(before[index].judged, _common(before[index].points, runs[index].points))
        for index, run in runs.items():
            self._follow(self._runs[index], run)

    def _is_another(self, index: int, run: RunCurve | None) -> bool:
        """Whether a run lost what it had: it was removed, or logs steps again."""
        known = self._runs[index]
        if run is None:
            return bool(known.points)
        count = len(known.points)
        return count > 0 and (len(run.points) < count or run.points[count - 1] != known.points[-1])

    def _follow(self, known: _Known, run: RunCurve) -> None:
        if known.finished:
            return
        for iteration, point in enumerate(run.points[len(known.points) :], len(known.points) + 1):
            self._storage.set_trial_intermediate_value(known.trial_id, iteration, point.value)
        known.points = run.points
        for name, note in run.notes.items():
            there = run.points[note.iteration - 1 : note.iteration]
            if name not in known.notes and there and there[0].attempt == note.attempt:
                self._storage.set_trial_system_attr(known.trial_id, name, note.value)
                known.notes[name] = note
        if run.state is RunState.FINISHED and run.metric is not None:
            self._storage.set_trial_state_values(known.trial_id, TrialState.COMPLETE, [run.metric])
            known.finished = True

    def decide(self, index: int, attempt: int) -> Verdict:
        """Ask about a run that `look` has shown, with every value that is new since it was asked about it last.

        What attempts before `attempt` logged was judged in its time.
        """
        known = self._runs[index]
        known.judged = max(known.judged, sum(point.attempt < attempt for point in known.points))
        while known.judged < len(known.points):
            known.judged += 1
            trial = self._trial_up_to(known, known.judged)
            weak = self._pruner.prune(self._study, trial)
            for name, value in self._storage.get_trial(known.trial_id).system_attrs.items():
                known.notes.setdefault(name, Note(known.judged, known.points[known.judged - 1].attempt, value))
            if weak:
                return Verdict(True, known.judged, dict(known.notes))
        return Verdict(False, known.judged, dict(known.notes))

    def _trial_up_to(self, known: _Known, iteration: int) -> FrozenTrial:
        trial = copy.copy(self._storage.get_trial(known.trial_id))
        values = enumerate(known.points[:iteration], 1)
        trial.intermediate_values = {number: point.value for number, point in values}
        return trial


def _common(one: tuple[CurvePoint, ...], other: tuple[CurvePoint, ...]) -> int:
    """How many points two curves begin with in common."""
    pairs = zip(one, other, strict=False)
    return next((count for count, (mine, others) in enumerate(pairs) if mine != others), min(len(one), len(other)))
