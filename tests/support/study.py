"""What a user's file has whose functions direct a search: studies, terminators, and parameters that are drawn."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.samplers import BruteForceSampler, CmaEsSampler, GridSampler, NSGAIISampler, QMCSampler, TPESampler


def draw(trial: optuna.Trial) -> dict[str, Any]:
    """Mixed and conditional parameters, one of them in a group, and a constant."""
    params: dict[str, Any] = {
        "x": trial.suggest_float("x", 0.0, 1.0),
        "y": trial.suggest_float("y", 0.0, 1.0),
        "depth": trial.suggest_int("depth", 1, 4),
        "optimizer": {"name": trial.suggest_categorical("optimizer.name", ["sgd", "adam"])},
        "epochs": 3,
    }
    if params["optimizer"]["name"] == "sgd":
        params["optimizer"]["momentum"] = trial.suggest_float("optimizer.momentum", 0.0, 0.99)
    return params


def draw_plane(trial: optuna.Trial) -> dict[str, float]:
    return {"x": trial.suggest_float("x", 0.0, 1.0), "y": trial.suggest_float("y", 0.0, 1.0)}


def draw_few(trial: optuna.Trial) -> dict[str, int]:
    return {"a": trial.suggest_int("a", 1, 3), "b": trial.suggest_int("b", 1, 2)}


def tpe(sweep: Any) -> optuna.Study:
    """A study with a seed and the goal of the sweep."""
    return optuna.create_study(direction=sweep.config["metric"]["goal"], sampler=TPESampler(seed=3, n_startup_trials=4))


def enqueued(sweep: Any) -> optuna.Study:
    study = tpe(sweep)
    study.enqueue_trial({"x": 0.25, "y": 0.75})
    study.enqueue_trial({"x": 0.5})
    return study


def known(sweep: Any) -> optuna.Study:
    """A study that has a finished trial already."""
    study = tpe(sweep)
    x = optuna.distributions.FloatDistribution(0.0, 1.0)
    study.add_trial(optuna.create_trial(params={"x": 0.125}, distributions={"x": x}, value=-5.0))
    study.set_user_attr("note", "known")
    return study


def grid(sweep: Any) -> optuna.Study:
    return optuna.create_study(sampler=GridSampler({"a": [1, 2, 3], "b": [1, 2]}, seed=5))


def brute_force(sweep: Any) -> optuna.Study:
    return optuna.create_study(sampler=BruteForceSampler(seed=5))


def nsga2(sweep: Any) -> optuna.Study:
    return optuna.create_study(directions=["minimize", "maximize"], sampler=NSGAIISampler(population_size=6, seed=5))


def cmaes(sweep: Any) -> optuna.Study:
    return optuna.create_study(sampler=CmaEsSampler(seed=5, n_startup_trials=2))


def qmc(sweep: Any) -> optuna.Study:
    return optuna.create_study(sampler=QMCSampler(seed=5, warn_independent_sampling=False))


def default(sweep: Any) -> optuna.Study:
    return optuna.create_study()


def good_enough(study: optuna.Study) -> bool:
    return study.best_value <= 1.0


def until_good(sweep: Any) -> tuple[optuna.Study, Any]:
    return tpe(sweep), good_enough


class Stopping(TPESampler):
    """Ends the search when three trials are over, as a sampler does that is through."""

    def after_trial(self, study: optuna.Study, *rest: Any) -> None:
        super().after_trial(study, *rest)
        if sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)) >= 2:
            study.stop()


def stopping(sweep: Any) -> optuna.Study:
    return optuna.create_study(sampler=Stopping(seed=1))
