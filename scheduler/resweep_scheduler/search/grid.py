"""Grid search: every combination once, by index; nothing is enumerated and nothing remembered."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.parameters import (
    Categorical,
    Choices,
    Constant,
    IntUniform,
    Parameter,
    QUniform,
    flatten,
)
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.space import nest

Values = dict[tuple[str, ...], object]


class GridSearch(Search):
    """All combinations, in the order of W&B: names sorted alphabetically, the last name fastest.

    Point number `index` is `index` written in the mixed radix of the numbers of values. Where a parameter has choices,
    its digit counts the combinations of its first choice, then those of the second and so on: what a choice brings
    changes faster than the choice, and slower than the names behind it. Values that mean the same (3 and 3.0) are one
    value, so no point comes twice.

    Raises:
        SearchError: A parameter cannot be counted.
    """

    needs_runs = False

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = parameters
        self._all = _Product(parameters, ())
        self._size = self._all.size
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
        values: Values = {}
        self._all.put(index, values)
        return nest(self._parameters, values)

    def missing(self, done: Collection[int]) -> Iterator[int]:
        """The indices that are not in `done`, ascending."""
        known = done if isinstance(done, set | frozenset) else set(done)
        return (index for index in range(self._size) if index not in known)


class _Part(ABC):
    """A part of the grid by itself: `size` combinations, numbered from 0."""

    size: int

    @abstractmethod
    def put(self, place: int, values: Values) -> None:
        """Add the values of one combination to `values`."""


class _Product(_Part):
    """All combinations of parameters that stand side by side; the last one by name is the fastest."""

    def __init__(self, parameters: Mapping[str, Parameter], group: tuple[str, ...]) -> None:
        by_name = sorted(flatten(parameters).items(), key=lambda item: ".".join(item[0]))
        self._parts = [_part((*group, *path), parameter) for path, parameter in by_name]
        self.size = math.prod(part.size for part in self._parts)

    def put(self, place: int, values: Values) -> None:
        for part in reversed(self._parts):
            place, digit = divmod(place, part.size)
            part.put(digit, values)


class _Sum(_Part):
    """The combinations of one choice after those of the other."""

    def __init__(self, path: tuple[str, ...], parameter: Choices) -> None:
        self._path = path
        self._values = [choice.value for choice in parameter.choices]
        self._branches = [_Product(choice.parameters, path[:-1]) for choice in parameter.choices]
        self._ends = list(accumulate(branch.size for branch in self._branches))
        self.size = self._ends[-1]

    def put(self, place: int, values: Values) -> None:
        index = bisect_right(self._ends, place)
        values[self._path] = self._values[index]
        branch = self._branches[index]
        branch.put(place - self._ends[index] + branch.size, values)


class _Axis(_Part):
    """One parameter that can be counted."""

    def __init__(self, path: tuple[str, ...], parameter: Parameter) -> None:
        self._path = path
        self._parameter = parameter
        self._values: tuple[object, ...] = ()
        match parameter:
            case Constant():
                self._values = (parameter.value,)
                self.size = 1
            case Categorical():
                self._values = tuple({category_key(value): value for value in reversed(parameter.values)}.values())[
                    ::-1
                ]
                self.size = len(self._values)
            case IntUniform():
                self.size = parameter.max - parameter.min + 1
            case QUniform():
                lattice = parameter.lattice
                self.size = (lattice.last or 0) - (lattice.first or 0) + 1
            case _:
                raise _not_countable(path, parameter)

    def put(self, place: int, values: Values) -> None:
        values[self._path] = self._value(place)

    def _value(self, place: int) -> object:
        match self._parameter:
            case IntUniform():
                return self._parameter.min + place
            case QUniform():
                first = self._parameter.lattice.first
                return self._parameter.lattice.value((first or 0) + place)
        return self._values[place]


def _part(path: tuple[str, ...], parameter: Parameter) -> _Part:
    if not isinstance(parameter, Choices):
        return _Axis(path, parameter)
    if not parameter.categorical.countable:
        raise _not_countable(path, parameter.categorical)
    return _Sum(path, parameter)


def _not_countable(path: tuple[str, ...], parameter: Parameter) -> SearchError:
    return SearchError(
        f"a grid needs parameters that can be counted, and {'.'.join(path)} cannot (got {parameter.distribution}). "
        "Use values, int_uniform or q_uniform."
    )
