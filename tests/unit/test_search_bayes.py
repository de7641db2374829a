"""Bayesian search: learns, spreads, imputes, and says the same thing twice."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections import Counter

import optuna
import pytest
from support.search_contract import SearchContract

from resweep_scheduler.config import Metric, SweepConfig, parse_sweep
from resweep_scheduler.search import PastRun, SearchError, create_search
from resweep_scheduler.search.bayes import BRANCH_TURN
from resweep_scheduler.search.impute import Outcomes

ALL_KINDS: dict[str, object] = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
    "width": {"min": 1, "max": 64},
    "model": {
        "parameters": {
            "act": {"values": [0, False, None, "", [1], 1, True]},
            "fixed": {"value": {"a": 1}},
            "noise": {"distribution": "q_normal", "q": 0.1},
        }
    },
    "p": {"values": ["a", "never", "b"], "probabilities": [0.5, 0, 0.5]},
    "b": {"distribution": "beta", "a": 2, "b": 0.5},
    "ln": {"distribution": "log_normal"},
    "inv": {"distribution": "inv_log_uniform", "min": 0, "max": 3},
    "qlu": {"distribution": "q_log_uniform", "min": 0, "max": 5, "q": 2},
    "qb": {"distribution": "q_beta", "q": 0.25},
}


def sweep(parameters: dict[str, object] | None = None, *, seed: int = 1, **changes: object) -> SweepConfig:
    raw = {"method": "bayes", "seed": seed, "metric": {"name": "loss"}, "parameters": parameters or ALL_KINDS}
    return parse_sweep({**raw, **changes})


def finished(points: list[dict[str, object]], values: list[float]) -> list[PastRun]:
    pairs = zip(points, values, strict=True)
    return [PastRun(index, point, "finished", value) for index, (point, value) in enumerate(pairs)]


class TestContract(SearchContract):
    config = sweep()
    last_index = 30


class TestContractOfSteps(SearchContract):
    config = sweep({"a": {"values": [1, 2, 3]}, "b": {"min": 0, "max": 9}})
    last_index = 30


CHOICES: dict[str, object] = {
    "optimizer": {
        "choices": {
            "sgd": {"parameters": {"momentum": {"min": 0.0, "max": 0.99}, "nesterov": {"values": [True, False]}}},
            "adam": {"parameters": {"beta2": {"min": 0.9, "max": 0.999}}},
            "lbfgs": {},
        }
    },
    "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
}


class TestContractOfChoices(SearchContract):
    config = sweep(CHOICES)
    last_index = 20

    def test_points_are_nested_like_the_config_and_plain_json(self) -> None:
        for point in create_search(self.config).suggest(first_index=0, count=self.last_index):
            expected = {"sgd": {"momentum", "nesterov"}, "adam": {"beta2"}, "lbfgs": set()}[str(point["optimizer"])]
            assert set(point) == {"optimizer", "lr", *expected}
            assert repr(json.loads(json.dumps(point))) == repr(point)


class TestContractOfManyDimensions(SearchContract):
    """More than the Gaussian process takes."""

    config = sweep({f"x{number}": {"min": 0.0, "max": 1.0} for number in range(101)})
    last_index = 12


def _loss(point: dict[str, object]) -> float:
    x, y = point["x"], point["y"]
    assert isinstance(x, float)
    assert isinstance(y, float)
    return (x - 0.3) ** 2 + (math.log10(y) + 3) ** 2 + (0 if point["kind"] == "good" else 1)


def _optimise(seed: int, runs_wanted: int, *, goal: str = "minimize", method: str = "bayes") -> float:
    parameters = {
        "x": {"min": -2.0, "max": 2.0},
        "y": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1.0},
        "kind": {"values": ["bad", "worse", "good"]},
    }
    metric = {"name": "loss", "goal": goal}
    search = create_search(sweep(parameters, seed=seed, metric=metric, method=method))
    sign = 1 if goal == "minimize" else -1
    runs: list[PastRun] = []
    for index in range(runs_wanted):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        runs.append(PastRun(index, point, "finished", sign * _loss(point)))
    return min(_loss(run.params) for run in runs)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_it_learns_in_both_directions(goal: str) -> None:
    learned = statistics.median(_optimise(seed, 30, goal=goal) for seed in range(2))
    guessed = statistics.median(_optimise(seed, 30, method="random") for seed in range(2))
    assert learned < guessed / 2


def test_the_first_points_fill_the_space() -> None:
    search = create_search(sweep({"x": {"min": 0, "max": 7}, "y": {"min": 0, "max": 7}}))
    points = search.suggest(first_index=0, count=64)
    assert len({json.dumps(point) for point in points}) == 64
    assert Counter(point["x"] for point in points[16:32]) == dict.fromkeys(range(8), 2)


def test_the_very_first_point_is_the_centre() -> None:
    kinds: dict[str, object] = {
        "x": {"min": -1.0, "max": 3.0},
        "y": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
        "p": {"values": ["a", "b"], "probabilities": [0.25, 0.75]},
    }
    (centre,) = create_search(sweep(kinds)).suggest(first_index=0, count=1)
    assert centre == {"x": 1.0, "y": pytest.approx(1e-2), "p": "b"}


def test_the_first_points_follow_the_probabilities() -> None:
    search = create_search(
        sweep({"p": {"values": ["a", "b"], "probabilities": [0.75, 0.25]}, "x": {"min": 0.0, "max": 1.0}})
    )
    points = search.suggest(first_index=64, count=64)
    assert Counter(point["p"] for point in points) == {"a": 48, "b": 16}


def test_learning_starts_after_a_few_values() -> None:
    search = create_search(sweep({"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}))
    points = search.suggest(first_index=0, count=6)
    runs = finished(points[:4], [1.0, 2.0, 3.0, 4.0])
    assert search.suggest(first_index=3, count=1, runs=runs) == [points[3]]
    assert search.suggest(first_index=4, count=1, runs=runs) != [points[4]]


def test_points_of_a_batch_equal_points_asked_one_by_one() -> None:
    search = create_search(sweep())
    runs = finished(search.suggest(first_index=0, count=15), [float(n) for n in range(15)])
    batch = search.suggest(first_index=15, count=4, runs=runs)
    for index in range(15, 19):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        assert point == batch[index - 15]
        runs.append(PastRun(index, point, "running", None))


def test_runs_from_the_first_index_on_make_no_difference() -> None:
    """After a lost reply the same indices are asked for again, when some of their runs exist already."""
    search = create_search(sweep())
    runs = finished(search.suggest(first_index=0, count=15), [float(n) for n in range(15)])
    batch = search.suggest(first_index=15, count=3, runs=runs)
    later = [PastRun(15, batch[0], "running", None), PastRun(16, batch[1], "finished", -5.0)]
    assert batch == search.suggest(first_index=15, count=3, runs=runs + later)


def test_open_runs_spread_the_proposals() -> None:
    points = create_search(sweep()).suggest(first_index=0, count=20)
    runs = finished(points, [float(n) for n in range(20)])
    batch = create_search(sweep()).suggest(first_index=20, count=8, runs=runs)
    assert len({json.dumps(point) for point in batch}) == 8


@pytest.mark.parametrize("state", ["pending", "running", "preempting", "preempted"])
def test_a_run_that_is_not_over_is_open_whatever_it_logged(state: str) -> None:
    outcome = Outcomes(Metric(name="loss"), [])
    assert outcome.value(PastRun(0, {}, state, 0.5, last=0.7)) is None


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_imputation(goal: str) -> None:
    runs = [
        PastRun(0, {}, "finished", 1.0, last=2.0),
        PastRun(1, {}, "killed", 5.0),
        PastRun(2, {}, "running", 99.0),
        PastRun(3, {}, "failed", None),
        PastRun(4, {}, "finished", math.inf),
        PastRun(5, {}, "crashed", 3.0, last=4.0),
        PastRun(6, {}, "running", 2.5, last=3.5),
    ]
    worst = 5.0 if goal == "minimize" else 1.0

    def values(**rules: str) -> list[float | None]:
        metric = Metric.model_validate({"name": "loss", "goal": goal, **rules})
        outcomes = Outcomes(metric, runs)
        return [outcomes.value(run) for run in runs]

    assert values() == [1.0, worst, None, worst, worst, worst, None]
    assert values(impute="best") == [1.0, 5.0, None, worst, worst, 3.0, None]
    assert values(impute="latest") == [1.0, worst, None, worst, worst, 4.0, None]
    assert values(impute_while_running="best") == [1.0, worst, 99.0, worst, worst, worst, 2.5]
    assert values(impute_while_running="latest")[-1] == 3.5
    assert values(impute_while_running="worst")[-1] == worst


def test_without_any_value_nothing_is_imputed_and_the_space_is_filled() -> None:
    points = create_search(sweep()).suggest(first_index=0, count=30)
    runs = [PastRun(index, point, "failed", None) for index, point in enumerate(points[:29])]
    assert create_search(sweep()).suggest(first_index=29, count=1, runs=runs) == points[29:]


def test_values_stay_in_the_space_when_it_learns() -> None:
    search = create_search(sweep())
    points = search.suggest(first_index=0, count=15)
    runs = finished(points, [float(n % 7) for n in range(15)])
    for point in search.suggest(first_index=15, count=25, runs=runs):
        model = point["model"]
        assert isinstance(model, dict)
        assert any(model["act"] is choice or model["act"] == choice for choice in [0, False, None, "", [1], 1, True])
        assert model["fixed"] == {"a": 1}
        assert point["p"] in ("a", "b")
        assert isinstance(point["width"], int)
        assert 1 <= point["width"] <= 64
        assert point["qlu"] in range(2, 149, 2)
        assert point["qb"] in (0, 0.25, 0.5, 0.75, 1)


def test_equal_looking_categories_stay_apart() -> None:
    """0, False, None and "" are four choices: the best one is found though Python takes two of them for equal."""
    values = [0, False, None, ""]
    search = create_search(sweep({"a": {"values": values}, "x": {"min": 0.0, "max": 1.0}}))
    runs: list[PastRun] = []
    for index in range(40):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        runs.append(PastRun(index, point, "finished", 0.0 if point["a"] is False else 1.0))
    assert Counter(repr(run.params["a"]) for run in runs[20:]).most_common(1)[0][0] == "False"


def test_a_small_space_is_walked_without_repetition() -> None:
    search = create_search(sweep({"a": {"min": 1, "max": 6}, "b": {"values": ["x", "y", "z"]}}))
    runs: list[PastRun] = []
    for index in range(16):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        runs.append(PastRun(index, point, "finished", float(hash(point["b"] == "x") + index % 3)))
    assert len({json.dumps(run.params) for run in runs}) == 16
    (beyond,) = search.suggest(first_index=18, count=1, runs=runs)
    assert beyond["a"] in range(1, 7)


def test_a_small_space_is_walked_to_its_end_with_many_in_flight() -> None:
    search = create_search(sweep({"a": {"min": 1, "max": 6}, "b": {"values": ["x", "y", "z"]}}))
    points = search.suggest(first_index=0, count=8)
    runs = finished(points, [float(n) for n in range(8)])
    batch = search.suggest(first_index=8, count=10, runs=runs)
    assert len({json.dumps(point) for point in [*points, *batch]}) == 18


def test_a_large_space_of_steps_is_walked_to_its_end_too() -> None:
    """1,200 points are too many to look at each, so the last ones have to be searched for."""
    search = create_search(sweep({"a": {"min": 1, "max": 60}, "b": {"min": 1, "max": 20}}))
    every = [{"a": a, "b": b} for a in range(1, 61) for b in range(1, 21)]
    left = [{"a": 17, "b": 3}, {"a": 58, "b": 19}]
    done = [point for point in every if point not in left]
    runs = [PastRun(index, dict(point), "finished", float(point["a"])) for index, point in enumerate(done)]
    batch = search.suggest(first_index=len(done), count=2, runs=runs)
    assert sorted(json.dumps(point) for point in batch) == sorted(json.dumps(point) for point in left)


def test_with_choices_it_learns_which_one_is_best_and_its_parameters() -> None:
    search = create_search(sweep(CHOICES))
    runs: list[PastRun] = []
    for index in range(45):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        loss = (math.log10(float(str(point["lr"]))) + 3) ** 2
        loss += (float(str(point["beta2"])) - 0.95) ** 2 * 1e3 if "beta2" in point else 2
        runs.append(PastRun(index, point, "finished", loss))
    assert min(run.value for run in runs if run.value is not None) < 0.05
    assert Counter(run.params["optimizer"] for run in runs[25:]).most_common(1)[0][0] == "adam"


@pytest.mark.parametrize("seed", [1, 4])
def test_a_choice_whose_first_runs_were_unlucky_is_not_ruled_out(seed: int) -> None:
    """`flat` is better nearly everywhere, and the best points of all are `peak`'s; these seeds find none at first."""
    unit = {"min": 0.0, "max": 1.0}
    models = {"peak": {"parameters": {"x": unit, "y": unit}}, "flat": {"parameters": {"z": unit}}}
    search = create_search(sweep({"model": {"choices": models}}, seed=seed))
    runs: list[PastRun] = []
    for index in range(60):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        x, y, z = (float(str(point.get(name, 0))) for name in "xyz")
        peak = 0.1 + math.hypot(x - 0.8, y - 0.7)
        loss = peak if point["model"] == "peak" else 0.2 + 0.1 * abs(z - 0.4)
        runs.append(PastRun(index, point, "finished", loss))
    assert min(run.value for run in runs if run.value is not None) < 0.15


def test_a_choice_that_brings_no_parameters_has_its_turn_and_one_that_is_never_drawn_has_none() -> None:
    momentum = {"momentum": {"min": 0.0, "max": 1.0}}
    chances: dict[str, dict[str, object]] = {
        "sgd": {"probability": 0.8, "parameters": momentum},
        "plain": {"probability": 0.2},
        "never": {"probability": 0, "parameters": momentum},
    }
    search = create_search(sweep({"lr": {"min": 0.0, "max": 1.0}, "optimizer": {"choices": chances}}))
    points = search.suggest(first_index=0, count=17)
    losses = [0.5 if point["optimizer"] == "plain" else abs(float(str(point["momentum"])) - 0.3) for point in points]
    runs = finished(points, losses)
    for turn in (3, 4):
        index = turn * BRANCH_TURN - 1
        assert search.suggest(first_index=index, count=1, runs=runs[:index])[0]["optimizer"] == "plain"


def test_prior_runs_are_data() -> None:
    """With runs from before the sweep, it learns from the first point on."""
    space: dict[str, object] = {"x": {"min": 0.0, "max": 1.0}}
    search = create_search(sweep(space))
    priors = [PastRun(index - 10, {"x": index / 9}, "finished", (index / 9 - 0.7) ** 2) for index in range(10)]
    (point,) = search.suggest(first_index=0, count=1, runs=priors)
    assert point["x"] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_a_run_that_was_stopped_early_is_never_better_than_the_best_finished_one(goal: str) -> None:
    sign = 1 if goal == "minimize" else -1
    search = create_search(sweep({"x": {"min": 0.0, "max": 1.0}}, metric={"name": "loss", "goal": goal}))
    points = search.suggest(first_index=0, count=9)
    runs = finished(points[:8], [sign * (n + 1.0) for n in range(8)])

    def after(value: float, *, stopped: bool) -> dict[str, object]:
        last = PastRun(8, points[8], "killed" if stopped else "finished", value, stopped=stopped)
        return search.suggest(first_index=9, count=1, runs=[*runs, last])[0]

    assert after(sign * -50.0, stopped=True) == after(sign * 1.0, stopped=False)
    assert after(sign * 5.0, stopped=True) == after(sign * 5.0, stopped=False)


def test_failed_runs_do_not_attract_the_search() -> None:
    """Everything above 0.5 crashes; after some of that, it is left alone."""
    search = create_search(sweep({"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}}))
    runs: list[PastRun] = []
    for index in range(40):
        (point,) = search.suggest(first_index=index, count=1, runs=runs)
        x, y = float(str(point["x"])), float(str(point["y"]))
        failed = x > 0.5
        runs.append(PastRun(index, point, "failed" if failed else "finished", None if failed else 1 - x + y))
    assert sum(run.state == "failed" for run in runs[25:]) <= 5


def test_a_record_that_does_not_fit_the_space_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    parameters: dict[str, object] = {"a": {"values": ["x", "y"]}, "n": {"min": 1, "max": 50}}
    search = create_search(sweep(parameters))
    points = search.suggest(first_index=0, count=14)
    strange: list[dict[str, object]] = [{"a": "gone", "n": 1}, {"a": "x"}, {"a": "x", "n": 99}]
    runs = finished([*points, *strange], [float(n) for n in range(17)])
    with caplog.at_level(logging.WARNING, logger="resweep_scheduler"):
        assert len(search.suggest(first_index=17, count=1, runs=runs)) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"run {index} is left out of the search: its parameters do not fit the config" for index in (14, 15, 16)
    ]


def test_extreme_values_of_the_metric_do_no_harm() -> None:
    search = create_search(sweep())
    points = search.suggest(first_index=0, count=15)
    runs = finished(points, [1e308, -1e308, math.inf, math.nan, 0.0] * 3)
    assert len(search.suggest(first_index=15, count=2, runs=runs)) == 2


def test_optunas_log_of_others_is_left_alone() -> None:
    seen: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    logger = logging.getLogger("optuna.storages._in_memory")
    handler = Collector()
    logger.addHandler(handler)
    try:
        search = create_search(sweep())
        runs = finished(search.suggest(first_index=0, count=12), [float(n) for n in range(12)])
        search.suggest(first_index=12, count=1, runs=runs)
        assert seen == []
        optuna.create_study()
        assert len(seen) == 1
    finally:
        logger.removeHandler(handler)


def test_configs_that_were_not_checked_are_refused() -> None:
    random_config = parse_sweep({"method": "random", "parameters": {"a": {"value": 1}}})
    with pytest.raises(SearchError, match="method bayes needs a metric"):
        create_search(random_config.model_copy(update={"method": "bayes"}))
    with pytest.raises(SearchError, match="needs a parameter that is not a constant"):
        create_search(random_config.model_copy(update={"method": "bayes", "metric": Metric(name="loss")}))
