"""From what a user wrote under ``choices`` to a list of values, each with its parameters as they were written.

Choices are a mapping from values, whose keys keep their YAML type, or a list for values that cannot be keys:

    choices: {sgd: {parameters: {…}}, adam: {}}
    choices: [{value: [64, 64], parameters: {…}, probability: 0.2}, …]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, Field

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.faults import FaultLog, Path, did_you_mean, key_text, show, suggest
from resweep_scheduler.config.kinds import sum_to_one
from resweep_scheduler.config.numbers import Real
from resweep_scheduler.config.reading import read_model

_BESIDE: Final = {
    "values": "Remove it: the values are those of the choices.",
    "probabilities": "Give each choice its probability.",
    "parameters": "Move it into a choice, or write it beside the parameter with the choices.",
}


class _Weight(BaseModel):
    probability: Annotated[Real, Field(ge=0)]


@dataclass(frozen=True)
class Entry:
    """One choice as it was written.

    Attributes:
        value: The value of the parameter.
        body: What stands beside or under it; empty if that is faulty.
        path: Where it stands.
    """

    value: object
    body: Mapping[str, object]
    path: Path

    @property
    def parameters(self) -> object:
        return self.body.get("parameters")


def read_entries(raw: Mapping[str, object], path: Path, log: FaultLog) -> list[Entry]:
    """The choices of the parameter at `path`; empty if they cannot be told from each other."""
    for key in raw:
        if key != "choices":
            cure = _BESIDE.get(key, "Move it into the parameters of a choice, or remove it.")
            log.add((*path, key), "nothing may stand beside choices", key, cure, at_key=True)
    written, where = raw["choices"], (*path, "choices")
    if isinstance(written, Mapping):
        entries = [_from_mapping(value, body, where, log) for value, body in written.items()]
    elif isinstance(written, list):
        found = [_from_list(item, (*where, index), log) for index, item in enumerate(written)]
        entries = [entry for entry in found if entry is not None]
        if len(entries) < len(found):
            return []
    else:
        cure = "Write for instance choices: {sgd: {parameters: {momentum: {min: 0.0, max: 0.9}}}, adam: {}}."
        log.spoil(where, "must be a mapping from values to what they bring, or a list", written, cure)
        return []
    if not entries and not log.touches(where):
        cure = "Add for instance sgd: {parameters: {momentum: {min: 0.0, max: 0.9}}}."
        log.spoil(where, "must have at least one choice", written, cure)
    _check_values(entries, log)
    return entries


def _from_mapping(value: object, body: object, where: Path, log: FaultLog) -> Entry:
    place = (*where, key_text(value))
    if body is not None and not isinstance(body, Mapping):
        cure = f"Write {key_text(value)}: {{parameters: {{…}}}}, or leave it empty."
        log.spoil(place, "a choice must be a mapping, or empty", body, cure)
        body = None
    entry = Entry(value, body or {}, place)
    _check_keys(entry, ("parameters", "probability"), log)
    return entry


def _from_list(item: object, place: Path, log: FaultLog) -> Entry | None:
    keys = ("value", "parameters", "probability")
    if not isinstance(item, Mapping) or not any(did_you_mean(key, keys) for key in item):
        cure = f"Write {{value: {'…' if isinstance(item, Mapping) else show(item)}}}."
        log.spoil(place, "a choice in a list must be a mapping with a value", item, cure)
        return None
    entry = Entry(item.get("value"), item, place)
    _check_keys(entry, keys, log)
    if "value" not in item:
        # A misspelt key was reported; it need not be said that the right one is missing.
        if not log.touches(place):
            log.add(place, "a choice in a list must have a value", item, "Add value: and the value of the parameter.")
        return None
    return entry


def _check_keys(entry: Entry, known: Sequence[str], log: FaultLog) -> None:
    for key, value in entry.body.items():
        if key not in known:
            otherwise = "Move it into parameters" if isinstance(value, Mapping) else "Remove it"
            cure = suggest(
                key, [one for one in known if one not in entry.body], f"{otherwise}; the keys are: {', '.join(known)}."
            )
            log.add((*entry.path, key), "is not a key of a choice", key, cure, at_key=True)
    parameters = entry.parameters
    if parameters is not None and not isinstance(parameters, Mapping):
        cure = "Write for instance momentum: {min: 0.0, max: 0.9}."
        log.spoil((*entry.path, "parameters"), "must be a mapping from names to parameters", parameters, cure)


def _check_values(entries: Sequence[Entry], log: FaultLog) -> None:
    # Keys of a mapping differ already.
    seen: set[str] = set()
    for entry in entries:
        key = category_key(entry.value)
        if key in seen:
            rule, cure = "two choices must not have the same value", "Remove one of the two, or join their parameters."
            log.add((*entry.path, "value"), rule, entry.value, cure)
        seen.add(key)


def read_probabilities(entries: Sequence[Entry], where: Path, log: FaultLog) -> list[float | None]:
    """The probability of each choice; none if they are faulty, or not given."""
    found = list(_probabilities(entries, log))
    given = [probability for probability in found if probability is not None]
    if not given or any(log.touches((*entry.path, "probability")) for entry in entries):
        return [None] * len(entries)
    if len(given) < len(found):
        rest = [entry.value for entry, probability in zip(entries, found, strict=True) if probability is None]
        rule, cure = "either all choices or none must have a probability", "Add a probability to these as well."
        log.add(where, rule, rest, cure, at_key=True)
    elif not sum_to_one(given):
        rule = f"the probabilities of the choices must sum to 1, not {math.fsum(given):g}"
        log.add(where, rule, given, "Divide each by their sum.", at_key=True)
    else:
        return found
    return [None] * len(entries)


def _probabilities(entries: Sequence[Entry], log: FaultLog) -> Iterator[float | None]:
    for entry in entries:
        written = entry.body.get("probability")
        weight = None
        if written is not None:
            weight = read_model(_Weight, {"probability": written}, entry.path, log)
        yield None if weight is None else weight.probability
