"""Any Python or YAML value to plain JSON data, because a config and every parameter is stored as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from resweep_scheduler.config.faults import FaultLog, Path, key_text

_MAX_DEPTH: Final = 100
# Python refuses to write integers of more than 4,300 digits.
_MAX_BITS: Final = 9_965


def to_plain(value: object, path: Path, log: FaultLog) -> object:
    """Copy `value` as dicts with text keys, lists, text, finite numbers, booleans and None.

    Tuples become lists, and arrays (anything with ``tolist``) lists or numbers. What has no JSON form goes to `log`.
    """
    if len(path) > _MAX_DEPTH:
        log.spoil(
            path, f"values must not be nested deeper than {_MAX_DEPTH} levels", type(value).__name__, "Flatten it."
        )
        return None
    if isinstance(value, Mapping):
        return _plain_choices(value, path, log) if _are_choices(path) else plain_mapping(value, path, log)
    if isinstance(value, list | tuple):
        return [to_plain(item, (*path, index), log) for index, item in enumerate(value)]
    if value is None or isinstance(value, bool | str | int | float):
        return _finite(value, path, log) if isinstance(value, float) else _exact(value, path, log)
    if callable(convert := getattr(value, "tolist", None)):
        return to_plain(convert(), path, log)
    rule = "values must be text, numbers, booleans, null, lists or mappings"
    log.spoil(path, rule, value, f"Write it as text; a {type(value).__name__} cannot be stored.")
    return None


def _exact(value: bool | str | int | None, path: Path, log: FaultLog) -> object:
    """Subclasses (of enums, of NumPy) become the plain type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if value.bit_length() > _MAX_BITS:
        log.spoil(path, "integers must have at most 3,000 digits", value, "Write it as text.")
    return int(value)


def _finite(value: float, path: Path, log: FaultLog) -> float:
    if not math.isfinite(value):
        log.spoil(path, "numbers must be finite", repr(float(value)), "Write a finite number, or quote it as text.")
    return float(value)


def plain_mapping(
    value: Mapping[object, object] | Mapping[str, object], path: Path, log: FaultLog
) -> dict[str, object]:
    """Copy a mapping as a plain dict; see `to_plain`."""
    plain: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(key, str):
            plain[str(key)] = to_plain(item, (*path, str(key)), log)
        else:
            log.add((*path, key_text(key)), "keys must be text", key, "Put the key in quotes.", at_key=True)
    return plain


def _are_choices(path: Path) -> bool:
    """Whether the choices of a parameter stand at `path`: their keys are values."""
    place = 0
    while place + 2 < len(path) and path[place] == "parameters":
        place += 2  # behind the parameter's name
        if path[place] == "choices":
            if place == len(path) - 1:
                return True
            place += 2  # behind the choice
    return False


def _plain_choices(value: Mapping[object, object], path: Path, log: FaultLog) -> dict[object, object]:
    """Copy a mapping whose keys are values, so that 1, true and null stay what they are."""
    plain: dict[object, object] = {}
    for key, item in value.items():
        here = (*path, key_text(key))
        value_of_key = to_plain(key, here, log)
        if value_of_key is None or isinstance(value_of_key, bool | str | int | float):
            plain[value_of_key] = to_plain(item, here, log)
        else:
            cure = "Write choices as a list: [{value: …, parameters: {…}}]."
            log.spoil(here, "a value that is a key must be text, a number, true, false or null", key, cure)
    return plain
