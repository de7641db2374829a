"""What stands under ``parameters``: kinds with values of their own, groups, and choices that bring parameters.

`distribution` names the kind in the normalised config, where it is always present. Which kind a user meant who left it
out is decided in inference.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.faults import Path
from resweep_scheduler.config.kinds import (
    Beta,
    Categorical,
    CategoricalWithProbabilities,
    Constant,
    IntUniform,
    InvLogUniform,
    InvLogUniformValues,
    LogNormal,
    LogUniform,
    LogUniformValues,
    Normal,
    ParameterKind,
    QBeta,
    QLogNormal,
    QLogUniform,
    QLogUniformValues,
    QNormal,
    QUniform,
    Uniform,
)
from resweep_scheduler.config.numbers import Real

__all__ = [
    "KINDS",
    "NAME_PATTERN",
    "Beta",
    "Categorical",
    "CategoricalWithProbabilities",
    "Choice",
    "Choices",
    "Constant",
    "IntUniform",
    "InvLogUniform",
    "InvLogUniformValues",
    "Leaf",
    "LogNormal",
    "LogUniform",
    "LogUniformValues",
    "Nested",
    "Normal",
    "Parameter",
    "ParameterKind",
    "QBeta",
    "QLogNormal",
    "QLogUniform",
    "QLogUniformValues",
    "QNormal",
    "QUniform",
    "Uniform",
    "flatten",
    "leaves_of",
]

NAME_PATTERN: Final = r"[A-Za-z_][A-Za-z0-9_.-]*"


class Nested(ParameterKind):
    """A group of parameters; the run gets a mapping under the group's name."""

    distribution: Literal["nested"] = "nested"
    parameters: dict[str, Parameter]


class Choice(BaseModel):
    """One value of a parameter with choices, and the parameters that a run has only with this value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: JsonValue
    parameters: dict[str, Parameter] = {}
    probability: Annotated[Real, Field(ge=0)] | None = None


class Choices(ParameterKind):
    """One of the values of the choices; the parameters of the chosen one stand beside it in the run.

    All choices have a probability, or none has. Their values differ.
    """

    distribution: Literal["choices"] = "choices"
    choices: tuple[Choice, ...] = Field(min_length=1)

    @cached_property
    def categorical(self) -> Categorical | CategoricalWithProbabilities:
        """The kind of the values by themselves; the index of a value is that of its choice."""
        values = tuple(choice.value for choice in self.choices)
        weights = tuple(choice.probability for choice in self.choices if choice.probability is not None)
        return (
            CategoricalWithProbabilities(values=values, probabilities=weights)
            if weights
            else Categorical(values=values)
        )

    def chosen(self, value: object) -> Choice:
        """The choice with a value.

        Raises:
            KeyError: There is none.
        """
        return self._by_value[category_key(value)]

    @cached_property
    def _by_value(self) -> dict[str, Choice]:
        return {category_key(choice.value): choice for choice in self.choices}


Parameter = Annotated[
    Constant
    | Categorical
    | CategoricalWithProbabilities
    | IntUniform
    | Uniform
    | QUniform
    | LogUniform
    | LogUniformValues
    | QLogUniform
    | QLogUniformValues
    | InvLogUniform
    | InvLogUniformValues
    | Normal
    | QNormal
    | LogNormal
    | QLogNormal
    | Beta
    | QBeta
    | Choices
    | Nested,
    Field(discriminator="distribution"),
]

Nested.model_rebuild()
Choice.model_rebuild()
Choices.model_rebuild()

KINDS: Final[dict[str, type[ParameterKind]]] = {
    kind.model_fields["distribution"].default: kind
    for kind in (
        Constant,
        Categorical,
        CategoricalWithProbabilities,
        IntUniform,
        Uniform,
        QUniform,
        LogUniform,
        LogUniformValues,
        QLogUniform,
        QLogUniformValues,
        InvLogUniform,
        InvLogUniformValues,
        Normal,
        QNormal,
        LogNormal,
        QLogNormal,
        Beta,
        QBeta,
    )
}
"""The kinds that a user can name with ``distribution``."""


def flatten(parameters: Mapping[str, Parameter]) -> dict[tuple[str, ...], Parameter]:
    """The parameters that every run has a value of, by their path through the groups; in the order of the config.

    Parameters with choices are among them; what their choices bring is not.
    """
    flat: dict[tuple[str, ...], Parameter] = {}
    for name, parameter in parameters.items():
        if isinstance(parameter, Nested):
            flat.update({(name, *path): leaf for path, leaf in flatten(parameter.parameters).items()})
        else:
            flat[name,] = parameter
    return flat


@dataclass(frozen=True, slots=True)
class Leaf:
    """A parameter with values of its own, wherever in the config.

    Attributes:
        path: Where its value stands in a run; parameters of different choices may share it.
        place: Where it stands in the config, with choices as a list.
        parameter: Its kind; of a parameter with choices the kind of the values by themselves.
    """

    path: tuple[str, ...]
    place: Path
    parameter: Parameter


def leaves_of(
    parameters: Mapping[str, Parameter], place: Path = ("parameters",), group: tuple[str, ...] = ()
) -> Iterator[Leaf]:
    """All parameters with values of their own, those of choices too; in the order of the config."""
    for name, parameter in parameters.items():
        path, here = (*group, name), (*place, name)
        if isinstance(parameter, Nested):
            yield from leaves_of(parameter.parameters, (*here, "parameters"), path)
        elif isinstance(parameter, Choices):
            yield Leaf(path, here, parameter.categorical)
            for index, choice in enumerate(parameter.choices):
                yield from leaves_of(choice.parameters, (*here, "choices", index, "parameters"), group)
        else:
            yield Leaf(path, here, parameter)
