"""Grid search: every combination once, by index; nothing is enumerated and nothing remembered."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.parameters import Categorical, Constant, IntUniform, Parameter, QUniform
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.space import Dimension, dimensions_of, nest


@dataclass(frozen=True, slots=True)
class _Axis:
    """One dimension of the grid: how many values, and the one at a place."""

    path: tuple[str, ...]
    parameter: Parameter
    size: int
    choices: tuple[object, ...]

    def value(self, place: int) -> object:
        match self.parameter:
            case IntUniform():
                return self.parameter.min + place
            case QUniform():
                first = self.parameter.lattice.first
                return self.parameter.lattice.value((first or 0) + place)
        return self.choices[place]


class GridSearch(Search):
    """All combinations, in the order of W&B: names sorted alphabetically, the last name fastest.

    Point number `index` is `index` written in the mixed radix of the numbers of values. Values that mean the same (3
    and 3.0) are one value, so no point comes twice.

    Raises:
        SearchError: A parameter cannot be counted.
    """

    needs_runs = False

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = parameters
        self._axes = [_axis(dimension) for dimension in dimensions_of(parameters)]
        self._size = math.prod(axis.size for axis in self._axes)
        self.size: int | None = self._size

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        return [self.point(index) for index in range(first_index, min(first_index + count, self._size))]

    def point(self, index: int) -> dict[str, object]:
        """The point with this index.

        Raises:
            IndexError: The grid has no such point.
        """
        if not 0 <= index < self._size:
            raise IndexError(f"the grid has the points 0 to {self._size - 1} (got {index}). Take one of these.")
        values: dict[tuple[str, ...], object] = {}
        for axis in reversed(self._axes):
            index, place = divmod(index, axis.size)
            values[axis.path] = axis.value(place)
        return nest(self._parameters, values)

    def missing(self, done: Collection[int]) -> Iterator[int]:
        """The indices that are not in `done`, ascending."""
        known = done if isinstance(done, set | frozenset) else set(done)
        return (index for index in range(self._size) if index not in known)


def _axis(dimension: Dimension) -> _Axis:
    parameter = dimension.parameter
    match parameter:
        case Constant():
            return _Axis(dimension.path, parameter, 1, (parameter.value,))
        case Categorical():
            choices = tuple({category_key(value): value for value in reversed(parameter.values)}.values())[::-1]
            return _Axis(dimension.path, parameter, len(choices), choices)
        case IntUniform():
            return _Axis(dimension.path, parameter, parameter.max - parameter.min + 1, ())
        case QUniform():
            lattice = parameter.lattice
            return _Axis(dimension.path, parameter, (lattice.last or 0) - (lattice.first or 0) + 1, ())
    raise SearchError(
        f"a grid needs parameters that can be counted, and {dimension.name} cannot (got {parameter.distribution}). "
        "Use values, int_uniform or q_uniform."
    )
