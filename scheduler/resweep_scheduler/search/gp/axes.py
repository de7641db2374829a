"""The axes of a model: numbers in (0, 1), with steps or without, and categories; some exist only under conditions.

Points are rows of floats: u for numbers, the place of the category for categories. A row has a coordinate for every
axis; those of axes that do not exist at that point mean nothing, and `embed` takes care that they make no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]

_WIDEST_STEP: Final = 12  # alternatives of a category or steps of a number that one look at the neighbours takes


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis.

    Attributes:
        categories: How many categories without an order; 0 for numbers.
        steps: The places that a number can take, ascending; empty where it can take all.
        conditions: (axis, category) pairs that must all hold for it to exist; axes before this one.
    """

    categories: int = 0
    steps: tuple[float, ...] = ()
    conditions: tuple[tuple[int, int], ...] = ()


class Axes:
    """All axes, and the space of Euclidean distances in which the kernel sees the points."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.all = tuple(axes)
        self.count = len(self.all)
        self.smooth = np.array([not axis.categories and not axis.steps for axis in self.all])
        """Which axes have a gradient."""
        owners: list[int] = []
        for number, axis in enumerate(self.all):
            owners += [number] * _width(axis)
        self.owners = np.array(owners, dtype=np.intp)
        """The axis of each column of the embedding."""
        self.incidence: Floats = np.eye(self.count)[self.owners]
        self._plain = all(not axis.categories and not axis.steps and not axis.conditions for axis in self.all)
        self._edges = [np.convolve(axis.steps, (0.5, 0.5), "valid") if axis.steps else None for axis in self.all]

    def exist(self, points: Floats) -> npt.NDArray[np.bool_]:
        """Which axes exist at each point."""
        found = np.ones(points.shape, dtype=np.bool_)
        for number, axis in enumerate(self.all):
            for parent, category in axis.conditions:
                found[:, number] &= (points[:, parent] == category) & found[:, parent]
        return found

    def snap(self, points: Floats) -> Floats:
        """The points with every stepped number on its nearest step."""
        if self._plain:
            return points
        snapped = points.copy()
        for number, (axis, edges) in enumerate(zip(self.all, self._edges, strict=True)):
            if edges is not None:
                snapped[:, number] = np.asarray(axis.steps)[np.searchsorted(edges, points[:, number])]
        return snapped

    def from_cube(self, cube: Floats) -> Floats:
        """Points of the unit cube as points of these axes."""
        if self._plain:
            return cube
        points = cube.copy()
        for number, axis in enumerate(self.all):
            if axis.categories:
                points[:, number] = np.minimum(np.floor(cube[:, number] * axis.categories), axis.categories - 1)
        return self.snap(points)

    def embed(self, points: Floats) -> Floats:
        """Rows whose squared Euclidean distance, axis by axis, is the distance that the kernel weighs.

        Numbers: the square of the difference. Categories: 1 if they differ. An axis under conditions: 0 between points
        that both lack it, a constant 1 between one that has it and one that lacks it, and much the same as without
        conditions between two that have it (a number lies on an arc of radius 1 then, and its lack at the centre).
        """
        if self._plain:
            return points
        exist = self.exist(points)
        columns: list[Floats] = []
        for number, axis in enumerate(self.all):
            here, there = points[:, number], exist[:, number]
            if axis.categories:
                kinds = np.where(there, here, axis.categories)
                columns += [(kinds == kind) * np.sqrt(0.5) for kind in range(_width(axis))]
            elif axis.conditions:
                columns += [np.where(there, np.cos(here), 0.0), np.where(there, np.sin(here), 0.0)]
            else:
                columns.append(here)
        return np.stack(columns, axis=1)

    def slopes(self, points: Floats) -> Floats:
        """The derivative of each column of the embedding by its axis; 0 where there is none."""
        if self._plain:
            return np.ones_like(points)
        exist = self.exist(points)
        columns: list[Floats] = []
        for number, axis in enumerate(self.all):
            here, there = points[:, number], exist[:, number] & self.smooth[number]
            if axis.categories:
                columns += [np.zeros(len(points))] * _width(axis)
            elif axis.conditions:
                columns += [np.where(there, -np.sin(here), 0.0), np.where(there, np.cos(here), 0.0)]
            else:
                columns.append(there.astype(np.float64))
        return np.stack(columns, axis=1)

    def mutate(self, points: Floats, rng: np.random.Generator, scale: Floats, rate: float) -> Floats:
        """Random neighbours: numbers moved by about `scale` (one for each point), categories redrawn, at a `rate`."""
        chosen = rng.random(points.shape) < rate
        # At least one axis moves.
        chosen[np.arange(len(points)), rng.integers(0, self.count, len(points))] = True
        # The sum of three uniform numbers is normal enough.
        moved = points + (rng.random((*points.shape, 3)).sum(axis=2) - 1.5) * 2 * scale[:, None]
        moved = np.where(moved < 0, -moved, moved)
        moved = np.clip(np.where(moved > 1, 2 - moved, moved), 0, 1)
        for number, axis in enumerate(self.all):
            if axis.categories:
                moved[:, number] = np.floor(rng.random(len(points)) * axis.categories)
            elif axis.steps:
                # Less than one step would be no move at all.
                least = 1 / len(axis.steps)
                sign = np.where(rng.random(len(points)) < 0.5, -1.0, 1.0)
                small = np.abs(moved[:, number] - points[:, number]) < least
                moved[:, number] = np.where(small, points[:, number] + sign * least, moved[:, number])
        return self.snap(np.where(chosen, np.clip(moved, 0, None), points))

    def neighbours(self, point: Floats, rng: np.random.Generator) -> Floats:
        """The points that differ in one category or by one or two steps of one number."""
        found: list[Floats] = []
        for number, axis in enumerate(self.all):
            if axis.categories:
                others = [float(kind) for kind in range(axis.categories) if kind != point[number]]
                if len(others) > _WIDEST_STEP:
                    others = [others[place] for place in rng.integers(0, len(others), _WIDEST_STEP)]
            elif axis.steps:
                place = int(np.argmin(np.abs(np.asarray(axis.steps) - point[number])))
                places = (place + move for move in (-2, -1, 1, 2))
                others = [axis.steps[other] for other in places if 0 <= other < len(axis.steps)]
            else:
                continue
            for other in others:
                changed = point.copy()
                changed[number] = other
                found.append(changed)
        return np.array(found).reshape(len(found), self.count)


def _width(axis: Axis) -> int:
    """How many columns an axis takes in the embedding."""
    if axis.categories:
        return axis.categories + bool(axis.conditions)
    return 2 if axis.conditions else 1
