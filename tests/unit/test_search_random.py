"""Random search: a point is a function of seed and index; run ids are one of sweep and index."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.search_contract import SearchContract

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import RandomSearch, create_search, run_id_for
from resweep_scheduler.search.random import uniform_draw

PARAMETERS = {
    "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-1},
    "model": {"parameters": {"depth": {"min": 1, "max": 9}, "act": {"values": ["relu", None, {"leaky": 0.1}]}}},
    "seed": {"value": 3},
}


def search(seed: int = 1, **parameters: object) -> RandomSearch:
    config = parse_sweep({"method": "random", "seed": seed, "parameters": parameters or PARAMETERS})
    found = create_search(config)
    assert isinstance(found, RandomSearch)
    return found


class TestContract(SearchContract):
    config = parse_sweep({"method": "random", "seed": 11, "parameters": PARAMETERS})
    last_index = 20


def test_points_stay_the_same_from_version_to_version() -> None:
    """Whoever restores a sweep from a backup must get the same runs; a change here breaks that."""
    assert search(seed=1).suggest(first_index=0, count=1) == [
        {"lr": 0.0021191850546262627, "model": {"depth": 5, "act": None}, "seed": 3},
    ]


@given(st.permutations(range(12)))
def test_a_point_does_not_depend_on_who_asks_when(order: list[int]) -> None:
    together = search().suggest(first_index=0, count=12)
    alone = {index: search().suggest(first_index=index, count=1)[0] for index in order}
    assert together == [alone[index] for index in range(12)]


def test_another_seed_gives_other_points() -> None:
    assert search(seed=1).suggest(first_index=0, count=3) != search(seed=2).suggest(first_index=0, count=3)


def test_a_parameter_keeps_its_draws_when_others_come_and_go() -> None:
    a, b = {"min": 0.0, "max": 1.0}, {"min": 5.0, "max": 6.0}
    alone = [point["a"] for point in search(a=a).suggest(first_index=0, count=5)]
    assert alone == [point["a"] for point in search(b=b, a=a).suggest(first_index=0, count=5)]


def test_draws_are_uniform_and_independent() -> None:
    draws = [[uniform_draw(7, index, name) for index in range(4000)] for name in ("a", "b")]
    for column in draws:
        buckets = Counter(int(u * 10) for u in column)
        # Expected 400 each with a deviation of 19; five deviations are one in a million.
        assert all(305 < buckets[bucket] < 495 for bucket in range(10))
    correlation = 12 * fmean((x - 0.5) * (y - 0.5) for x, y in zip(*draws, strict=True))
    assert abs(correlation) < 5 / math.sqrt(4000)


@given(st.integers(0, 2**63), st.integers(0, 10**9), st.text(max_size=5))
def test_a_draw_is_never_0_or_1(seed: int, index: int, name: str) -> None:
    assert 0 < uniform_draw(seed, index, name) < 1


def test_grid_and_random_load_neither_optuna_nor_numpy() -> None:
    code = """
import sys
from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import create_search
for method in ("grid", "random"):
    config = parse_sweep({"method": method, "parameters": {"a": {"values": [1, 2]}}})
    create_search(config).suggest(first_index=0, count=1)
print([name for name in ("optuna", "numpy", "scipy", "rq", "redis") if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert answer.stdout.strip() == "[]"


@given(st.text(max_size=10), st.integers(0, 10**6))
def test_a_run_id_is_eight_letters_and_digits(sweep_id: str, index: int) -> None:
    run_id = run_id_for(sweep_id, index)
    assert len(run_id) == 8
    assert set(run_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789")
    assert run_id == run_id_for(sweep_id, index)


def test_run_ids_differ_by_sweep_index_and_salt() -> None:
    ids = {run_id_for(sweep, index, salt) for sweep in ("a", "a1") for index in range(1000) for salt in (0, 1)}
    assert len(ids) == 4000


@pytest.mark.parametrize(("index", "salt", "expected"), [(0, 0, "tobecrk7"), (1, 0, "uyk8m3wq"), (1, 2, "x7qe7hy2")])
def test_run_ids_stay_the_same_from_version_to_version(index: int, salt: int, expected: str) -> None:
    assert run_id_for("abcd1234", index, salt) == expected
