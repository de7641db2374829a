"""Faults of a sweep config: what is wrong, where, and what to write instead.

ConfigError(ValueError)    the config cannot be used; carries every fault that was found
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Final, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
Position: TypeAlias = tuple[int, int]

_SHOWN_CHARACTERS: Final = 80
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Missing:
    """Stands for a value that is not in the config at all (``null`` is a value)."""

    def __repr__(self) -> str:
        return "nothing"


MISSING: Final = _Missing()


@dataclass(frozen=True)
class Marks:
    """Where a key and its value stand in the YAML text: (line, column), both counted from 1."""

    key: Position
    value: Position


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a sweep config.

    Attributes:
        path: Where, as ``parameters.lr.min``; empty for the config as a whole.
        line: Line in the YAML text, from 1; None if the config did not come from text.
        column: Column in that line, from 1; None if the config did not come from text.
        rule: What must hold.
        value: What was found instead (``MISSING`` if nothing was).
        cure: What to write instead.
    """

    path: str
    line: int | None
    column: int | None
    rule: str
    value: object
    cure: str

    def __str__(self) -> str:
        prefix = f"{self.path}: " if self.path else ""
        text = f"{prefix}{self.rule} (got {show(self.value)}). {self.cure}"
        # Names come from the user: they must not break the line, nor speak to the terminal.
        return _UNPRINTABLE.sub(lambda match: repr(match.group())[1:-1], text)


class ConfigError(ValueError):
    """The sweep config cannot be used.

    Attributes:
        faults: Every fault found, in the order of the text.
        source: What was read: a file name, or a word for where the config came from.
    """

    def __init__(self, faults: Iterable[Fault], source: str) -> None:
        self.faults = tuple(faults)
        self.source = source
        super().__init__("\n".join(self._lines()))

    def _lines(self) -> Iterable[str]:
        for fault in self.faults:
            position = "" if fault.line is None else f":{fault.line}:{fault.column}"
            yield f"{self.source}{position}: {fault}"


@dataclass
class FaultLog:
    """Collects faults while a config is read, and knows where in the text each belongs.

    Once a value was found unusable (`spoil`), nothing more is said about it or its parts: one mistake, one line.
    """

    marks: Mapping[Path, Marks] = field(default_factory=dict)
    _found: list[tuple[Path, Fault]] = field(default_factory=list)
    _spoilt: set[Path] = field(default_factory=set)

    def add(self, path: Path, rule: str, value: object, cure: str, *, at_key: bool = False) -> None:
        """Record a fault at `path`; `at_key` points at the key and not at its value."""
        if any(path[:length] in self._spoilt for length in range(len(path) + 1)):
            return
        line, column = self._position(path, at_key=at_key)
        fault = Fault(path_text(path), line, column, rule, value, cure)
        if all(known != fault for _, known in self._found):
            self._found.append((path, fault))

    def spoil(self, path: Path, rule: str, value: object, cure: str) -> None:
        """Record a fault and let nothing more be said about `path`."""
        self.add(path, rule, value, cure)
        self._spoilt.add(path)

    def touches(self, path: Path) -> bool:
        """Tell whether a fault was found at `path` or inside it."""
        return any(found[: len(path)] == path for found, _ in self._found)

    def sorted(self) -> list[Fault]:
        """All faults by position; without positions, in the order in which they were found."""
        return [fault for _, fault in sorted(self._found, key=lambda item: (item[1].line or 0, item[1].column or 0))]

    def _position(self, path: Path, *, at_key: bool) -> tuple[int | None, int | None]:
        marks = self.marks.get(path)
        if marks is not None:
            return marks.key if at_key else marks.value
        # What is missing is reported where it should stand: at the key of the mapping around it.
        for length in range(len(path) - 1, -1, -1):
            if (around := self.marks.get(path[:length])) is not None:
                return around.key
        return None, None


def path_text(path: Path) -> str:
    """Write a path the way people do: ``parameters.lr.values[2]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def key_text(key: object) -> str:
    """A key of a mapping as a part of a path; keys that are no text are written as in the YAML file."""
    return key if isinstance(key, str) else show(key)


def show(value: object) -> str:
    """Write a value as one short line, in the notation of the YAML file."""
    if isinstance(value, _Missing):
        return repr(value)
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, RecursionError):
        # It contains itself, or a number too long to be written.
        text = f"a {type(value).__name__}"
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 1] + "…"
    return text


def did_you_mean(word: object, options: Iterable[str]) -> str | None:
    """The option that was probably meant by a misspelt word, or None."""
    choices = {option.lower(): option for option in options}
    close = get_close_matches(str(word).lower().replace("-", "_"), choices, n=1, cutoff=0.6)
    return choices[close[0]] if close else None


def suggest(word: object, options: Iterable[str], otherwise: str) -> str:
    """A cure for a misspelt word: the option that was probably meant, else `otherwise`."""
    meant = did_you_mean(word, options)
    return f"Did you mean {meant!r}?" if meant else otherwise
