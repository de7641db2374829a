"""How runs become trials of Optuna, and what they count as with several goals."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from support.finished import Ended, put_sweep

from resweep_scheduler.config import Metric
from resweep_scheduler.config.parameters import Categorical, Uniform
from resweep_scheduler.search import PastRun
from resweep_scheduler.search.dashboards import study_of
from resweep_scheduler.search.encoding import Codec
from resweep_scheduler.search.impute import Goals, Outcome, Verdict
from resweep_scheduler.search.space import Condition, Dimension
from resweep_scheduler.search.study import LatentStudy, Past
from resweep_scheduler.store import Store

CODEC = Codec(
    [
        Dimension("kind", ("kind",), Categorical(values=("a", "b"))),
        Dimension("kind=a.x", ("x",), Uniform(min=0, max=1), (Condition("kind", 0),)),
        Dimension("kind=b.x", ("x",), Uniform(min=0, max=9), (Condition("kind", 1),)),
    ]
)


def trials_of(study: LatentStudy) -> list[optuna.trial.FrozenTrial]:
    return study.study.get_trials()


def test_states_of_runs_and_what_their_trials_are() -> None:
    runs = [
        PastRun(3, {"kind": "a", "x": 0.5}, "preempted", 1.0),
        PastRun(0, {"kind": "b", "x": 4.5}, "finished", 2.0),
        PastRun(1, {"kind": "b", "x": 4.5}, "failed", None),
        PastRun(2, {"kind": "a", "x": 0.5}, "killed", 1.5, stopped=True),
        PastRun(-1, {"kind": "a", "x": 0.25}, "finished", 3.0),
        PastRun(4, {"kind": "a", "x": 0.5}, "pending", None),
    ]
    goals = Goals([Metric(name="loss")])
    study = LatentStudy(CODEC, goals.directions, Past(CODEC, goals).read(runs)[0])
    trials = trials_of(study)
    assert [trial.number for trial in trials] == list(range(6))
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING,
        TrialState.RUNNING,
    ]  # fmt: skip
    assert [trial.value for trial in trials] == [3.0, 2.0, 3.0, None, None, None]
    assert trials[0].params == {"kind": 0, "kind=a.x": pytest.approx(0.25)}
    assert trials[1].params == {"kind": 1, "kind=b.x": pytest.approx(0.5)}
    assert trials[3].intermediate_values == {1: 1.5}
    for trial in trials:
        trial._validate()


def test_a_failure_is_pruned_while_nothing_is_known_to_impute() -> None:
    goals = Goals([Metric(name="loss")])
    runs = [
        PastRun(0, {"kind": "a", "x": 0.5}, "failed", None),
        PastRun(1, {"kind": "a", "x": 0.5}, "finished", math.nan),
    ]
    trials = trials_of(LatentStudy(CODEC, goals.directions, Past(CODEC, goals).read(runs)[0]))
    assert [trial.state for trial in trials] == [TrialState.PRUNED, TrialState.PRUNED]
    assert trials[0].intermediate_values == {}


def test_asking_leaves_the_trials_as_they_were() -> None:
    goals = Goals([Metric(name="loss")])
    runs = [PastRun(index, {"kind": "a", "x": index / 9}, "finished", float(index)) for index in range(9)]
    study = LatentStudy(CODEC, goals.directions, Past(CODEC, goals).read(runs)[0])
    before = trials_of(study)
    sampler = optuna.samplers.TPESampler(seed=1, n_startup_trials=0)
    latent = study.ask(sampler)
    assert set(latent) in ({"kind", "kind=a.x"}, {"kind", "kind=b.x"})
    assert trials_of(study) == before
    assert latent == study.ask(optuna.samplers.TPESampler(seed=1, n_startup_trials=0))


def test_what_runs_count_as_with_several_goals() -> None:
    goals = Goals([Metric(name="a"), Metric(name="b", goal="maximize"), Metric(name="c", impute="latest")])
    runs = [
        PastRun(0, {}, "finished", None, values=(1.0, 2.0, 3.0)),
        PastRun(1, {}, "finished", None, values=(5.0, None, 4.0)),
        PastRun(2, {}, "failed", None, values=(0.0, 9.0, 0.5)),
        PastRun(3, {}, "preempted", None, values=(0.0, 9.0, 0.5)),
        PastRun(4, {}, "crashed", None),
        PastRun(5, {}, "finished", None, values=(math.inf, 3.0, math.nan)),
    ]
    assert goals.directions == ["minimize", "maximize", "minimize"]
    counts = [Outcome(Verdict.COUNTS, values) for values in [(1.0, 2.0, 3.0), (5.0, 2.0, 4.0), (5.0, 2.0, 0.5)]]
    expected = [
        *counts,
        Outcome(Verdict.OPEN),
        Outcome(Verdict.COUNTS, (5.0, 2.0, 4.0)),
        Outcome(Verdict.COUNTS, (5.0, 3.0, 4.0)),
    ]
    assert goals.outcomes(runs) == expected
    assert goals.outcomes(runs[4:5]) == [Outcome(Verdict.WORTHLESS)]
    assert goals.outcomes([]) == []


def test_a_stopped_run_counts_as_its_value_and_a_killed_one_does_not() -> None:
    goals = Goals([Metric(name="a")])
    runs = [
        PastRun(0, {}, "killed", 1.0, stopped=True),
        PastRun(1, {}, "killed", 1.0),
        PastRun(2, {}, "killed", None, stopped=True),
        PastRun(3, {}, "finished", 7.0),
    ]
    verdicts = [(outcome.verdict, outcome.values) for outcome in goals.outcomes(runs)]
    assert verdicts == [
        (Verdict.STOPPED, (1.0,)),
        (Verdict.COUNTS, (7.0,)),
        (Verdict.COUNTS, (7.0,)),
        (Verdict.COUNTS, (7.0,)),
    ]


PARAMETERS: dict[str, Any] = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
    "n": {"min": 1, "max": 9},
    "flag": {"values": [True, 1, "1", None]},
    "noise": {"distribution": "normal"},
    "opt": {"choices": {"sgd": {"parameters": {"momentum": {"min": 0.0, "max": 0.99}}}, "adam": {}}},
}


def ended_runs(count: int) -> list[Ended]:
    runs = []
    for index in range(count):
        params: dict[str, Any] = {"lr": 10 ** -(index % 4), "n": 1 + index % 9, "flag": [True, 1, "1", None][index % 4]}
        params |= {"noise": index / 7 - 1, "opt": "sgd" if index % 2 else "adam"}
        params |= {"momentum": index / 50} if index % 2 else {}
        runs.append(Ended(params, metric=float((params["n"] - 4) ** 2)))
    return runs


def test_a_sweep_as_a_study_for_people(store: Store) -> None:
    runs = ended_runs(30)
    runs[3] = Ended(runs[3].params, exit_code=1)
    runs[4] = Ended(runs[4].params, metric=5.0, exit_code=1, stop="early_terminate: hyperband")
    runs[5] = Ended(runs[5].params, metric=5.0, exit_code=None)
    config = {"method": "bayes", "metric": {"name": "loss"}, "parameters": PARAMETERS}
    put_sweep(store, "s", config, runs)
    study = study_of(store, "s")
    assert study.study_name == "s"
    assert study.metric_names == ["loss"]
    trials = study.trials
    assert [trial.state for trial in trials[2:7]] == [
        TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.RUNNING, TrialState.COMPLETE,
    ]  # fmt: skip
    assert trials[1].params == {
        "lr": 0.1, "n": 2, "flag": "1", "noise": pytest.approx(-6 / 7), "opt": "sgd", "opt=sgd.momentum": 0.02,
    }  # fmt: skip
    assert trials[1].user_attrs["run"] == "s-1"
    assert study.best_trial.params["n"] == 4
    for trial in trials:
        trial._validate()
    importances = optuna.importance.get_param_importances(study)
    assert next(iter(importances)) == "n"


def test_a_study_of_several_goals_in_a_storage_of_the_user(store: Store) -> None:
    config = {
        "method": "bayes",
        "metrics": [{"name": "a"}, {"name": "b", "goal": "maximize"}],
        "parameters": PARAMETERS,
    }
    runs = [Ended(run.params, values=(float(index), float(-index))) for index, run in enumerate(ended_runs(6))]
    put_sweep(store, "s", config, [*runs, Ended(runs[0].params, values=(1.0, None))])
    storage = optuna.storages.InMemoryStorage()
    study = study_of(store, "s", storage=storage)
    assert [trial.number for trial in study.best_trials] == [0]
    assert study.trials[6].state is TrialState.FAIL
    assert len(optuna.load_study(study_name="s", storage=storage).trials) == 7


def test_a_sweep_without_a_metric_is_no_study(store: Store) -> None:
    put_sweep(store, "s", {"method": "random", "parameters": PARAMETERS}, [])
    with pytest.raises(ValueError, match="a study needs a metric"):
        study_of(store, "s")
