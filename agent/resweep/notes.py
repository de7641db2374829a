"""What the SDK tells a person: through `logging`, once per matter, and never by an exception.

No handler is installed. Where the script configures none, Python prints warnings to standard error.
"""

from __future__ import annotations

import logging

logger = logging.getLogger("resweep")


class Notes:
    """Warnings of one run, each matter told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def once(self, matter: str, text: str) -> None:
        """Warn, unless `matter` was told before."""
        if matter not in self._told:
            self._told.add(matter)
            logger.warning("%s", text)

    def again(self, matter: str) -> None:
        """Let `matter` be told anew."""
        self._told.discard(matter)

    def warn_once(self, text: str) -> None:
        """Warn, unless this very text was told before."""
        self.once(text, text)

    def odd_value(self, place: str, value: object) -> None:
        """Told of a value that JSON cannot say."""
        kind = type(value)
        self.once(
            f"odd {place}",
            f"{place!r} is of type {kind.__module__}.{kind.__qualname__}, which has no JSON form: its repr is kept; "
            "log numbers, texts, lists or dicts",
        )
