"""Every distribution as W&B means it, drawn by random search and counted by grid, wherever in the config it stands."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import create_search
from resweep_scheduler.search.space import pick, value_at

stats = pytest.importorskip("scipy.stats", reason="SciPy is the oracle of the distributions; scikit-learn brings it")

DRAWS = 1000
# With a fixed seed a test always says the same; this only keeps a right distribution from failing at the first try.
SIGNIFICANCE = 1e-3

# By kind: what stands in the config, and the distribution of the value (before it is quantised).
CONTINUOUS: dict[str, tuple[dict[str, object], Any]] = {
    "inferred uniform": ({"min": -1.0, "max": 3.0}, stats.uniform(-1, 4)),
    "uniform": ({"min": 0, "max": 2}, stats.uniform(0, 2)),
    "log_uniform": ({"min": -7, "max": 1}, stats.loguniform(math.exp(-7), math.exp(1))),
    "log_uniform_values": ({"min": 1e-5, "max": 10}, stats.loguniform(1e-5, 10)),
    # log(1/x) is uniform between min and max.
    "inv_log_uniform": ({"min": -1, "max": 7}, stats.loguniform(math.exp(-7), math.exp(1))),
    "inv_log_uniform_values": ({"min": 0.1, "max": 10}, stats.loguniform(0.1, 10)),
    "normal": ({}, stats.norm()),
    "log_normal": ({"mu": 1, "sigma": 0.5}, stats.lognorm(0.5, scale=math.e)),
    "beta": ({"a": 2, "b": 0.5}, stats.beta(2, 0.5)),
}
QUANTISED: dict[str, tuple[dict[str, Any], Any, tuple[float, float]]] = {
    "q_uniform": ({"min": 0.5, "max": 8, "q": 2}, stats.uniform(0.5, 7.5), (2, 8)),
    "q_log_uniform": ({"min": 0, "max": 4, "q": 5}, stats.loguniform(1, math.exp(4)), (5, 50)),
    "q_log_uniform_values": ({"min": 1, "max": 100, "q": 7}, stats.loguniform(1, 100), (7, 98)),
    "q_normal": ({"mu": 1, "sigma": 2, "q": 0.5}, stats.norm(1, 2), (-math.inf, math.inf)),
    "q_log_normal": ({"mu": 1, "sigma": 1, "q": 2}, stats.lognorm(1, scale=math.e), (0, math.inf)),
    "q_beta": ({"a": 0.5, "b": 2, "q": 0.15}, stats.beta(0.5, 2), (0, 0.9)),
}


def written(kind: str) -> dict[str, object]:
    spec = CONTINUOUS[kind][0] if kind in CONTINUOUS else QUANTISED[kind][0]
    return {**spec} if kind.startswith("inferred") else {"distribution": kind, **spec}


PLACES: dict[str, tuple[Callable[[object], dict[str, object]], tuple[str, ...]]] = {
    "top": (lambda spec: {"x": spec}, ("x",)),
    "group": (lambda spec: {"g": {"parameters": {"h": {"parameters": {"x": spec}}}}}, ("g", "h", "x")),
    "choice": (
        lambda spec: {"g": {"parameters": {"o": {"choices": {"only": {"parameters": {"x": spec}}}}}}},
        ("g", "x"),
    ),
}


def draws(spec: object, place: str = "top", *, seed: int = 20) -> list[Any]:
    put, path = PLACES[place]
    search = create_search(parse_sweep({"method": "random", "seed": seed, "parameters": put(spec)}))
    return [pick(point, path) for point in search.suggest(first_index=0, count=DRAWS)]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", CONTINUOUS)
def test_continuous_draws_have_the_distribution_of_scipy(kind: str, place: str) -> None:
    drawn = draws(written(kind), place)
    assert {type(value) for value in drawn} == {float}
    assert stats.kstest(drawn, CONTINUOUS[kind][1].cdf).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_draws_have_the_distribution_of_scipy_rounded_into_the_bounds(kind: str, place: str) -> None:
    spec, distribution, (low, high) = QUANTISED[kind]
    drawn = Counter(draws(written(kind), place))
    assert {type(value) for value in drawn} == {type(spec["q"])}
    assert low <= min(drawn) <= max(drawn) <= high
    # The share of a multiple is that of all that is rounded to it; the outermost ones get what lies beyond them.
    q, common = spec["q"], sorted(value for value, count in drawn.items() if count >= 10)
    if gaps := [a for a, b in itertools.pairwise(common) if b - a > 1.5 * q]:
        common = [value for value in common if value <= gaps[0]]
    edges = [-math.inf, *((a + b) / 2 for a, b in itertools.pairwise(common)), math.inf]
    expected = np.diff([distribution.cdf(edge) for edge in edges]) * DRAWS
    found = [sum(count for value, count in drawn.items() if a < value <= b) for a, b in itertools.pairwise(edges)]
    assert stats.chisquare(found, expected).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("kind", QUANTISED)
def test_a_quantised_value_is_the_nearest_multiple_as_wandb_rounds(kind: str) -> None:
    spec, distribution, (low, high) = QUANTISED[kind]
    parameter = parse_sweep({"method": "random", "parameters": {"x": written(kind)}}).parameters["x"]
    for u in (np.arange(500) + 0.5) / 500:
        rounded = np.round(distribution.ppf(u) / spec["q"]) * spec["q"]
        assert value_at(parameter, float(u)) == pytest.approx(min(max(rounded, low), high)), u


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("low", "high"), [(-2, 2), (0, 1), (5, 11)])
def test_integers_are_drawn_evenly_with_both_ends(low: int, high: int, place: str) -> None:
    drawn = Counter(draws({"min": low, "max": high}, place))
    assert sorted(drawn) == list(range(low, high + 1))
    assert {type(value) for value in drawn} == {int}
    assert stats.chisquare(list(drawn.values())).pvalue > SIGNIFICANCE


# Python takes many of these for equal, or for false.
ODD: list[object] = [0, False, None, "", [], {}, 1, True, "1", [1], [True], {"a": 1}, {"a": True}, 2.5, "None", [None]]


@pytest.mark.parametrize("place", PLACES)
def test_categories_are_drawn_by_index_whatever_they_are(place: str) -> None:
    drawn = Counter(map(json.dumps, draws({"values": ODD}, place)))
    assert set(drawn) == set(map(json.dumps, ODD))
    assert stats.chisquare(list(drawn.values())).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("place", PLACES)
def test_categories_are_drawn_by_their_probabilities_whatever_they_are(place: str) -> None:
    weights = [(index % 4) / 24 for index in range(len(ODD))]
    drawn = Counter(map(json.dumps, draws({"values": ODD, "probabilities": weights}, place)))
    shares = {json.dumps(value): weight for value, weight in zip(ODD, weights, strict=True) if weight}
    assert set(drawn) == set(shares)
    expected = [shares[value] * DRAWS for value in drawn]
    assert stats.chisquare(list(drawn.values()), expected).pvalue > SIGNIFICANCE


def test_a_category_is_the_one_at_u_times_n() -> None:
    parameter = parse_sweep({"method": "random", "parameters": {"x": {"values": ODD}}}).parameters["x"]
    for place, value in enumerate(ODD):
        for u in (place / len(ODD) + 1e-9, (place + 1) / len(ODD) - 1e-9):
            assert json.dumps(value_at(parameter, u)) == json.dumps(value)


def test_a_constant_is_itself_whatever_it_is() -> None:
    for value in ODD:
        assert {json.dumps(drawn) for drawn in draws({"value": value})} == {json.dumps(value)}


GRID: dict[str, tuple[dict[str, object], list[object]]] = {
    "constant": ({"value": [None, {"a": 0}]}, [[None, {"a": 0}]]),
    "categorical": ({"values": ODD}, ODD),
    "integers with both ends": ({"min": -1, "max": 2}, [-1, 0, 1, 2]),
    "multiples with both ends": ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 5}, [0, 5, 10]),
    "multiples inside": ({"distribution": "q_uniform", "min": 1, "max": 10, "q": 4}, [4, 8]),
    "multiples of the default": ({"distribution": "q_uniform", "min": 0.5, "max": 3.5}, [1.0, 2.0, 3.0]),
    "decimal multiples": ({"distribution": "q_uniform", "min": 0.1, "max": 0.3, "q": 0.1}, [0.1, 0.2, 0.3]),
    "negative multiples": ({"distribution": "q_uniform", "min": -1, "max": 0.5, "q": 0.5}, [-1.0, -0.5, 0.0, 0.5]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("case", GRID)
def test_a_grid_has_the_values_of_the_distribution_in_order(case: str, place: str) -> None:
    spec, expected = GRID[case]
    put, path = PLACES[place]
    search = create_search(parse_sweep({"method": "grid", "parameters": put(spec)}))
    points = search.suggest(first_index=0, count=100)
    assert search.size == len(expected)
    assert repr([pick(point, path) for point in points]) == repr(expected)


@pytest.mark.parametrize("kind", [*CONTINUOUS, *(kind for kind in QUANTISED if kind != "q_uniform")])
def test_a_grid_refuses_all_other_distributions_at_creation(kind: str) -> None:
    for put, _ in PLACES.values():
        with pytest.raises(ValueError, match="a grid needs what can be counted"):
            parse_sweep({"method": "grid", "parameters": put(written(kind))})
