"""Names of parameters: no two in one run may be the same, and what a config calls by its place is found in the text."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Final

from resweep_scheduler.config.faults import FaultLog, Path, key_text, path_text
from resweep_scheduler.config.parameters import Choices, Nested, Parameter

_CURE: Final = "Rename one: a dot joins the names of groups, and parameters of a choice stand beside the others."


def check_names(parameters: Mapping[str, Parameter], written: Mapping[str, object], log: FaultLog) -> None:
    """Report parameters that one run could have under the same full name."""
    _Claims(written, log).of(parameters, ("parameters",), ())


class _Claims:
    """The names that runs can have, each with the place of the parameter that claims it.

    A claim is a path through the groups, and for parameters with values the path as one dotted name too.
    """

    def __init__(self, written: Mapping[str, object], log: FaultLog) -> None:
        self._written = written
        self._log = log

    def of(self, parameters: Mapping[str, Parameter], place: Path, group: tuple[str, ...]) -> dict[Hashable, Path]:
        """What the parameters of one level and all that is in them claim; those that clash are reported."""
        claims: dict[Hashable, Path] = {}
        for name, parameter in parameters.items():
            path, here = (*group, name), (*place, name)
            if isinstance(parameter, Nested):
                self._add(claims, {path: here} | self.of(parameter.parameters, (*here, "parameters"), path))
                continue
            self._add(claims, {path: here, ".".join(path): here})
            if isinstance(parameter, Choices):
                self._add(claims, self._of_choices(parameter, here, group))
        return claims

    def _of_choices(self, parameter: Choices, here: Path, group: tuple[str, ...]) -> dict[Hashable, Path]:
        """A run has the parameters of one choice only, so choices do not clash with each other."""
        claims: dict[Hashable, Path] = {}
        for index, choice in enumerate(parameter.choices):
            brought = self.of(choice.parameters, (*here, "choices", index, "parameters"), group)
            for claim, place in brought.items():
                claims.setdefault(claim, place)
        return claims

    def _add(self, claims: dict[Hashable, Path], new: dict[Hashable, Path]) -> None:
        reported: set[Path] = set()
        for claim, place in new.items():
            first = claims.setdefault(claim, place)
            if first != place and not any(place[: len(other)] == other for other in reported):
                reported.add(place)
                self._report(claim, first, place)

    def _report(self, claim: Hashable, first: Path, place: Path) -> None:
        name = claim if isinstance(claim, str) else ".".join(claim)  # type: ignore[arg-type]  # a path of names
        where = path_text(as_written(first, self._written))
        rule = f"two parameters of one run must not have the same full name, {name}, which stands at {where} too"
        self._log.add(as_written(place, self._written), rule, place[-1], _CURE, at_key=True)


def as_written(place: Path, written: Mapping[str, object]) -> Path:
    """A place that has choices as a list, as the user wrote it: under the values if the choices are a mapping."""
    node: object = {"parameters": written}
    found: list[str | int] = []
    for part in place:
        key: object = part
        if isinstance(part, int) and isinstance(node, Mapping):
            key = list(node)[part]
        found.append(part if key is part else key_text(key))
        node = node[key]  # type: ignore[index]  # every place comes from what was written
    return tuple(found)


def names_written(written: object) -> Iterator[str]:
    """Whatever could be the last part of a parameter's name, had it been written without a fault."""
    if isinstance(written, Mapping):
        for name, body in written.items():
            yield key_text(name).rpartition(".")[2]
            yield from names_written(body)
    elif isinstance(written, list):
        for item in written:
            yield from names_written(item)
