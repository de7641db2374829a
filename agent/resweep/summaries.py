"""The summary of a run: one value per name, kept over all attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from fnmatch import fnmatchcase
from typing import Any

from resweep.errors import UsageError
from resweep.values import Complain, finite_number, plain

MODES = ("last", "min", "max", "mean", "none")
COUNTS = "_mean_counts"
"""Where the summary keeps how many values each mean is made of, so that it goes on after a resume."""


class Summary(MutableMapping[str, Any]):
    """The run's summary: the last logged value of each name, or what ``define_metric`` chose.

    Values can be set by hand, too; a later ``log`` of the same name goes on from there.
    """

    def __init__(self, items: Mapping[str, Any], complain: Complain) -> None:
        self._items = dict(items)
        self._complain = complain
        self._modes: dict[str, str] = {}
        self._patterns: dict[str, str] = {}
        self.changed = False  # since the sender looked last
        self.on_change: Callable[[], None] | None = None

    def define(self, name: str, mode: str | None) -> None:
        """Choose what the summary keeps of `name`, which may be a pattern such as ``val/*``.

        Raises:
            UsageError: There is no such mode.
        """
        if mode is None:
            return
        if mode not in MODES:
            raise UsageError(
                f"define_metric: summary must be one of {', '.join(MODES)}, got {mode!r}; leave it out for last"
            )
        self._modes.clear()
        self._patterns[name] = mode

    def observe(self, row: Mapping[str, Any]) -> None:
        """Take over the values of a logged row."""
        if not self._patterns:
            self._items.update(row)
        else:
            for name, value in row.items():
                self._fold(name, value)
        self.changed = True

    def snapshot(self) -> dict[str, Any]:
        """A copy that later changes do not reach."""
        return dict(self._items)

    def _fold(self, name: str, value: Any) -> None:
        mode = self._modes.get(name) or self._find_mode(name)
        if mode == "none":
            return
        number = finite_number(value)
        known = finite_number(self._items.get(name))
        if mode == "last" or (number is not None and known is None and mode != "mean"):
            self._items[name] = value
        elif number is None:
            return
        elif mode == "mean":
            counts = dict(self._items.get(COUNTS) or {})
            count = int(counts.get(name, 0)) if known is not None else 0
            self._items[name] = number if known is None or count == 0 else known + (number - known) / (count + 1)
            counts[name] = count + 1
            self._items[COUNTS] = counts
        elif known is not None and (number < known if mode == "min" else number > known):
            self._items[name] = value

    def _find_mode(self, name: str) -> str:
        """The mode of the exact name, else of the pattern defined last."""
        found = self._patterns.get(name)
        for pattern, mode in self._patterns.items():
            if name not in self._patterns and fnmatchcase(name, pattern):
                found = mode
        self._modes[name] = found or "last"
        return self._modes[name]

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._items[str(name)] = plain(value, str(name), self._complain)
        self._tell()

    def __delitem__(self, name: str) -> None:
        del self._items[name]
        self._tell()

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Summary({self._items!r})"

    def _tell(self) -> None:
        self.changed = True
        if self.on_change is not None:
            self.on_change()
