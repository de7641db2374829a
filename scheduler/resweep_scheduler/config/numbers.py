"""Numbers as a config has them: finite, never booleans, never text that looks like a number."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError


def rule_error(rule: str, cure: str, *, key: str | None = None, shown: str | None = None) -> PydanticCustomError:
    """An error for a pydantic validator that carries a rule and its cure.

    Args:
        key: The field that is to blame.
        shown: What to show in place of the value, where that may hold a secret.
    """
    context = {"rule": rule, "cure": cure, "key": key or "", "shown": shown}
    return PydanticCustomError("rule", "{rule}. {cure}", context)


def _finite_number(value: object) -> object:
    if isinstance(value, str):
        raise rule_error("must be a number", "Write it without quotes, for instance 0.5 or 1e-4.")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise rule_error("must be a number", "Write a number, for instance 0.5 or 1e-4.")
    if not abs(value) <= sys.float_info.max:
        raise rule_error("must be a finite number", "Write a number between -1.7e308 and 1.7e308.")
    return value


def _whole_number(value: object) -> object:
    number = _finite_number(value)
    if isinstance(number, float):
        if not number.is_integer():
            raise rule_error("must be a whole number", f"Write {math.floor(number)} or {math.ceil(number)}.")
        return int(number)
    return number


def _written_as_integer(value: object) -> object:
    number = _finite_number(value)
    if isinstance(number, float):
        raise rule_error("must be written as an integer", "Write it without a decimal point, or use uniform.")
    return number


Real = Annotated[float, BeforeValidator(_finite_number)]
"""A finite float; integers are converted."""
Positive = Annotated[Real, Field(gt=0)]
Step = Annotated[int | float, BeforeValidator(_finite_number), Field(gt=0)]
"""A quantum: an integer stays one, because it makes the values integers."""
Whole = Annotated[int, BeforeValidator(_whole_number)]
"""A whole number; ``2.0`` is read as 2."""
Integer = Annotated[int, BeforeValidator(_written_as_integer)]
"""An integer; ``2.0`` is refused, because W&B tells int_uniform and uniform apart by the decimal point."""


class Lattice:
    """The multiples of a step inside bounds, both ends included if they are multiples.

    Computed on the decimal numbers that stand in the config and not on their binary neighbours: 0.1 × 3 is 0.3 here,
    and 1.0 is a multiple of 0.1.

    Args:
        step: The quantum; greater than 0. With an integer step the values are integers.
        low: Lower bound, or None for no bound.
        high: Upper bound, or None for no bound.
    """

    __slots__ = ("_exact_step", "first", "last", "step")

    def __init__(self, step: float, low: float | None, high: float | None) -> None:
        self.step = step
        self._exact_step = Fraction(repr(step))
        self.first = None if low is None else math.ceil(Fraction(repr(low)) / self._exact_step)
        self.last = None if high is None else math.floor(Fraction(repr(high)) / self._exact_step)

    @property
    def empty(self) -> bool:
        """Whether no multiple of the step lies inside the bounds."""
        return self.first is not None and self.last is not None and self.first > self.last

    def value(self, multiple: int) -> int | float:
        """The value of the `multiple`-th multiple of the step."""
        exact = multiple * self._exact_step
        return int(exact) if isinstance(self.step, int) else float(exact)

    def nearest(self, value: float) -> int | float:
        """The multiple nearest to `value` that lies inside the bounds."""
        multiple = round(Fraction(value) / self._exact_step)
        if self.first is not None:
            multiple = max(multiple, self.first)
        if self.last is not None:
            multiple = min(multiple, self.last)
        return self.value(multiple)
