"""The searches that search_quality.py compares, each behind the same three calls."""

from __future__ import annotations

import logging
import warnings
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import optuna
from quality_problems import Problem, without_conditions

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import PastRun, Search, create_search

Params = dict[str, Any]


class Method(ABC):
    """A search under test: `ask` proposes run number `index`, `tell` says what it came to."""

    @abstractmethod
    def ask(self, index: int) -> Params: ...

    @abstractmethod
    def tell(self, index: int, value: float) -> None: ...

    def preempt(self, index: int) -> None:  # noqa: B027  # most keep the run open and do nothing
        """The run's machine was taken; it goes on later."""


class Resweep(Method):
    """What ``method: bayes`` and ``method: random`` propose."""

    def __init__(self, problem: Problem, seed: int, method: str) -> None:
        config = {"method": method, "seed": seed, "metric": {"name": "loss"}}
        self.search: Search = create_search(parse_sweep({**config, "parameters": spelled(problem)}))
        self.runs: list[PastRun] = []

    def ask(self, index: int) -> Params:
        (point,) = self.search.suggest(first_index=index, count=1, runs=self.runs)
        self.runs.append(PastRun(index, point, "running", None))
        return point

    def tell(self, index: int, value: float) -> None:
        self.runs[index] = replace(self.runs[index], state="finished", value=value, last=value)


def spelled(problem: Problem) -> dict[str, Any]:
    """A problem's parameters as this version of resweep can read them."""
    return problem.parameters if CONDITIONS else without_conditions(problem.parameters)


def _reads_conditions() -> bool:
    choices = {"choices": {"a": {"parameters": {"x": {"min": 0.0, "max": 1.0}}}, "b": {}}}
    try:
        parse_sweep({"method": "random", "parameters": {"p": choices}})
    except Exception:
        return False
    return True


CONDITIONS = _reads_conditions()


class Optuna(Method):
    """A sampler of Optuna, asked as its users do. With `fails`, a preempted run is told as failed."""

    def __init__(self, problem: Problem, sampler: optuna.samplers.BaseSampler, *, fails: bool = False) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.problem = problem
        self.study = optuna.create_study(sampler=sampler)
        self.trials: dict[int, optuna.Trial] = {}
        self.fails = fails

    def ask(self, index: int) -> Params:
        trial = self.trials[index] = self.study.ask()
        return suggested(trial, self.problem.parameters)

    def tell(self, index: int, value: float) -> None:
        if index in self.trials:
            self.study.tell(self.trials.pop(index), value)

    def preempt(self, index: int) -> None:
        if self.fails and index in self.trials:
            self.study.tell(self.trials.pop(index), state=optuna.trial.TrialState.FAIL)


def suggested(trial: optuna.Trial, parameters: Mapping[str, Any]) -> Params:
    """Values for the parameters of a YAML, drawn as somebody who uses Optuna would draw them."""
    point: Params = {}
    for name, one in parameters.items():
        if "choices" in one:
            point[name] = trial.suggest_categorical(name, list(one["choices"]))
            point |= suggested(trial, one["choices"][point[name]].get("parameters", {}))
        elif "values" in one:
            point[name] = trial.suggest_categorical(name, one["values"])
        elif isinstance(one["min"], int):
            point[name] = trial.suggest_int(name, one["min"], one["max"])
        else:
            point[name] = trial.suggest_float(name, one["min"], one["max"], log="distribution" in one)
    return point


class WandbSweeps(Method):
    """The bayes of W&B's own package ``sweeps``."""

    def __init__(self, problem: Problem, seed: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import sweeps
        logging.getLogger("sweeps").setLevel(logging.ERROR)
        self.sweeps = sweeps
        metric = {"name": "loss", "goal": "minimize"}
        self.config = {"method": "bayes", "metric": metric, "parameters": without_conditions(problem.parameters)}
        self.seed = seed
        self.runs: list[Any] = []

    def ask(self, index: int) -> Params:
        import numpy as np

        np.random.seed(zlib.crc32(f"{self.seed}:{index}".encode()))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = self.sweeps.next_run(self.config, self.runs)
        run.state = self.sweeps.RunState.running
        self.runs.append(run)
        return {name: entry["value"] for name, entry in run.config.items()}

    def tell(self, index: int, value: float) -> None:
        self.runs[index].state = self.sweeps.RunState.finished
        self.runs[index].summary_metrics = {"loss": value}
        self.runs[index].history = [{"loss": value}]


METHODS: dict[str, Callable[[Problem, int], Method]] = {
    "resweep": lambda problem, seed: Resweep(problem, seed, "bayes"),
    "optuna_tpe": lambda problem, seed: Optuna(problem, optuna.samplers.TPESampler(seed=seed)),
    "optuna_gp": lambda problem, seed: Optuna(problem, optuna.samplers.GPSampler(seed=seed)),
    "wandb": WandbSweeps,
    "random": lambda problem, seed: Resweep(problem, seed, "random"),
    "wandb_optuna": lambda problem, seed: Optuna(problem, optuna.samplers.TPESampler(seed=seed), fails=True),
}
"""By name. ``wandb_optuna`` is Optuna's TPE in W&B's Optuna engine, which tells a preempted run as failed."""
