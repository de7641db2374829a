"""Sobol points: the sequence is the known one, every seed's scramble keeps it even, and an index has one point."""

from __future__ import annotations

import pytest

from resweep_scheduler.search.sobol import TABLE_SIZE, sobol_integer, sobol_point


def test_the_sequence_is_that_of_joe_and_kuo() -> None:
    qmc = pytest.importorskip("scipy.stats.qmc")
    expected = qmc.Sobol(TABLE_SIZE, scramble=False, bits=32).random(256)
    for index in range(256):
        ours = [sobol_integer(index, dimension) / 2**32 for dimension in range(TABLE_SIZE)]
        assert ours == list(expected[index])


@pytest.mark.parametrize("dimensions", [1, 6, TABLE_SIZE + 5])
@pytest.mark.parametrize("first", [0, 64])
def test_each_slice_of_each_dimension_has_one_point(dimensions: int, first: int) -> None:
    points = [sobol_point(7, index, dimensions) for index in range(first, first + 64)]
    for dimension in range(dimensions):
        assert sorted(int(point[dimension] * 64) for point in points) == list(range(64))


def test_pairs_of_dimensions_are_even_too() -> None:
    points = [sobol_point(3, index, 2) for index in range(64)]
    assert len({(int(x * 8), int(y * 8)) for x, y in points}) == 64


def test_points_are_far_more_even_than_chance() -> None:
    qmc = pytest.importorskip("scipy.stats.qmc")
    points = [sobol_point(5, index, 5) for index in range(64)]
    assert qmc.discrepancy(points) < 0.02


def test_a_point_belongs_to_its_seed_and_index() -> None:
    assert sobol_point(1, 12, 8) == sobol_point(1, 12, 8)
    assert sobol_point(1, 12, 8)[:3] == sobol_point(1, 12, 3)
    assert sobol_point(1, 12, 8) != sobol_point(2, 12, 8)
    assert all(0 < u < 1 for u in sobol_point(1, 2**40 + 3, 3))


def test_dimensions_beyond_the_table_are_no_copies() -> None:
    points = [sobol_point(2, index, TABLE_SIZE + 1) for index in range(64)]
    assert len({(int(point[0] * 8), int(point[TABLE_SIZE] * 8)) for point in points}) > 32
