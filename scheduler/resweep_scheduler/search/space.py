"""The search space: the parameters of a sweep side by side, and each as a function of a number u in (0, 1).

`value_at` is the inverse of the cumulative distribution, `position_of` the way back. All values are plain Python.
"""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from statistics import NormalDist
from typing import Final

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.parameters import (
    Beta,
    Categorical,
    CategoricalWithProbabilities,
    Choices,
    Constant,
    IntUniform,
    InvLogUniform,
    InvLogUniformValues,
    LogNormal,
    LogUniform,
    LogUniformValues,
    Nested,
    Normal,
    Parameter,
    QBeta,
    QLogNormal,
    QLogUniform,
    QLogUniformValues,
    QNormal,
    QUniform,
    Uniform,
    flatten,
)
from resweep_scheduler.search.beta import beta_cdf, beta_quantile

_STANDARD_NORMAL = NormalDist()
# Other values are written as JSON in names, so that "1" and 1, or "a.b" and "a" with b, are two.
_PLAIN_WORD: Final = re.compile(r"(?!(?:true|false|null)$)[A-Za-z_][A-Za-z0-9_-]*")
_LOGARITHMIC = LogUniform | LogUniformValues | QLogUniform | QLogUniformValues
_INVERSE = InvLogUniform | InvLogUniformValues
_RANGED = Uniform | QUniform | _LOGARITHMIC | _INVERSE
_STEPPED = Constant | Categorical | CategoricalWithProbabilities | IntUniform
_QUANTISED = QUniform | QLogUniform | QLogUniformValues | QNormal | QLogNormal | QBeta


@dataclass(frozen=True, slots=True)
class Condition:
    """A parameter exists only where another one, with choices, took one of them.

    Attributes:
        dimension: Name of the dimension with the choices.
        choice: Index of the choice.
    """

    dimension: str
    choice: int


@dataclass(frozen=True, slots=True)
class Dimension:
    """One parameter with values of its own, wherever it is nested.

    Attributes:
        name: Full name, unique among all dimensions; dots join the names of groups, and ``optimizer=sgd.momentum`` is
            the parameter momentum that exists if optimizer is sgd.
        path: The names of the groups around it, then its own: where its value stands in a point. Dimensions of
            different choices may share a path.
        parameter: Its kind and bounds; of a parameter with choices the categorical kind of their values, in which the
            index of a value is that of its choice.
        conditions: All must hold for it to exist; outermost first. Empty: it always exists.
    """

    name: str
    path: tuple[str, ...]
    parameter: Parameter
    conditions: tuple[Condition, ...] = ()


def dimensions_of(parameters: Mapping[str, Parameter]) -> list[Dimension]:
    """All dimensions, sorted by name; so a parameter with choices comes before what its choices bring."""
    return sorted(_dimensions(parameters, "", (), ()), key=lambda one: one.name)


def _dimensions(
    parameters: Mapping[str, Parameter], prefix: str, group: tuple[str, ...], conditions: tuple[Condition, ...]
) -> Iterator[Dimension]:
    for inner, parameter in flatten(parameters).items():
        name, path = prefix + ".".join(inner), (*group, *inner)
        if not isinstance(parameter, Choices):
            yield Dimension(name, path, parameter, conditions)
            continue
        yield Dimension(name, path, parameter.categorical, conditions)
        for index, choice in enumerate(parameter.choices):
            condition = Condition(name, index)
            branch = f"{name}={_label(choice.value)}."
            yield from _dimensions(choice.parameters, branch, path[:-1], (*conditions, condition))


def _label(value: object) -> str:
    return value if isinstance(value, str) and _PLAIN_WORD.fullmatch(value) else category_key(value)


def values_of(dimensions: Iterable[Dimension], value: Callable[[Dimension], object]) -> dict[tuple[str, ...], object]:
    """The values at one point by path, for `nest`: of the dimensions that exist there, and of no others.

    Args:
        dimensions: All dimensions in the order of `dimensions_of`.
        value: The value of a dimension that exists. Asked for what has choices before it is for what they bring.
    """
    values: dict[tuple[str, ...], object] = {}
    for dimension in active(dimensions, lambda path: values[path]):
        values[dimension.path] = value(dimension)
    return values


def active(dimensions: Iterable[Dimension], look_up: Callable[[tuple[str, ...]], object]) -> Iterator[Dimension]:
    """The dimensions that exist at a point, in their order.

    Args:
        dimensions: All dimensions in the order of `dimensions_of`.
        look_up: The value at a path; asked for those with choices only, and after they were yielded.

    Raises:
        KeyError: `look_up` raises it where there is no value.
    """
    ordered = list(dimensions)
    with_choices = {condition.dimension for dimension in ordered for condition in dimension.conditions}
    taken: set[Condition] = set()
    for dimension in ordered:
        if not taken.issuperset(dimension.conditions):
            continue
        yield dimension
        if dimension.name in with_choices:
            taken.add(Condition(dimension.name, _index_of(dimension.parameter, look_up(dimension.path))))


def _index_of(parameter: Parameter, value: object) -> int:
    """The index of a value among those of a categorical parameter; -1 if it is none of them."""
    key = category_key(value)
    values = parameter.values if isinstance(parameter, Categorical | CategoricalWithProbabilities) else ()
    return next((index for index, one in enumerate(values) if category_key(one) == key), -1)


def nest(parameters: Mapping[str, Parameter], values: Mapping[tuple[str, ...], object]) -> dict[str, object]:
    """Put the values of a point (by path) into the nesting and the order of the config.

    Values of choices that were not taken do not belong to a point; what such a choice brings is left out.
    """
    return _nest(parameters, values, ())


def _nest(
    parameters: Mapping[str, Parameter], values: Mapping[tuple[str, ...], object], path: tuple[str, ...]
) -> dict[str, object]:
    nested: dict[str, object] = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, Nested):
            nested[name] = _nest(parameter.parameters, values, (*path, name))
            continue
        value = values[*path, name]
        # Lists and mappings are the config's own; whoever gets a point may change it.
        nested[name] = copy.deepcopy(value)
        if isinstance(parameter, Choices):
            nested |= _nest(parameter.chosen(value).parameters, values, path)
    return nested


def is_stepped(parameter: Parameter) -> bool:
    """Whether a parameter takes separate values, so that a point can come twice."""
    return isinstance(parameter, _STEPPED | _QUANTISED)


def pick(params: Mapping[str, object], path: tuple[str, ...]) -> object:
    """The value at a path through nested parameters.

    Raises:
        KeyError: There is none.
    """
    value: object = params
    for name in path:
        if not isinstance(value, Mapping):
            raise KeyError(name)
        value = value[name]
    return value


def value_at(parameter: Parameter, u: float) -> object:
    """The value below which a share u of the distribution lies; u in (0, 1)."""
    match parameter:
        case Constant():
            return parameter.value
        case Categorical():
            return parameter.values[min(int(u * len(parameter.values)), len(parameter.values) - 1)]
        case CategoricalWithProbabilities():
            return parameter.values[_weighted_index(parameter.probabilities, u)]
        case IntUniform():
            # Exact also where the range is wider than the precision of a float.
            return parameter.min + math.floor(Fraction(u) * (parameter.max - parameter.min + 1))
        case Nested() | Choices():
            kind = type(parameter).__name__
            raise TypeError(f"only dimensions have values of their own (got {kind}). Take those of dimensions_of.")
    value = _continuous(parameter, u)
    return parameter.lattice.nearest(value) if isinstance(parameter, _QUANTISED) else value


def _weighted_index(weights: tuple[float, ...], u: float) -> int:
    target = u * math.fsum(weights)
    for index, reached in enumerate(accumulate(weights)):
        if target < reached:
            return index
    # Rounding may leave a rest above the last sum; it belongs to the last value that can occur at all.
    return max(index for index, weight in enumerate(weights) if weight > 0)


def _continuous(parameter: Parameter, u: float) -> float:
    """The value before it is quantised."""
    match parameter:
        case Uniform() | QUniform():
            return _between(parameter.limits, parameter.min * (1 - u) + parameter.max * u)
        case Beta() | QBeta():
            return beta_quantile(u, parameter.a, parameter.b)
        case Normal() | QNormal():
            return parameter.mu + parameter.sigma * _STANDARD_NORMAL.inv_cdf(u)
        case LogNormal() | QLogNormal():
            return math.exp(parameter.mu + parameter.sigma * _STANDARD_NORMAL.inv_cdf(u))
    if not isinstance(parameter, _LOGARITHMIC | _INVERSE):
        raise TypeError(f"{parameter.distribution} has no continuous values (got u = {u}). Use value_at.")
    share = 1 - u if isinstance(parameter, _INVERSE) else u
    low, high = parameter.limits
    return _between((low, high), math.exp(math.log(low) * (1 - share) + math.log(high) * share))


def _between(limits: tuple[float, float], value: float) -> float:
    return min(max(value, limits[0]), limits[1])


def position_of(parameter: Parameter, value: object) -> float | None:
    """The u of a value of a numeric parameter, or None if the parameter cannot have that value.

    Values of steps (integers, quantised ones) are given a u inside their step, so `value_at` leads back to them.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not abs(value) <= sys.float_info.max:
        return None
    if isinstance(parameter, IntUniform):
        if not parameter.min <= value <= parameter.max or value != int(value):
            return None
        return float(Fraction(2 * (int(value) - parameter.min) + 1, 2 * (parameter.max - parameter.min + 1)))
    if isinstance(parameter, _RANGED):
        return _position_in_range(parameter, float(value))
    return _position_in_shape(parameter, float(value))


def _position_in_range(parameter: _RANGED, value: float) -> float | None:
    low, high = parameter.limits
    if not low <= value <= high:
        return None
    if isinstance(parameter, Uniform | QUniform):
        # Halved, so that bounds near the largest float do not overflow.
        return (value / 2 - low / 2) / (high / 2 - low / 2)
    share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
    share = _between((0.0, 1.0), share)
    return 1 - share if isinstance(parameter, _INVERSE) else share


def _position_in_shape(parameter: Parameter, value: float) -> float | None:
    match parameter:
        case Beta() | QBeta():
            return beta_cdf(value, parameter.a, parameter.b) if 0 <= value <= 1 else None
        case LogNormal() | QLogNormal():
            if value <= 0:
                return 0.0 if value == 0 else None
            return _normal_share(math.log(value), parameter.mu, parameter.sigma)
        case Normal() | QNormal():
            return _normal_share(value, parameter.mu, parameter.sigma)
    return None


def _normal_share(value: float, mu: float, sigma: float) -> float:
    return _STANDARD_NORMAL.cdf((value - mu) / sigma) if sigma > 0 else 0.5
