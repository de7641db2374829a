"""Optuna's pruners by name: they decide about our runs as they do about Optuna's own trials, whoever asks."""

from __future__ import annotations

import random
import threading
import warnings
from typing import Any, Literal
from unittest.mock import Mock

import optuna
import pytest
from support.checks import check_promises
from support.stopping import agents_of, stopped
from support.stores import SWEEP, Agent, fake_store
from support.waiting import wait_until

from resweep_agent.pruning import Pruner, make_pruner
from resweep_scheduler.config import OptunaPruner, parse_sweep
from resweep_scheduler.config.pruners import make_pruner as make_optuna_pruner
from resweep_scheduler.stopping.pruners import PrunerJudge
from resweep_scheduler.store import RunState, Store, StoreError

PRUNERS: dict[str, dict[str, Any]] = {
    "median": {"n_startup_trials": 2},
    "percentile": {"percentile": 25.0, "n_startup_trials": 1, "n_warmup_steps": 2},
    "successive_halving": {"min_resource": 1, "reduction_factor": 2},
    "hyperband": {"min_resource": 1, "max_resource": 9, "reduction_factor": 3},
    "threshold": {"upper": 1.2, "n_warmup_steps": 1},
    "patient": {"patience": 1, "wrapped_pruner": {"pruner": "median", "options": {"n_startup_trials": 1}}},
    "wilcoxon": {"p_threshold": 0.4},
}
RULE = {"type": "optuna", "sign": 1}
RUNS, LENGTH = 10, 9


def judge_of(name: str, goal: str) -> PrunerJudge:
    rule = OptunaPruner(type="optuna", pruner=name, options=PRUNERS[name])
    return PrunerJudge(rule, goal=goal, name=SWEEP)


def log_next(agent: Agent, curve: list[float], goal: str) -> None:
    number = len(curve)
    rows = [(number - 1, "{}", curve[-1])]
    best = min(curve) if goal == "minimize" else max(curve)
    agent.store.log(agent.run.token, first_seq=number, rows=rows, metric=best)


@pytest.mark.filterwarnings("ignore:WilcoxonPruner finds steps")
@pytest.mark.parametrize("goal", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", PRUNERS)
def test_runs_are_pruned_as_in_a_study(name: str, seed: int, goal: Literal["minimize", "maximize"]) -> None:
    """Two agents ask, each about its own runs: together they decide what one study decides."""
    dice = random.Random(seed)
    store = fake_store()
    agents = agents_of(store, RUNS, RULE, metric_name="loss", metric_goal=goal)
    pruners = [Pruner(store, sweep_id=SWEEP, make_judge=lambda: judge_of(name, goal)) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(study_name=SWEEP, direction=goal, pruner=make_optuna_pruner(name, PRUNERS[name]))
    trials = [study.ask() for _ in range(RUNS)]
    for index, agent in enumerate(agents):
        pruners[index % 2].keep(agent.run.token)
    curves: list[list[float]] = [[] for _ in range(RUNS)]
    alive, expected = set(range(RUNS)), []
    while alive:
        index = dice.choice(sorted(alive)[:3])
        agent, trial, curve = agents[index], trials[index], curves[index]
        curve.append(index / RUNS + dice.gauss(0, 0.3))
        log_next(agent, curve, goal)
        pruners[index % 2].step()
        trial.report(curve[-1], len(curve))
        weak = bool(trial.should_prune())
        if weak:
            expected.append(f"run{index}")
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif len(curve) == LENGTH:
            study.tell(trial, min(curve) if goal == "minimize" else max(curve))
        if weak or len(curve) == LENGTH:
            alive.remove(index)
            agent.end(None if weak else 0, killed=weak)
            pruners[index % 2].drop(agent.run.token)
        assert stopped(store) == expected
    assert 0 < len(expected) < RUNS
    check_promises(store, SWEEP)


def test_resumed_run_is_judged_by_what_it_logs_again(store: Store) -> None:
    """Another agent takes the run over: values that are gone count no more, those that stayed were judged before."""
    first, second = agents_of(store, 2, RULE)
    pruner = Pruner(store, sweep_id=SWEEP, make_judge=lambda: judge_of("threshold", "minimize"))
    pruner.keep(first.run.token)
    first.mark()
    first.log_values(9.0, 9.0, 1.0, 1.0)
    pruner.step()
    assert stopped(store) == []  # preempting runs go on
    first.end(1)
    first.take()
    again = Pruner(store, sweep_id=SWEEP, make_judge=lambda: judge_of("threshold", "minimize"))
    again.keep(first.run.token)
    again.step()
    first.log_values(0.5, first_step=3)
    again.step()
    assert stopped(store) == []
    first.log_values(7.0, first_step=4, first_seq=2)
    again.step()
    assert stopped(store) == ["run0"]
    second.end(0)


def test_a_stop_that_redis_did_not_take_is_said_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pruner notes what it has decided at a rung, and does not find the run weak there a second time."""
    strong, weak = agents_of(store, 2, RULE)
    pruner = Pruner(store, sweep_id=SWEEP, make_judge=lambda: judge_of("successive_halving", "minimize"))
    pruner.keep(strong.run.token)
    pruner.keep(weak.run.token)
    strong.log_values(1.0, 1.0)
    pruner.step()
    weak.log_values(9.0, 9.0)
    with monkeypatch.context() as patch:
        patch.setattr(store, "prune_run", Mock(side_effect=StoreError("Redis is away")))
        for _ in range(2):
            with pytest.raises(StoreError):
                pruner.step()
    assert stopped(store) == []
    pruner.step()
    assert stopped(store) == ["run1"]


def test_notes_of_values_that_were_taken_back_do_not_count(store: Store) -> None:
    """A rung that the run has not reached any more is reached again."""
    (agent,) = agents_of(store, 1, RULE)
    pruner = Pruner(store, sweep_id=SWEEP, make_judge=lambda: judge_of("successive_halving", "minimize"))
    pruner.keep(agent.run.token)
    agent.log_values(3.0, 2.0, 1.0, 0.5)
    pruner.step()
    first, second, third = (f"completed_rung_{rung}" for rung in range(3))
    notes = store.read_curves(SWEEP, {})["run0"].notes
    assert notes == {first: (1, 1, 3.0), second: (2, 1, 2.0), third: (4, 1, 0.5)}
    agent.end(1, preempted=True)
    agent.take()
    pruner.keep(agent.run.token)
    agent.log_values(5.0, first_step=1)
    pruner.step()
    assert store.read_curves(SWEEP, {})["run0"].notes == {first: (1, 1, 3.0), second: (2, 2, 5.0)}


def test_curves_are_read_as_they_grow(store: Store) -> None:
    first, second = agents_of(store, 2, RULE)
    first.log_values(1.0, 2.0)
    known = store.read_curves(SWEEP, {})
    first.log_values(1.0, 2.0, 3.0)
    second.log_values(4.0)
    first.end(0)
    known = store.read_curves(SWEEP, known)
    assert [[point.value for point in run.points] for run in known.values()] == [[1.0, 2.0, 3.0], [4.0]]
    assert [run.state for run in known.values()] == [RunState.FINISHED, RunState.RUNNING]
    second.end(1, preempted=True)
    second.take()
    second.log_values(5.0, 6.0)
    store.remove_runs(["run0"])
    assert [(run.index, [point.value for point in run.points]) for run in store.read_curves(SWEEP, known).values()] == [
        (1, [5.0, 6.0])
    ]


def test_removed_run_is_no_measure_any_more(store: Store) -> None:
    first, second, third = agents_of(store, 3, RULE)
    judge = judge_of("median", "minimize")
    for agent in (first, second):
        log_next(agent, [1.0], "minimize")
        agent.end(0)
    log_next(third, [2.0], "minimize")
    judge.look(store.read_curves(SWEEP, {}))
    assert judge.decide(2, 1).weak
    store.remove_runs(["run0"])
    judge = judge_of("median", "minimize")
    judge.look(store.read_curves(SWEEP, {}))
    assert not judge.decide(2, 1).weak


def test_thread_stops_a_run_and_survives_a_pruner_that_fails(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    (agent,) = agents_of(store, 1, RULE)
    failures = [ValueError("the pruner cannot decide")]

    def make_judge() -> PrunerJudge:
        if failures:
            raise failures.pop()
        return judge_of("threshold", "minimize")

    pruner = Pruner(store, sweep_id=SWEEP, make_judge=make_judge)
    pruner.start()
    try:
        pruner.keep(agent.run.token)
        agent.log_values(0.0, 5.0)
        wait_until(lambda: stopped(store) == ["run0"], description="the stop")
    finally:
        pruner.close()
    assert [record.message for record in caplog.records if record.name == "resweep_agent.pruning"] == ["pruner-fault"]
    assert all(thread.name != "resweep-pruner" for thread in threading.enumerate())
    assert agent.heartbeat().stop == "early_terminate: threshold, at iteration 2"


def test_other_rules_need_no_thread(store: Store) -> None:
    config: dict[str, Any] = {
        "method": "random", "program": "x.py", "parameters": {"a": {"value": 1}}, "metric": {"name": "loss"}
    }  # fmt: skip
    assert make_pruner(store, SWEEP, parse_sweep(config)) is None
    rule = {"type": "hyperband", "min_iter": 1}
    assert make_pruner(store, SWEEP, parse_sweep(config | {"early_terminate": rule})) is None
    rule = {"type": "optuna", "pruner": "median"}
    assert make_pruner(store, SWEEP, parse_sweep(config | {"early_terminate": rule})) is not None
