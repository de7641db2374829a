"""Points to latent points and back: values, steps, categories, conditions, and when two points are the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.config.parameters import Categorical, Constant, IntUniform, Parameter, Uniform
from resweep_scheduler.search.encoding import MARGIN, Codec, Coordinate
from resweep_scheduler.search.space import Condition, Dimension, dimensions_of

STEPPED: dict[str, dict[str, object]] = {
    "int": {"min": 1, "max": 6},
    "q": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1},
    "ql": {"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 5},
    "qle": {"distribution": "q_log_uniform", "min": 0, "max": 3, "q": 1},
    "qb": {"distribution": "q_beta", "a": 2, "b": 3, "q": 0.25},
    "qn": {"distribution": "q_normal", "mu": 1, "sigma": 2, "q": 0.5},
    "qln": {"distribution": "q_log_normal", "sigma": 0.5, "q": 0.5},
}


def coordinate(raw: dict[str, object]) -> Coordinate:
    config = parse_sweep({"method": "random", "parameters": {"p": raw}})
    return Coordinate(dimensions_of(config.parameters)[0])


@pytest.mark.parametrize("kind", STEPPED)
def test_every_step_has_one_coordinate_that_leads_back_to_it(kind: str) -> None:
    one = coordinate(STEPPED[kind])
    assert one.stepped
    positions = one.positions
    assert list(positions) == sorted(set(positions))
    values = [one.value(u) for u in positions]
    assert len({repr(value) for value in values}) == len(positions)
    assert [one.position(value) for value in values] == list(positions)
    assert one.levels in (len(positions), None)


@pytest.mark.parametrize(("kind", "levels"), [("int", 6), ("q", 11), ("ql", 20), ("qle", 20), ("qb", 5), ("qn", None)])
def test_levels_are_counted(kind: str, levels: int | None) -> None:
    assert coordinate(STEPPED[kind]).levels == levels


def test_a_value_between_the_steps_counts_as_the_nearest() -> None:
    one = coordinate(STEPPED["q"])
    assert one.position(0.30000000000000004) == one.position(0.3) == one.position(0.29)
    assert one.position(1.2) is None


def test_very_fine_steps_have_no_table() -> None:
    assert coordinate({"min": 0, "max": 10**30}).positions == ()
    assert coordinate({"min": 0, "max": 10**30}).levels == 10**30 + 1


def test_categories_are_indices_of_values_that_differ_and_can_occur() -> None:
    one = coordinate({"values": [1, True, "never", 1.0, None], "probabilities": [0.25, 0.25, 0, 0.25, 0.25]})
    assert one.choices == (0, 1, 4)
    assert one.weights == (0.5, 0.25, 0.25)
    assert [one.position(value) for value in (1, 1.0, True, None, "never")] == [0, 0, 1, 4, None]
    assert [one.draw(u) for u in (0.01, 0.49, 0.51, 0.74, 0.76, 0.9999)] == [0, 0, 1, 1, 4, 4]
    assert one.levels == 3


@given(st.floats(0, 1))
def test_the_ends_of_a_range_stay_finite(u: float) -> None:
    one = coordinate({"distribution": "normal"})
    assert MARGIN <= one.draw(u) <= 1 - MARGIN
    assert isinstance(one.value(one.draw(u)), float)


def space() -> list[Dimension]:
    """optimizer: sgd with a momentum and a constant, adam with a choice that has a width; and a rate."""
    optimizer: Parameter = Categorical(values=("sgd", "adam"))
    sgd, adam = Condition("optimizer", 0), Condition("optimizer", 1)
    return [
        Dimension("adam.kind", ("kind",), Categorical(values=("a", "b")), (adam,)),
        Dimension("adam.kind=b.width", ("width",), IntUniform(min=1, max=3), (adam, Condition("adam.kind", 1))),
        Dimension("optimizer", ("optimizer",), optimizer),
        Dimension("rate", ("rate",), Categorical(values=(1, 2))),
        Dimension("sgd.fixed", ("fixed",), Constant(value="f"), (sgd,)),
        Dimension("sgd.width", ("width",), IntUniform(min=1, max=2), (sgd,)),
    ]


def test_only_active_dimensions_are_encoded() -> None:
    codec = Codec(space())
    assert codec.conditional
    assert codec.encode({"optimizer": "sgd", "rate": 2, "width": 2, "fixed": "f"}) == {
        "optimizer": 0,
        "rate": 1,
        "sgd.width": 0.75,
    }
    assert codec.encode({"optimizer": "adam", "rate": 2, "kind": "a"}) == {"optimizer": 1, "rate": 1, "adam.kind": 0}
    assert codec.encode({"optimizer": "adam", "rate": 2}) is None
    assert codec.encode({"optimizer": "sgd", "rate": 2, "width": 3}) is None


def test_two_choices_may_share_a_path() -> None:
    codec = Codec(space())
    latent = {"optimizer": 1, "rate": 0, "adam.kind": 1, "adam.kind=b.width": 0.5, "sgd.width": 0.25}
    assert codec.decode(latent) == {("optimizer",): "adam", ("rate",): 1, ("kind",): "b", ("width",): 2}
    assert codec.decode({**latent, "optimizer": 0}) == {
        ("optimizer",): "sgd",
        ("rate",): 1,
        ("width",): 1,
        ("fixed",): "f",
    }


def test_all_points_of_a_conditional_space_are_counted_and_reached() -> None:
    codec = Codec(space())
    assert codec.size == 2 * (2 + 1 + 3)
    points = [codec.at(index) for index in range(codec.size)]
    assert len({tuple(point.items()) for point in points}) == codec.size
    for point in points:
        values = {path[0]: value for path, value in codec.decode(point).items()}
        assert codec.encode(values) == point
        assert codec.encode(values) == point


def test_a_continuous_dimension_that_can_exist_makes_a_space_infinite() -> None:
    here = Dimension("x", ("x",), Uniform(min=0, max=1), (Condition("optimizer", 0),))
    assert Codec([*space(), here]).size is None
    # The choice is never drawn, so what hangs on it does not count.
    assert Codec([*space(), Dimension("x", ("x",), Uniform(min=0, max=1), (Condition("optimizer", 7),))]).size == 12


def test_inactive_coordinates_are_dropped_and_steps_are_centred() -> None:
    latent = {"optimizer": 0, "rate": 0, "adam.kind": 1, "adam.kind=b.width": 0.1, "sgd.width": 0.9}
    assert Codec(space()).only_active(latent) == {"optimizer": 0, "rate": 0, "sgd.width": 0.75}


def test_points_that_mean_the_same_have_one_key() -> None:
    config = parse_sweep({"method": "random", "parameters": {"a": {"values": [1, 2]}, "b": {"min": 1, "max": 3}}})
    codec = Codec(dimensions_of(config.parameters))
    assert (
        codec.encode({"a": 1, "b": 2}) == codec.encode({"a": 1.0, "b": 2.0, "c": 3}) != codec.encode({"a": 2, "b": 2})
    )
    assert codec.encode({"a": 3, "b": 2}) is None
