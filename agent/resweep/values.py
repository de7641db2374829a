"""From what a training script logs to what JSON can say, copied at the call.

The copy is made in the thread that logs, because a script may change a list or a tensor as soon as ``log`` returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

MAX_DEPTH = 32
MAX_REPR = 1000

_PLAIN = frozenset({int, float, str, bool, NoneType})
_NO_ITEM = object()

Complain = Callable[[str, object], None]
"""Told the place of a value that has no JSON form, and the value; it says so once."""


def plain_row(values: Mapping[Any, Any], complain: Complain) -> dict[str, Any]:
    """A copy of `values` made of dicts, lists, numbers, booleans, texts and None only."""
    row: dict[str, Any] = {}
    for key, value in values.items():
        name = key if type(key) is str else str(key)
        row[name] = value if type(value) in _PLAIN else plain(value, name, complain)
    return row


def plain(value: Any, place: str, complain: Complain, depth: int = 0) -> Any:
    """`value` in JSON's types: scalars of numpy and torch by their ``item()``, what has no such form as its ``repr``.

    NaN and infinities stay what they are. `place` names the value for `complain`.
    """
    if type(value) in _PLAIN:
        return value
    if depth < MAX_DEPTH:
        if isinstance(value, Mapping):
            return {str(key): plain(part, f"{place}.{key}", complain, depth + 1) for key, part in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(part, place, complain, depth + 1) for part in value]
        scalar = _scalar(value)
        if scalar is not _NO_ITEM:
            return scalar
    complain(place, value)
    return _shown(value)


def _scalar(value: Any) -> Any:
    """The plain number or text that `value` stands for, or `_NO_ITEM`."""
    # Subclasses of the plain types: numpy's float64, enums with a value, and the like.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str | os.PathLike):
        return str.__str__(value) if isinstance(value, str) else str(os.fspath(value))
    item = getattr(value, "item", None)
    if callable(item):
        try:
            scalar = item()
        except Exception:
            return _NO_ITEM  # an array of several elements
        if type(scalar) in _PLAIN:
            return scalar
    return _NO_ITEM


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} without a repr: {type(error).__name__}>"
    return text if len(text) <= MAX_REPR else text[: MAX_REPR - 1] + "…"


def approximate_size(value: Any) -> int:
    """About how many bytes of JSON a plain value has, without making them."""
    if isinstance(value, str):
        return len(value) + 3
    if isinstance(value, dict):
        return 2 + sum(len(key) + 4 + approximate_size(part) for key, part in value.items())
    if isinstance(value, list):
        return 2 + sum(1 + approximate_size(part) for part in value)
    return 12


def finite_number(value: Any) -> float | None:
    """`value` as a float if it is a finite number; None for booleans, NaN, infinities and everything else."""
    if type(value) is int or type(value) is float:
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if number - number == 0.0 else None
    return None
