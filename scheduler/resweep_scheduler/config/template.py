"""The command template: what may stand between ``${`` and ``}``, and the check of it when a sweep is created."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from resweep_scheduler.config.faults import did_you_mean
from resweep_scheduler.config.parameters import Choices, Nested, Parameter

DEFAULT_COMMAND: Final = ("${env}", "${interpreter}", "${program}", "${args}")

LIST_MACROS: Final = frozenset(
    {
        "args",
        "args_no_equals",
        "args_no_hyphens",
        "args_no_boolean_flags",
        "args_append_hydra",
        "args_override_hydra",
    }
)
"""Macros that become several arguments; only as an element of their own."""
TEXT_MACROS: Final = frozenset({"env", "interpreter", "program", "args_json", "args_json_file"})
"""Macros that become one text; anywhere in an element."""
MACROS: Final = LIST_MACROS | TEXT_MACROS
ENVIRONMENT_PREFIX: Final = "envvar:"

# "$${x}" is the text "${x}"; without a way to write it, commands for a shell could not be written.
TOKEN: Final = re.compile(r"(?P<escaped>\$)?\$\{(?P<name>[^{}]*)\}")
_ENVIRONMENT_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# One argument that can be left out without another one losing its value.
_OPTION: Final = re.compile(r"[-+]*[A-Za-z_][A-Za-z0-9_.-]*=\S*")
# A program is whatever is left beside these.
_NOT_A_PROGRAM: Final = {f"${{{macro}}}" for macro in MACROS - {"program"}}


@dataclass(frozen=True)
class TemplateFault:
    """A fault of one element of the command (`index`), or of the whole (None)."""

    index: int | None
    rule: str
    value: object
    cure: str


def tokens(element: str) -> Iterator[str]:
    """The names between ``${`` and ``}`` in one element of the command."""
    return (match["name"] for match in TOKEN.finditer(element) if not match["escaped"])


def is_whole(element: str) -> bool:
    """Whether an element is one token and nothing else."""
    match = TOKEN.fullmatch(element)
    return match is not None and not match["escaped"]


def names_of(parameters: Mapping[str, Parameter]) -> dict[str, bool]:
    """The names that a command can use, each with whether every run has it.

    They are those of parameters, groups, and (dotted) of what is in the groups; what is in one choice of a parameter
    only, other runs do not have.
    """
    names: dict[str, bool] = {}
    for name, parameter in parameters.items():
        names[name] = True
        if isinstance(parameter, Nested):
            inside = names_of(parameter.parameters)
            names |= {f"{name}.{inner}": always for inner, always in inside.items()}
        elif isinstance(parameter, Choices):
            branches = [names_of(choice.parameters) for choice in parameter.choices]
            for inner in {inner for branch in branches for inner in branch}:
                names[inner] = all(branch.get(inner, False) for branch in branches)
    return names


def template_faults(
    command: Collection[str], names: Mapping[str, bool], *, has_program: bool, open_names: bool = False
) -> Iterator[TemplateFault]:
    """Everything about a command template that would fail when a run is started.

    Args:
        command: The template.
        names: Those of `names_of`.
        has_program: Whether the sweep names a program.
        open_names: Runs may have parameters of other names, too.
    """
    for index, element in enumerate(command):
        for name in tokens(element):
            yield from _token_faults(index, element, name, names, has_program=has_program, open_names=open_names)
    if all(element in _NOT_A_PROGRAM for element in command):
        cure = "Add '${program}', or the name of what is to be run."
        yield TemplateFault(None, "must contain something that can be run", list(command), cure)


def _token_faults(
    index: int, element: str, name: str, names: Mapping[str, bool], *, has_program: bool, open_names: bool
) -> Iterator[TemplateFault]:
    shown = f"${{{name}}}"
    if name.startswith(ENVIRONMENT_PREFIX):
        variable = name.removeprefix(ENVIRONMENT_PREFIX)
        if not _ENVIRONMENT_NAME.fullmatch(variable):
            rule = "an environment variable's name must be made of letters, digits and _, and not start with a digit"
            yield TemplateFault(index, rule, shown, "Write for instance ${envvar:HOME}.")
    elif name in LIST_MACROS:
        if not is_whole(element):
            rule = f"{shown} becomes several arguments, so it must be an element of its own"
            cure = "Make it an element of its own, or use ${args_json} or ${name} of one parameter."
            yield TemplateFault(index, rule, element, cure)
    elif name == "program" and not has_program:
        yield TemplateFault(index, "${program} needs the key program", element, "Add program: train.py.")
    elif name not in MACROS and name not in names and not open_names:
        options = [*sorted(MACROS), *sorted(names)]
        otherwise = f"Use ${{envvar:{name}}} for an environment variable, $${{{name}}} for the text itself."
        rule = f"{shown} must be a macro or a parameter"
        meant = did_you_mean(name, options)
        yield TemplateFault(index, rule, element, f"Did you mean ${{{meant}}}?" if meant else otherwise)
    elif name not in MACROS and not names.get(name, False) and not _OPTION.fullmatch(element):
        rule = f"{shown} is not in every run, so its element must be one argument with =, which other runs leave out"
        yield TemplateFault(index, rule, element, f"Write for instance --{name}={shown}, or use ${{args}}.")
