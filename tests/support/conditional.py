"""Search spaces with choices: a strategy that makes them, and an oracle that lists and checks their points."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import strategies as st

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.parameters import (
    Categorical,
    CategoricalWithProbabilities,
    Choices,
    Constant,
    IntUniform,
    Nested,
    Parameter,
    QUniform,
)
from resweep_scheduler.search.space import is_stepped, position_of, value_at

VALUES = st.sampled_from([0, 1, 2.5, True, False, None, "", "1", "sgd", "a.b", "true", [1], {"k": 1}])
NAMES = ("a", "b", "c", "d.e", "f")

_COUNTABLE: st.SearchStrategy[dict[str, object]] = st.one_of(
    VALUES.map(lambda value: {"value": value}),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"values": values}),
    st.tuples(st.integers(-3, 3), st.integers(1, 2)).map(lambda pair: {"min": pair[0], "max": pair[0] + pair[1]}),
    st.just({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.5}),
)
_CONTINUOUS: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [
        {"min": 0.0, "max": 1.0},
        {"distribution": "log_uniform_values", "min": 1e-5, "max": 1},
        {"distribution": "q_normal", "q": 0.5},
        {"distribution": "log_normal"},
        {"values": ["x", "y"], "probabilities": [0.25, 0.75]},
    ]
)


@st.composite
def parameters(
    draw: st.DrawFn, *, grid: bool = False, depth: int = 2, names: tuple[str, ...] = NAMES
) -> dict[str, Any]:
    """What may stand under ``parameters``, with groups and choices in each other down to `depth`.

    What the choices of one parameter bring is drawn from the same names, so that they share some.
    """
    shuffled: list[str] = draw(st.permutations(names))
    used = draw(st.integers(1, min(len(names), 3)))
    mine, rest = shuffled[:used], tuple(shuffled[used:])
    found: dict[str, Any] = {}
    for name in mine:
        kind = draw(st.sampled_from(["leaf", "leaf", "group", "choices"])) if depth else "leaf"
        if kind == "leaf":
            found[name] = draw(_COUNTABLE if grid else _COUNTABLE | _CONTINUOUS)
        elif kind == "group":
            # A dotted name beside a group could be the name of something in it.
            found[name] = {"parameters": draw(parameters(grid=grid, depth=depth - 1, names=("x", "y", "z")))}
        else:
            split = draw(st.integers(0, len(rest)))
            found[name], rest = _choices(draw, rest[:split], grid=grid, depth=depth - 1), rest[split:]
    return found


def _choices(draw: st.DrawFn, names: tuple[str, ...], *, grid: bool, depth: int) -> dict[str, Any]:
    values = draw(st.lists(VALUES, min_size=1, max_size=3, unique_by=category_key))
    weighted = not grid and draw(st.booleans())
    listed: list[dict[str, object]] = []
    for value in values:
        choice: dict[str, object] = {"value": value}
        if draw(st.booleans()) and names:
            choice["parameters"] = draw(parameters(grid=grid, depth=depth, names=names))
        if weighted:
            choice["probability"] = 1 / len(values)
        listed.append(choice)
    if all(isinstance(value, str) for value in values) and draw(st.booleans()):
        keyed = {str(choice["value"]): choice for choice in listed}
        return {
            "choices": {
                key: {name: choice[name] for name in choice if name != "value"} for key, choice in keyed.items()
            }
        }
    return {"choices": listed}


def all_points(parameters: Mapping[str, Parameter]) -> Iterator[dict[str, object]]:
    """Every point of a grid, listed in the plainest way."""
    options = [list(_options(name, parameter)) for name, parameter in parameters.items()]
    for combination in itertools.product(*options):
        yield {name: value for part in combination for name, value in part.items()}


def _options(name: str, parameter: Parameter) -> Iterator[Mapping[str, object]]:
    """What one parameter can add to a point."""
    match parameter:
        case Nested():
            yield from ({name: point} for point in all_points(parameter.parameters))
        case Choices():
            for choice in parameter.choices:
                yield from ({name: choice.value, **point} for point in all_points(choice.parameters))
        case Constant():
            yield {name: parameter.value}
        case Categorical():
            yield from ({name: value} for value in {category_key(one): one for one in parameter.values}.values())
        case IntUniform():
            yield from ({name: value} for value in range(parameter.min, parameter.max + 1))
        case QUniform():
            assert (parameter.min, parameter.max, parameter.q) == (0, 1, 0.5), "the only one that is made above"
            yield from ({name: value} for value in (0.0, 0.5, 1.0))


def is_point(parameters: Mapping[str, Parameter], point: object) -> bool:
    """Whether a point has all parameters that it must have and no others, each with a value that it can have."""
    if not isinstance(point, Mapping):
        return False
    left = dict(point)
    return _takes(parameters, left) and not left


def _takes(parameters: Mapping[str, Parameter], left: dict[str, object]) -> bool:
    for name, parameter in parameters.items():
        if name not in left:
            return False
        value = left.pop(name)
        if isinstance(parameter, Nested):
            fits = is_point(parameter.parameters, value)
        elif isinstance(parameter, Choices):
            fits = _can_be(parameter.categorical, value) and _takes(parameter.chosen(value).parameters, left)
        else:
            fits = _can_be(parameter, value)
        if not fits:
            return False
    return True


def _can_be(parameter: Parameter, value: object) -> bool:
    match parameter:
        case Constant():
            return repr(value) == repr(parameter.value)
        case Categorical() | CategoricalWithProbabilities():
            return any(repr(value) == repr(one) for one in parameter.values)
    position = position_of(parameter, value)
    return position is not None and (not is_stepped(parameter) or value_at(parameter, position) == value)
