"""Prior runs: what is taken of earlier runs, what is left out, and how a search uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.finished import Ended, put_sweep

from resweep_scheduler.config import ConfigError, SweepConfig, parse_sweep
from resweep_scheduler.search import PastRun, Sources, create_search
from resweep_scheduler.store import Scope, Store, UnknownRunError
from resweep_scheduler.warm_start import PriorReader, add_priors

PARAMETERS: dict[str, Any] = {
    "x": {"min": 0.0, "max": 1.0},
    "opt": {"choices": {"sgd": {"parameters": {"momentum": {"min": 0.0, "max": 0.99}}}, "adam": {}}},
    "epochs": {"value": 3},
}
OLD: dict[str, Any] = {"method": "random", "metric": {"name": "loss"}, "parameters": PARAMETERS}


def new_config(**keys: Any) -> SweepConfig:
    return parse_sweep({"method": "bayes", "seed": 1, "metric": {"name": "loss"}, "parameters": PARAMETERS, **keys})


def take(store: Store, config: SweepConfig, runs: list[Ended], old: dict[str, Any] = OLD) -> PriorReader:
    put_sweep(store, "old", old, runs)
    reader = PriorReader(config)
    reader.take(store, store.runs("old"))
    return reader


def test_runs_of_a_sweep_become_priors_in_their_order(store: Store) -> None:
    good = {"x": 0.25, "opt": "adam", "epochs": 3, "more": [1]}
    runs = [
        Ended(good, metric=0.5, rows=[{"loss": 0.5}, {"loss": 0.75}]),
        Ended({"x": 0.5, "opt": "sgd", "momentum": 0.5, "epochs": 3}, metric=None, exit_code=1),
        Ended({**good, "x": 0.75}, metric=2.0, stop="early_terminate: hyperband", exit_code=1),
    ]
    reader = take(store, new_config(), runs)
    assert reader.left_out == []
    first, failed, stopped = reader.priors
    assert first.params == {"x": 0.25, "opt": "adam", "epochs": 3}
    assert (first.run, first.state, first.value, first.last, first.stopped) == ("old-0", "finished", 0.5, 0.75, False)
    assert (failed.state, failed.value) == ("failed", None)
    assert failed.params == {"x": 0.5, "opt": "sgd", "momentum": 0.5, "epochs": 3}
    assert (stopped.state, stopped.value, stopped.stopped) == ("killed", 2.0, True)


def test_what_does_not_fit_is_left_out_and_said(store: Store) -> None:
    runs = [
        Ended({"x": 2.0, "opt": "adam", "epochs": 3}, metric=1.0),
        Ended({"x": 0.5, "opt": "lion", "epochs": 3}, metric=1.0),
        Ended({"x": 0.5, "opt": "sgd", "epochs": 3}, metric=1.0),
        Ended({"x": 0.5, "opt": "adam", "epochs": 9}, metric=1.0),
        Ended({"x": 0.5, "opt": "adam", "epochs": 3}),
        Ended({"x": 0.5, "opt": "adam", "epochs": 3}, metric=1.0, exit_code=None),
        Ended({"x": 0.5, "opt": "adam"}, metric=1.0),
    ]
    reader = take(store, new_config(), runs)
    assert [prior.run for prior in reader.priors] == ["old-6"]
    assert reader.left_out == [
        "prior run old-0 is left out: its x does not fit the config (got 2.0)",
        'prior run old-1 is left out: its opt does not fit the config (got "lion")',
        "prior run old-2 is left out: it has no momentum",
        "prior run old-3 is left out: its epochs is another constant (got 9)",
        "prior run old-4 is left out: it has no finite loss",
        "prior run old-5 is left out: it has not ended (running)",
    ]
    reader.take(store, store.runs("old"))
    assert len(reader.priors) == 1


def test_another_metric_is_read_from_history_and_summary(store: Store) -> None:
    """NaN, infinities and booleans are no values, as everywhere."""
    rows: list[dict[str, Any]] = [
        {"val": {"acc": 0.5}}, {"val": {"acc": 0.75}}, {"val": {"acc": float("nan")}}, {"val": {"acc": True}},
        {"val": {"acc": 0.625}}, {"other": 1},
    ]  # fmt: skip
    runs = [Ended({"x": 0.5, "opt": "adam", "epochs": 3}, metric=9.0, rows=rows)]
    config = new_config(metric={"name": "val.acc", "goal": "maximize"})
    (prior,) = take(store, config, runs).priors
    assert (prior.value, prior.last) == (0.75, 0.625)


def test_several_goals_have_last_values(store: Store) -> None:
    config = parse_sweep({"method": "bayes", "metrics": [{"name": "a"}, {"name": "b"}], "parameters": PARAMETERS})
    params = {"x": 0.5, "opt": "adam", "epochs": 3}
    runs = [Ended(params, rows=[{"a": 1.0, "b": 5.0}, {"a": 2.0}]), Ended(params, rows=[{"a": 1.0}])]
    reader = take(store, config, runs)
    assert [prior.values for prior in reader.priors] == [(2.0, 5.0)]
    assert reader.left_out == ["prior run old-1 is left out: it has no finite b"]


def test_priors_survive_the_way_through_redis(store: Store) -> None:
    params = {"x": 0.5, "opt": "adam", "epochs": 3}
    config = new_config()
    reader = take(store, config, [Ended(params, metric=1.0)])
    config = config.model_copy(update={"priors": tuple(reader.priors)})
    assert SweepConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("search", [None, {"sampler": "tpe", "options": {"n_startup_trials": 5}}])
def test_a_search_learns_from_priors_at_once(store: Store, search: dict[str, Any] | None) -> None:
    """After twelve prior runs the first point is no start any more, and it is where they were good."""
    parameters = {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}
    old = {**OLD, "parameters": parameters}
    points = [{"x": place / 12, "y": (place * 5 % 12) / 12} for place in range(12)]
    runs = [Ended(point, metric=(point["x"] - 0.25) ** 2 + (point["y"] - 0.75) ** 2) for point in points]
    keys = {"search": search} if search else {}
    config = new_config(parameters=parameters, **keys)
    reader = take(store, config, runs, old)
    with_priors = config.model_copy(update={"priors": tuple(reader.priors)})
    first = create_search(with_priors).suggest(first_index=0, count=1)
    assert first != create_search(config).suggest(first_index=0, count=1)
    asked: list[PastRun] = []
    search_with = create_search(with_priors)
    for index in range(10):
        (point,) = search_with.suggest(first_index=index, count=1, runs=asked)
        x, y = float(str(point["x"])), float(str(point["y"]))
        asked.append(PastRun(index, point, "finished", (x - 0.25) ** 2 + (y - 0.75) ** 2))
    assert min(run.value or 9 for run in asked) < 0.01


def test_a_prior_point_is_not_proposed_again(store: Store) -> None:
    parameters = {"a": {"min": 1, "max": 3}, "b": {"values": ["x", "y"]}}
    points = [{"a": 1, "b": "x"}, {"a": 3, "b": "y"}]
    config = new_config(parameters=parameters, search={"sampler": "tpe"})
    reader = take(store, config, [Ended(point, metric=0.0) for point in points], {**OLD, "parameters": parameters})
    search = create_search(config.model_copy(update={"priors": tuple(reader.priors)}))
    proposed = {json.dumps(point) for point in search.suggest(first_index=0, count=4)}
    assert len(proposed | {json.dumps(point) for point in points}) == 6


def test_a_study_of_the_user_learns_from_priors(store: Store) -> None:
    """Where a function draws the parameters, it says which of the prior runs' parameters it knows."""
    scheduler = {"engine": "optuna", "source": "study.py", "search_space": "draw_plane"}
    raw = {"method": "custom", "metric": {"name": "loss"}, "scheduler": scheduler}
    points: list[dict[str, Any]] = [{"x": 0.25, "y": 0.75, "more": "m"}, {"x": 0.5}]
    reader = take(store, parse_sweep(raw), [Ended(point, metric=2.0) for point in points])
    assert [dict(prior.params) for prior in reader.priors] == points
    config = parse_sweep(raw).model_copy(update={"priors": tuple(reader.priors)})
    study = Path(__file__).parent.parent / "support" / "study.py"
    assert len(create_search(config, Sources([study])).suggest(first_index=0, count=2)) == 2


def test_prior_runs_need_a_search_that_learns() -> None:
    config = parse_sweep(OLD)
    assert add_priors("redis://nowhere", config, Scope()) is config
    with pytest.raises(ConfigError, match="prior runs are for a search that learns from runs"):
        add_priors("redis://nowhere", config, Scope(), runs=["a"])
    with pytest.raises(UnknownRunError, match="a run is given as RUN"):
        add_priors("redis://nowhere", new_config(), Scope(), runs=["a/b/c/d"])
