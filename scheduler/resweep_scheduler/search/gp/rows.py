"""Latent points of a search space as rows of the model, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from resweep_scheduler.search.encoding import MARGIN, Codec, Coordinate, Latent
from resweep_scheduler.search.gp.axes import Axes, Axis, Floats, Marks

Branch: TypeAlias = tuple[tuple[int, int], ...]

_NOWHERE = 0.5
"""The coordinate of an axis that does not exist at a point; it makes no difference."""


class Rows:
    """Translates between a codec's latent points and rows.

    Categories whose values are three or more numbers are steps of one number, in the order of the values: 16, 32, 64
    and 128 have much in common with their neighbours. Other categories have no order.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._places: dict[str, dict[int, float]] = {}
        parents = {condition.dimension for one in codec.coordinates for condition in one.conditions}
        numbers = {one.name: number for number, one in enumerate(codec.coordinates)}
        axes = []
        for one in codec.coordinates:
            ordered = one.name not in parents and _in_order(one)
            if one.choices:
                places = ordered or {index: float(place) for place, index in enumerate(one.choices)}
                self._places[one.name] = places
            conditions = tuple(
                (numbers[condition.dimension], _place_of(codec.by_name[condition.dimension], condition.choice))
                for condition in one.conditions
            )
            if ordered:
                axes.append(Axis(steps=tuple(sorted(ordered.values())), conditions=conditions))
            elif one.choices:
                axes.append(Axis(categories=len(one.choices), conditions=conditions))
            else:
                axes.append(Axis(steps=one.positions, conditions=conditions))
        self.axes = Axes(axes)
        self.branches: tuple[Branch, ...] = tuple(
            (*axis.conditions, (number, category))
            for number, axis in enumerate(axes)
            if codec.coordinates[number].name in parents and all(place >= 0 for _, place in axis.conditions)
            for category in range(axis.categories)
        )
        """What must hold, (axis, category) by (axis, category), for a choice to be taken; if none of the choices of a
        parameter brings others, they are no branches."""

    def lie_in(self, branch: Branch, points: Floats) -> Marks:
        """Which of some points lie in a branch."""
        axes, places = zip(*branch, strict=True)
        return np.asarray((points[:, axes] == places).all(axis=1))

    def in_branch(self, branch: Branch, count: int, seed: int) -> Floats:
        """Points at random in a branch; the same seed gives the same ones."""
        points = self.axes.from_cube(np.random.default_rng(seed).random((count, self.axes.count)))
        for axis, place in branch:
            points[:, axis] = place
        return points

    def row(self, latent: Mapping[str, float | int]) -> list[float]:
        """A latent point as a row."""
        return [
            self._place(one, latent[one.name]) if one.name in latent else _NOWHERE for one in self._codec.coordinates
        ]

    def rows(self, latents: list[Latent]) -> Floats:
        """Latent points as rows."""
        return np.array([self.row(one) for one in latents], dtype=np.float64).reshape(len(latents), self.axes.count)

    def latent(self, row: Floats) -> Latent:
        """The latent point of a row; only the active dimensions."""
        point: Latent = {}
        for one, place in zip(self._codec.coordinates, row.tolist(), strict=True):
            places = self._places.get(one.name)
            if places is None:
                point[one.name] = min(max(place, MARGIN), 1 - MARGIN)
            else:
                point[one.name] = min(places, key=lambda index: abs(places[index] - place))
        return self._codec.only_active(point)

    def _place(self, coordinate: Coordinate, position: float) -> float:
        places = self._places.get(coordinate.name)
        return float(position) if places is None else places[int(position)]


def _place_of(parent: Coordinate, choice: int) -> int:
    """The category of a choice; one that no point has if the choice is never drawn."""
    return parent.choices.index(choice) if choice in parent.choices else -1


def _in_order(coordinate: Coordinate) -> dict[int, float]:
    """Where the choices lie on one number, by their index; empty if their values have no order."""
    values = [coordinate.value(index) for index in coordinate.choices]
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or len(numbers) < 3:
        return {}
    ranked = sorted(zip(numbers, coordinate.choices, strict=True))
    return {index: (rank + 0.5) / len(ranked) for rank, (_, index) in enumerate(ranked)}
