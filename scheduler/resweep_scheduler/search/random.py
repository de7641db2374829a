"""Random search: the point with an index is a function of the seed and the index, so nobody has to take turns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from resweep_scheduler.config.parameters import Parameter
from resweep_scheduler.search.base import PastRun, Search, check_request
from resweep_scheduler.search.space import Dimension, dimensions_of, nest, value_at, values_of

# One bit less than a float's precision, so that the middle of each interval is a float and never 0 or 1.
_BITS: Final = 52


def uniform_draw(seed: int, index: int, name: str) -> float:
    """A uniform number in (0, 1) that belongs to the parameter `name` of the point `index`."""
    digest = hashlib.blake2b(f"{seed}:{index}:{name}".encode(), digest_size=8).digest()
    return ((int.from_bytes(digest) >> (64 - _BITS)) + 0.5) / float(1 << _BITS)


class RandomSearch(Search):
    """Independent draws from all distributions, without end.

    A parameter's draws depend on its name and the index only: other parameters may be added or removed without changing
    them, and the order in which points are asked for makes no difference. What a choice brings is drawn if that choice
    was; its name says whose it is.
    """

    needs_runs = False
    size = None

    def __init__(self, parameters: Mapping[str, Parameter], seed: int) -> None:
        self._parameters = parameters
        self._dimensions = dimensions_of(parameters)
        self._seed = seed

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        return [self.point(index) for index in range(first_index, first_index + count)]

    def point(self, index: int, *, redraw: int = 0) -> dict[str, object]:
        """The point with this index; each `redraw` gives another one."""
        suffix = f"#{redraw}" if redraw else ""

        def draw(one: Dimension) -> object:
            return value_at(one.parameter, uniform_draw(self._seed, index, one.name + suffix))

        return nest(self._parameters, values_of(self._dimensions, draw))
