"""Points as a learning search sees them: a number u in (0, 1) for each numeric dimension, an index for each category.

`Coordinate` is one dimension, `Codec` all of them with their conditions. A latent point maps the names of the active
dimensions to their coordinates; dimensions whose conditions do not hold have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Final

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.numbers import Lattice
from resweep_scheduler.config.parameters import (
    Categorical,
    CategoricalWithProbabilities,
    Constant,
    IntUniform,
    Parameter,
)
from resweep_scheduler.search.space import Condition, Dimension, is_stepped, pick, position_of, value_at

# u = 0 and u = 1 are infinity for normal distributions; further out than this are single draws in a million.
MARGIN: Final = 1e-6
# Steps finer than this are as good as continuous for a model.
_MAX_TABLE: Final = 1024

Latent = dict[str, float | int]
"""Coordinates by the names of the active dimensions, in the order of the codec."""


class Coordinate:
    """One dimension, not a constant: its values as u in (0, 1), or as the index of a category.

    Attributes:
        name: Unique name of the dimension.
        path: Where its value stands in a point.
        parameter: Its kind and bounds.
        conditions: All must hold for it to exist.
        choices: Indices of the categories that differ and can occur, ascending; empty for numbers.
        weights: The probabilities of `choices`, summing to 1; empty for numbers.
        stepped: Whether it takes separate values.
        levels: How many different values there are; None if infinitely many.
    """

    def __init__(self, dimension: Dimension) -> None:
        self.name = dimension.name
        self.path = dimension.path
        self.parameter = dimension.parameter
        self.conditions: tuple[Condition, ...] = dimension.conditions
        self.stepped = is_stepped(dimension.parameter)
        self._values, weights = _categories(dimension.parameter)
        first: dict[str, int] = {}
        total: dict[str, float] = {}
        for index, (value, weight) in enumerate(zip(self._values, weights, strict=True)):
            if weight > 0:
                key = category_key(value)
                first.setdefault(key, index)
                total[key] = total.get(key, 0.0) + weight
        self._indices = first
        self.choices = tuple(first.values())
        self.weights = tuple(weight / math.fsum(total.values()) for weight in total.values())
        self.levels = len(self.choices) if self.choices else _levels(dimension.parameter)

    def value(self, latent: float) -> object:
        """The value of the parameter at a coordinate."""
        return self._values[int(latent)] if self.choices else value_at(self.parameter, latent)

    def position(self, value: object) -> float | int | None:
        """The coordinate of a value; None if the parameter cannot have it. Equal values have equal coordinates."""
        if self.choices:
            return self._indices.get(category_key(value))
        u = position_of(self.parameter, value)
        lattice = _lattice(self.parameter)
        if u is not None and lattice is not None and isinstance(value, int | float):
            # A value between the steps (of an earlier sweep, say) is that of the nearest step.
            u = position_of(self.parameter, lattice.nearest(value))
        return None if u is None else _inside(u)

    def draw(self, u: float) -> float | int:
        """The coordinate below which a share u of the distribution lies: what random search takes."""
        if not self.choices:
            return _inside(u)
        reached = 0.0
        for index, weight in zip(self.choices, self.weights, strict=True):
            reached += weight
            if u < reached:
                return index
        return self.choices[-1]

    def at(self, level: int) -> float | int:
        """The coordinate of the `level`-th of all values, from 0; only where `levels` is known."""
        if self.choices:
            return self.choices[level]
        if isinstance(self.parameter, IntUniform):
            value: object = self.parameter.min + level
        else:
            lattice = _lattice(self.parameter)
            if lattice is None or lattice.first is None:
                raise TypeError(f"{self.name} has no levels that can be counted ({self.parameter.distribution})")
            value = lattice.value(lattice.first + level)
        position = self.position(value)
        # The ends of a quantised range may differ from its bounds by a rounding error of the exponential.
        return MARGIN if position is None else position

    @cached_property
    def positions(self) -> tuple[float, ...]:
        """The coordinates of all steps of a numeric parameter, ascending; empty if it has none or very many."""
        if self.choices or not self.stepped:
            return ()
        if self.levels is not None:
            return tuple(self.at(level) for level in range(self.levels)) if self.levels <= _MAX_TABLE else ()
        lattice = _lattice(self.parameter)
        if lattice is None:
            return ()
        low, high = (_multiple(lattice, value_at(self.parameter, u)) for u in (MARGIN, 1 - MARGIN))
        if high - low >= _MAX_TABLE:
            return ()
        found = (self.position(lattice.value(multiple)) for multiple in range(low, high + 1))
        return tuple(sorted({position for position in found if position is not None}))


class Codec:
    """All dimensions of a space: points to latent points and back.

    Conditions nest: the conditions of a dimension are those of the one it hangs on, and then one on that one.

    Args:
        dimensions: The dimensions; constants among them appear in values and have no coordinate.
    """

    def __init__(self, dimensions: Iterable[Dimension]) -> None:
        ordered = sorted(dimensions, key=lambda one: len(one.conditions))  # stable: parents before their children
        self._constants = [one for one in ordered if isinstance(one.parameter, Constant)]
        self.coordinates: tuple[Coordinate, ...] = tuple(
            Coordinate(one) for one in ordered if not isinstance(one.parameter, Constant)
        )
        self.by_name: dict[str, Coordinate] = {one.name: one for one in self.coordinates}
        self.conditional: bool = any(one.conditions for one in self.coordinates)
        self._children: dict[Condition | None, list[Coordinate]] = {}
        for one in self.coordinates:
            self._children.setdefault(one.conditions[-1] if one.conditions else None, []).append(one)

    def encode(self, params: Mapping[str, object]) -> Latent | None:
        """The latent point of a run's parameters; None if they are not of this space."""
        latent: Latent = {}
        for one in self.coordinates:
            if not holds(one.conditions, latent):
                continue
            try:
                position = one.position(pick(params, one.path))
            except KeyError:
                return None
            if position is None:
                return None
            latent[one.name] = position
        return latent

    def decode(self, latent: Mapping[str, float | int]) -> dict[tuple[str, ...], object]:
        """The values of the active dimensions by path, constants too; coordinates of inactive dimensions are ignored.

        Raises:
            KeyError: An active dimension has no coordinate.
        """
        values = {one.path: one.value(latent[one.name]) for one in self.coordinates if holds(one.conditions, latent)}
        for constant in self._constants:
            if holds(constant.conditions, latent) and isinstance(constant.parameter, Constant):
                values[constant.path] = constant.parameter.value
        return values

    def only_active(self, latent: Mapping[str, float | int]) -> Latent:
        """The coordinates of the active dimensions, in the order of the codec, each at the middle of its step."""
        point: Latent = {}
        for one in self.coordinates:
            if holds(one.conditions, point):
                u = latent[one.name]
                if one.stepped and not one.choices and (position := one.position(one.value(u))) is not None:
                    u = position
                point[one.name] = u
        return point

    @cached_property
    def size(self) -> int | None:
        """How many different points there are; None if infinitely many."""
        return self._count(self._children.get(None, []))

    def at(self, index: int) -> Latent:
        """The `index`-th of all points, from 0; only where `size` is known."""
        latent: Latent = {}
        self._place(self._children.get(None, []), index, latent)
        return {one.name: latent[one.name] for one in self.coordinates if one.name in latent}

    def _place(self, group: Sequence[Coordinate], index: int, latent: Latent) -> None:
        for one in group:
            index, place = divmod(index, self._count([one]) or 1)
            if not one.choices:
                latent[one.name] = one.at(place)
                continue
            for choice in one.choices:
                below = self._children.get(Condition(one.name, choice), [])
                count = self._count(below) or 1
                if place < count:
                    latent[one.name] = choice
                    self._place(below, place, latent)
                    break
                place -= count

    def _count(self, group: Sequence[Coordinate]) -> int | None:
        counts = [self._count_of(one) for one in group]
        return math.prod(count for count in counts if count is not None) if None not in counts else None

    def _count_of(self, one: Coordinate) -> int | None:
        if not one.choices:
            return one.levels
        counts = [self._count(self._children.get(Condition(one.name, choice), [])) for choice in one.choices]
        return sum(count for count in counts if count is not None) if None not in counts else None


def holds(conditions: Sequence[Condition], latent: Mapping[str, float | int]) -> bool:
    """Whether all conditions hold in a latent point."""
    return all(latent.get(one.dimension) == one.choice for one in conditions)


def _categories(parameter: Parameter) -> tuple[tuple[object, ...], tuple[float, ...]]:
    """The values of a parameter with categories and their probabilities; nothing for numbers."""
    match parameter:
        case Categorical():
            return parameter.values, (1.0,) * len(parameter.values)
        case CategoricalWithProbabilities():
            return parameter.values, parameter.probabilities
    return (), ()


def _lattice(parameter: Parameter) -> Lattice | None:
    return getattr(parameter, "lattice", None)


def _levels(parameter: Parameter) -> int | None:
    if isinstance(parameter, IntUniform):
        return parameter.max - parameter.min + 1
    lattice = _lattice(parameter)
    if lattice is None or lattice.first is None or lattice.last is None:
        return None
    return lattice.last - lattice.first + 1


def _multiple(lattice: Lattice, value: object) -> int:
    assert isinstance(value, int | float)
    return round(Fraction(value) / Fraction(repr(lattice.step)))


def _inside(u: float) -> float:
    return min(max(u, MARGIN), 1 - MARGIN)
