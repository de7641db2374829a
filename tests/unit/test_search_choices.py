"""Conditional parameters in grid and random: every point has exactly what belongs to the choices that it took."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.conditional import all_points, is_point, parameters
from support.search_contract import SearchContract

from resweep_scheduler.config import SweepConfig, parse_sweep
from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.parameters import Categorical, CategoricalWithProbabilities
from resweep_scheduler.search import GridSearch, RandomSearch, SearchError, create_search
from resweep_scheduler.search.encoding import Codec
from resweep_scheduler.search.space import Condition, active, dimensions_of, nest, pick, value_at

OPTIMIZER: dict[str, Any] = {
    "choices": {
        "sgd": {
            "parameters": {
                "momentum": {"values": [0.5, 0.9]},
                "schedule": {"choices": {"step": {"parameters": {"every": {"min": 1, "max": 3}}}, "flat": None}},
            }
        },
        "adam": {"parameters": {"beta2": {"value": 0.999}}},
        "lbfgs": None,
    }
}


def sweep(raw: dict[str, Any], method: str = "random", seed: int = 1) -> SweepConfig:
    return parse_sweep({"method": method, "seed": seed, "parameters": raw})


def grid(raw: dict[str, Any]) -> GridSearch:
    search = create_search(sweep(raw, "grid"))
    assert isinstance(search, GridSearch)
    return search


def points(search: GridSearch) -> list[dict[str, object]]:
    assert search.size is not None
    return search.suggest(first_index=0, count=search.size + 5)


class _Conditional(SearchContract):
    def test_points_are_nested_like_the_config_and_plain_json(self) -> None:
        for point in create_search(self.config).suggest(first_index=0, count=self.last_index):
            assert is_point(self.config.parameters, point)


class TestGridContract(_Conditional):
    config = sweep({"o": OPTIMIZER, "z": {"values": [[1], {"k": []}]}}, "grid")
    last_index = 19


class TestRandomContract(_Conditional):
    config = sweep({"o": OPTIMIZER, "z": {"min": 0.0, "max": 1.0}})
    last_index = 20


class TestBayesContract(_Conditional):
    config = parse_sweep(
        {
            "method": "bayes",
            "seed": 1,
            "metric": {"name": "loss"},
            "parameters": {"o": OPTIMIZER, "z": {"min": 0.0, "max": 1.0}},
        }
    )
    last_index = 30


def test_dimensions_have_names_and_conditions_of_their_own() -> None:
    found = dimensions_of(sweep({"m": {"parameters": {"o": OPTIMIZER}}, "lr": {"value": 1}}).parameters)
    sgd, step = Condition("m.o", 0), Condition("m.o=sgd.schedule", 0)
    assert [(one.name, one.path, one.conditions) for one in found] == [
        ("lr", ("lr",), ()),
        ("m.o", ("m", "o"), ()),
        ("m.o=adam.beta2", ("m", "beta2"), (Condition("m.o", 1),)),
        ("m.o=sgd.momentum", ("m", "momentum"), (sgd,)),
        ("m.o=sgd.schedule", ("m", "schedule"), (sgd,)),
        ("m.o=sgd.schedule=step.every", ("m", "every"), (sgd, step)),
    ]
    kinds = {one.name: one.parameter for one in found}
    assert isinstance(kinds["m.o"], Categorical)
    assert kinds["m.o"].values == ("sgd", "adam", "lbfgs")


def test_choices_and_groups_have_no_value_of_their_own() -> None:
    for raw in ({"choices": {"a": None}}, {"parameters": {"b": {"value": 1}}}):
        with pytest.raises(TypeError, match="only dimensions have values of their own"):
            value_at(sweep({"o": raw}).parameters["o"], 0.5)


def test_a_parameter_with_choices_is_drawn_and_counted_as_one_with_values() -> None:
    weighted = {"choices": {"a": {"probability": 0.2}, "b": {"probability": 0.8}}}
    assert isinstance(dimensions_of(sweep({"o": weighted}).parameters)[0].parameter, CategoricalWithProbabilities)
    for choices, values in (
        (weighted, {"values": ["a", "b"], "probabilities": [0.2, 0.8]}),
        ({"choices": {"a": None, "b": None}}, {"values": ["a", "b"]}),
    ):
        drawn = [create_search(sweep({"o": raw})).suggest(first_index=0, count=200) for raw in (choices, values)]
        assert drawn[0] == drawn[1]
    assert points(grid({"o": {"choices": {"b": None, "a": None}}})) == points(grid({"o": {"values": ["b", "a"]}}))


def test_names_tell_values_apart_that_look_alike() -> None:
    bring = {"parameters": {"x": {"value": 1}}}
    values = ["1", 1, True, "true", None, "null", "a.b", "a", [1], 2.0, {"k": 1}, "a=b", "Ä", ""]
    found = dimensions_of(sweep({"o": {"choices": [{"value": value, **bring} for value in values]}}).parameters)
    assert sorted(one.name for one in found) == sorted(
        ["o"]
        + [f"o={label}.x" for label in ('"1"', "1", "true", '"true"', "null", '"null"', '"a.b"', "a", "[1]", "2")]
        + [f"o={label}.x" for label in ('{"k": 1}', '"a=b"', '"\\u00c4"', '""')]
    )


def test_the_last_name_is_the_fastest_and_a_choice_is_slower_than_what_it_brings() -> None:
    search = grid({"z": {"values": ["p", "q"]}, "o": OPTIMIZER, "a": {"value": 0}})
    schedules: list[dict[str, object]] = [{"schedule": "step", "every": n} for n in (1, 2, 3)]
    schedules.append({"schedule": "flat"})
    branches: list[dict[str, object]] = [{"o": "sgd", "momentum": m, **rest} for m in (0.5, 0.9) for rest in schedules]
    branches += [{"o": "adam", "beta2": 0.999}, {"o": "lbfgs"}]
    assert points(search) == [{"z": z, **branch, "a": 0} for branch in branches for z in ("p", "q")]
    assert search.size == 2 * (2 * (3 + 1) + 1 + 1)


def test_a_point_has_the_order_of_the_config() -> None:
    search = grid(
        {
            "z": {"value": 1},
            "o": {"choices": {"x": {"parameters": {"n": {"value": 1}, "b": {"value": 2}}}}},
            "a": {"value": 3},
        }
    )
    assert list(search.point(0)) == ["z", "o", "n", "b", "a"]


def test_a_conditional_grid_too_large_to_enumerate_is_no_work() -> None:
    wide = {"parameters": {f"p{n}": {"min": 1, "max": 10**9} for n in range(5)}}
    search = grid({f"o{k}": {"choices": [{"value": n, **({} if k else wide)} for n in range(3)]} for k in range(9)})
    assert search.size == 3 * 10**45 * 3**8
    assert search.point(search.size - 1) == {
        **{f"o{k}": 2 for k in range(9)},
        **{f"p{n}": 10**9 for n in range(5)},
    }


def test_a_grid_refuses_what_cannot_be_counted_in_a_choice() -> None:
    for choice, kind in (
        ({"parameters": {"m": {"min": 0.0, "max": 1.0}}}, "m cannot .got uniform"),
        ({"probability": 1}, "o cannot"),
    ):
        with pytest.raises(SearchError, match=kind):
            GridSearch(sweep({"o": {"choices": {"x": choice}}}).parameters)


def test_missing_lists_what_is_not_done_of_a_conditional_grid() -> None:
    search = grid({"o": OPTIMIZER})
    assert list(search.missing({0, 1, 2, 3, 4, 5, 6, 8})) == [7, 9]


def test_draws_stay_what_they_are_when_choices_are_added() -> None:
    before = {"lr": {"min": 0.0, "max": 1.0}, "o": OPTIMIZER}
    extra = {"parameters": {"lr2": {"min": 0.0, "max": 1.0}, "momentum": {"min": 0.0, "max": 1.0}}}
    more = {"p": {"choices": {"x": extra | {"parameters": {"lr2": {"value": 1}}}}}, **before}
    old, new = (create_search(sweep(raw)).suggest(first_index=0, count=50) for raw in (before, more))
    assert old == [{name: value for name, value in point.items() if name not in ("p", "lr2")} for point in new]
    wider = {"lr": before["lr"], "o": {"choices": {**OPTIMIZER["choices"], "new": extra}}}
    widened = create_search(sweep(wider)).suggest(first_index=0, count=50)
    assert [point["lr"] for point in old] == [point["lr"] for point in widened]
    momenta = {(n, p["momentum"]) for n, p in enumerate(old) if p["o"] == "sgd"}
    assert {(n, p["momentum"]) for n, p in enumerate(widened) if p["o"] == "sgd" and old[n]["o"] == "sgd"} <= momenta


def test_parameters_of_one_name_in_two_choices_are_drawn_each_by_itself() -> None:
    both = {"parameters": {"lr": {"min": 0.0, "max": 1.0}}}
    search = create_search(sweep({"o": {"choices": {"a": both, "b": both}}}))
    drawn = [point["lr"] for point in search.suggest(first_index=0, count=20)]
    assert len(set(drawn)) == 20


def test_choices_are_drawn_with_their_probabilities() -> None:
    weights = {"a": 0.5, "b": 0.3, "never": 0.0, "c": 0.2}
    choices = {key: {"probability": p, "parameters": {f"of_{key}": {"value": 1}}} for key, p in weights.items()}
    drawn = create_search(sweep({"o": {"choices": choices}})).suggest(first_index=0, count=4000)
    counts = Counter(point["o"] for point in drawn)
    assert counts["never"] == 0
    for key, weight in weights.items():
        assert abs(counts[key] - 4000 * weight) <= 5 * (4000 * weight * (1 - weight)) ** 0.5
    assert all(point == {"o": point["o"], f"of_{point['o']}": 1} for point in drawn)


@settings(max_examples=150, deadline=None)
@given(parameters(grid=True))
def test_a_conditional_grid_has_every_point_once_and_no_other(raw: dict[str, Any]) -> None:
    search = grid(raw)
    assert search.size is not None
    assume(search.size <= 2000)
    space = sweep(raw, "grid").parameters
    found = points(search)
    assert search.size == len(found)
    assert all(is_point(space, point) for point in found)
    keys = [category_key(point) for point in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == {category_key(point) for point in all_points(space)}


@settings(max_examples=150, deadline=None)
@given(parameters(), st.integers(0, 2**60))
def test_random_points_have_what_they_must_have_and_nothing_else(raw: dict[str, Any], seed: int) -> None:
    config = sweep(raw, seed=seed)
    search = create_search(config)
    assert isinstance(search, RandomSearch)
    for point in search.suggest(first_index=0, count=5):
        assert is_point(config.parameters, point)
        assert search.suggest(first_index=0, count=5) == RandomSearch(config.parameters, seed).suggest(
            first_index=0, count=5
        )


@settings(max_examples=150, deadline=None)
@given(parameters(), st.integers(0, 2**60))
def test_a_point_leads_to_coordinates_that_lead_back_to_it(raw: dict[str, Any], seed: int) -> None:
    config = sweep(raw, seed=seed)
    dimensions = dimensions_of(config.parameters)
    assert len({one.name for one in dimensions}) == len(dimensions)
    codec = Codec(dimensions)
    for point in create_search(config).suggest(first_index=0, count=5):
        existing = [one.name for one in active(dimensions, lambda path, point=point: pick(point, path))]  # type: ignore[misc]
        latent = codec.encode(point)
        assert latent is not None
        assert set(latent) <= set(existing)
        back = nest(config.parameters, codec.decode(latent))
        assert is_point(config.parameters, back)
        assert codec.encode(back) == pytest.approx(latent, abs=1e-6)
