"""Grid search: exact, in order, without duplicates, whatever its size."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.search_contract import SearchContract

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import GridSearch, SearchError, create_search


def grid(**parameters: object) -> GridSearch:
    search = create_search(parse_sweep({"method": "grid", "parameters": parameters}))
    assert isinstance(search, GridSearch)
    return search


def points(search: GridSearch) -> list[dict[str, object]]:
    assert search.size is not None
    return search.suggest(first_index=0, count=search.size + 5)


class TestContract(SearchContract):
    config = parse_sweep(
        {
            "method": "grid",
            "parameters": {
                "z": {"values": [[1], {"k": [2]}, None]},
                "g": {"parameters": {"b": {"min": 1, "max": 3}, "a": {"value": {"deep": []}}}},
                "q": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
            },
        }
    )
    last_index = 44


def test_names_are_sorted_and_the_last_one_runs_fastest() -> None:
    search = grid(b={"values": ["x", "y"]}, a={"min": 1, "max": 2}, c={"value": 0})
    assert [tuple(point.values()) for point in points(search)] == [("x", 1, 0), ("y", 1, 0), ("x", 2, 0), ("y", 2, 0)]


def test_nested_names_are_sorted_by_their_full_name() -> None:
    search = grid(m={"parameters": {"b": {"values": [1, 2]}}}, a={"values": [3, 4]})
    assert points(search) == [
        {"m": {"b": 1}, "a": 3},
        {"m": {"b": 2}, "a": 3},
        {"m": {"b": 1}, "a": 4},
        {"m": {"b": 2}, "a": 4},
    ]


def test_constants_only_are_one_run() -> None:
    assert points(grid(a={"value": 1}, b={"value": None})) == [{"a": 1, "b": None}]


def test_equal_values_are_one_point_but_true_is_not_one() -> None:
    search = grid(
        a={"values": [3, 3.0, True, 1, 1.0, "3", None, [1.0], [1], {"x": 1, "y": 2}, {"y": 2.0, "x": 1}, -0.0, 0]}
    )
    assert repr([3, True, 1, "3", None, [1.0], {"x": 1, "y": 2}, -0.0]) == repr(
        [point["a"] for point in points(search)]
    )


@pytest.mark.parametrize(
    ("low", "high", "q", "expected"),
    [
        (0, 10, 2, [0, 2, 4, 6, 8, 10]),
        (1, 10, 4, [4, 8]),
        (0, 1, 0.1, [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (-0.3, 0.3, 0.15, [-0.3, -0.15, 0.0, 0.15, 0.3]),
        (0.1, 0.3, 0.1, [0.1, 0.2, 0.3]),
    ],
)
def test_a_quantised_axis_has_the_multiples_inside_the_bounds(
    low: float, high: float, q: float, expected: list[float]
) -> None:
    search = grid(a={"distribution": "q_uniform", "min": low, "max": high, "q": q})
    assert repr(expected) == repr([point["a"] for point in points(search)])


def test_a_grid_too_large_to_enumerate_is_no_work() -> None:
    search = grid(**{f"p{n}": {"min": 1, "max": 10**9} for n in range(5)})
    assert search.size == 10**45
    assert search.suggest(first_index=10**45 - 1, count=3) == [{f"p{n}": 10**9 for n in range(5)}]


def test_missing_lists_what_is_not_done() -> None:
    search = grid(a={"min": 0, "max": 5})
    assert list(search.missing([0, 3, 3, 99])) == [1, 2, 4, 5]
    assert list(search.missing({0, 1, 2, 3, 4, 5})) == []


@pytest.mark.parametrize("index", [-1, 6])
def test_a_point_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError, match="the grid has the points 0 to 5"):
        grid(a={"min": 0, "max": 5}).point(index)


def test_a_continuous_axis_is_refused_by_the_search_too() -> None:
    config = parse_sweep({"method": "random", "parameters": {"a": {"min": 0.0, "max": 1.0}}})
    with pytest.raises(SearchError, match=r"a cannot \(got uniform\)"):
        GridSearch(config.parameters)


AXES = st.one_of(
    st.lists(st.sampled_from([0, 1, 1.0, True, False, None, "1", [1], [True]]), min_size=1, max_size=5).map(
        lambda values: {"values": values}
    ),
    st.tuples(st.integers(-5, 5), st.integers(1, 4)).map(lambda pair: {"min": pair[0], "max": pair[0] + pair[1]}),
    st.just({"value": 7}),
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d.e"]), AXES, min_size=1))
def test_index_and_point_are_one_to_one_and_cover_the_product(axes: dict[str, dict[str, object]]) -> None:
    search = grid(**axes)
    found = points(search)
    assert search.size == len(found)
    assert len({json.dumps(point) for point in found}) == len(found)
    choices: list[list[object]] = []
    for axis in axes.values():
        values = axis.get("values", [axis.get("value")])
        if "min" in axis:
            low, high = axis["min"], axis["max"]
            assert isinstance(low, int)
            assert isinstance(high, int)
            values = list(range(low, high + 1))
        assert isinstance(values, list)
        choices.append(values)
    assert all(dict(zip(axes, combination, strict=True)) in found for combination in itertools.product(*choices))


@given(st.integers(0, 30), st.integers(0, 8))
def test_any_slice_is_a_slice_of_the_whole(first: int, count: int) -> None:
    search = grid(a={"min": 0, "max": 4}, b={"values": [1, 2, 3, 4]})
    assert search.suggest(first_index=first, count=count) == points(search)[first : first + count]
