"""How the parameters of a run are drawn from a study: as its distributions say, or as a function of the user does.

W&B's scheduler knows both. A run can be drawn again from its parameters, which is how a study is rebuilt: the values
are fixed by Optuna's names, and drawing takes them in place of new ones.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from resweep_scheduler.config.command import look_up
from resweep_scheduler.config.parameters import (
    NAME_PATTERN,
    Categorical,
    Constant,
    IntUniform,
    LogUniformValues,
    Parameter,
    QLogUniformValues,
    QUniform,
    Uniform,
    flatten,
)
from resweep_scheduler.config.searching import is_integer_in_optuna
from resweep_scheduler.search.base import SearchError
from resweep_scheduler.search.source import SourceFunctions
from resweep_scheduler.search.space import nest, pick

_SCALAR: Final = bool | int | float | str | np.generic | None


class Drawing(ABC):
    """Draws the parameters of runs."""

    @abstractmethod
    def draw(self, trial: optuna.Trial) -> dict[str, object]:
        """The parameters of a new trial, nested as the run gets them."""

    @abstractmethod
    def fixed(self, params: Mapping[str, object]) -> dict[str, Any]:
        """The parameters of a run by the names that they have in the study, and perhaps more."""

    @abstractmethod
    def check(self, trial: optuna.Trial, params: Mapping[str, object]) -> None:
        """Check that a trial can be drawn again from the parameters.

        Raises:
            SearchError: It cannot.
        """


class DeclaredDrawing(Drawing):
    """By the distributions of `parameters`; groups are joined by dots in the study.

    Args:
        parameters: Of the sweep; of the kinds that Optuna has.
    """

    def __init__(self, parameters: Mapping[str, Parameter]) -> None:
        self._parameters = parameters
        self._paths = {".".join(path): path for path in flatten(parameters)}
        self.distributions = distributions_of(parameters)

    def draw(self, trial: optuna.Trial) -> dict[str, object]:
        drawn = {name: trial._suggest(name, distribution) for name, distribution in self.distributions.items()}
        return nest(self._parameters, {self._paths[name]: _plain(value) for name, value in drawn.items()})

    def fixed(self, params: Mapping[str, object]) -> dict[str, Any]:
        found = {}
        for name, path in self._paths.items():
            try:
                found[name] = pick(params, path)
            except KeyError:
                continue
        return found

    def check(self, trial: optuna.Trial, params: Mapping[str, object]) -> None:
        """All names and values are those of the config."""


class DefinedDrawing(Drawing):
    """By the user's function `search_space`. What it returns is what the run gets.

    Args:
        functions: Has the function.
        name: Of the function, for messages.
    """

    def __init__(self, functions: SourceFunctions, name: str) -> None:
        assert functions.search_space is not None
        self._function: Callable[[optuna.Trial], object] = functions.search_space
        self._functions = functions
        self._what = repr(name)

    def draw(self, trial: optuna.Trial) -> dict[str, object]:
        return self._checked(self._functions.call(self._what, self._function, trial))

    def fixed(self, params: Mapping[str, object]) -> dict[str, Any]:
        return dict(_leaves(params))

    def check(self, trial: optuna.Trial, params: Mapping[str, object]) -> None:
        # The search is rebuilt from the parameters of the runs, and from nothing else.
        for name, value in trial.params.items():
            if not isinstance(value, _SCALAR):
                must = "must draw None, true, false, numbers and texts only"
                raise self._wrong(must, f"{name} = {value!r}", "Draw the place in a list, or a name for it.")
            found = look_up(params, name)
            if found is None:
                got = f"{name} was drawn, and returned were {', '.join(params)}"
                raise self._wrong("must return all that it draws, by its name", got, f"Add {name!r} to the dict.")
            if found[0] != value:
                got = f"{name} = {found[0]!r}, and drawn was {value!r}"
                cure = "Return what was drawn; what follows from it has another name, or none."
                raise self._wrong("must return the values that it draws", got, cure)

    def _checked(self, returned: object) -> dict[str, object]:
        if not isinstance(returned, Mapping):
            raise self._wrong("must return a dict of parameters", f"a {type(returned).__name__}", "Return a dict.")
        if not returned:
            raise self._wrong("must return at least one parameter", "an empty dict", "Return what it draws.")
        for name in returned:
            if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
                must = "must return names of letters, digits, _, - and ., which begin with a letter or _"
                raise self._wrong(must, repr(name), "Rename it.")
        return {name: self._plain(name, value) for name, value in returned.items()}

    def _plain(self, name: str, value: object) -> object:
        try:
            return _plain(value)
        except (TypeError, ValueError, RecursionError) as error:
            got = f"{name} = {value!r}: {error}"
            raise self._wrong("must return values that JSON has", got, "Convert it, for instance by float().") from None

    def _wrong(self, must: str, got: str, cure: str) -> SearchError:
        return self._functions.wrong(self._what, must, got, cure)


def _plain(value: object) -> object:
    """A value as it comes out of JSON; scalars of NumPy become numbers.

    Raises:
        TypeError, ValueError, RecursionError: JSON cannot have it.
    """
    return json.loads(json.dumps(value, allow_nan=False, default=_number))


def _number(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is not in JSON")


def _leaves(params: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in params.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def distributions_of(parameters: Mapping[str, Parameter]) -> dict[str, BaseDistribution]:
    """The distributions that W&B's scheduler gives a study, by the dotted names of the parameters.

    Quantised parameters begin at `min`, as there and in Optuna, and not at the first multiple of `q`.

    Raises:
        SearchError: Optuna has no such distribution; configs that were checked never have one.
    """
    with warnings.catch_warnings():
        # Of values that are no scalars, and of a range that is no multiple of the step.
        warnings.simplefilter("ignore", UserWarning)
        return {".".join(path): _distribution(path, one) for path, one in flatten(parameters).items()}


def _distribution(path: tuple[str, ...], one: Parameter) -> BaseDistribution:  # noqa: PLR0911 - a table
    match one:
        case Constant():
            return CategoricalDistribution(cast(Any, (one.value,)))
        case Categorical():
            return CategoricalDistribution(cast(Any, one.values))
        case IntUniform():
            return IntDistribution(one.min, one.max)
        case Uniform():
            return FloatDistribution(one.min, one.max)
        case LogUniformValues():
            return FloatDistribution(one.min, one.max, log=True)
        case QUniform() if is_integer_in_optuna(one):
            return IntDistribution(int(one.min), int(one.max), step=int(one.q))
        case QUniform():
            return FloatDistribution(one.min, one.max, step=one.q)
        case QLogUniformValues() if is_integer_in_optuna(one):
            return IntDistribution(math.ceil(one.min), math.floor(one.max), log=True)
        case QLogUniformValues():
            return FloatDistribution(one.min, one.max, log=True)
    raise SearchError(f"{'.'.join(path)} must have an equivalent in Optuna (got {one.distribution}). Use another kind.")
