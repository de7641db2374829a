"""Writing SVG: elements, numbers, and texts that nobody can break out of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

# What XML 1.0 cannot hold, not even escaped; and what lets a text run backwards over others.
_NO_TEXT = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def element(name: str, *inner: str, **attributes: str | float | None) -> str:
    """One element; `inner` is markup, attributes are escaped. `class_` is class, `text_anchor` is text-anchor."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{number(value) if not isinstance(value, str) else text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(inner)}</{name}>" if inner else f"<{name}{written}/>"


def text(raw: str) -> str:
    """Any text as the content of an element or of a quoted attribute."""
    return escape(_NO_TEXT.sub("\ufffd", raw), quote=True)


def number(value: float) -> str:
    """At most two decimals, as few as will do."""
    short = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if short == "-0" else short


def group(parts: Iterable[str], **attributes: str | float | None) -> str:
    """A `<g>` with a line for each part."""
    return element("g", "\n", *(f"{part}\n" for part in parts), **attributes)


def shortened(raw: str, most: int) -> str:
    """The text with its middle left out where it is too long: names of agents differ at both ends."""
    if len(raw) <= most:
        return raw
    tail = (most - 1) // 2
    return f"{raw[: most - 1 - tail]}…{raw[len(raw) - tail :]}"
