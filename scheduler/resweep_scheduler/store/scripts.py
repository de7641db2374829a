"""Loads the Lua scripts and runs them by their SHA1.

A script is lua/<transition>.lua; its line ``-- include: a, b`` names the parts of lua/shared that go before it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """One transition as Redis gets it."""

    name: str
    text: str
    sha: str


@cache
def load_script(name: str) -> Script:
    """Reads ``lua/<name>.lua`` with its includes."""
    folder = files("resweep_scheduler.store") / "lua"
    own = (folder / f"{name}.lua").read_text(encoding="utf-8")
    include = _INCLUDE.search(own)
    if include is None:
        raise ValueError(f"lua/{name}.lua has no line '-- include: …'; add one, with `base` at least")
    parts = [part.strip() for part in include.group(1).split(",")]
    shared = [(folder / "shared" / f"{part}.lua").read_text(encoding="utf-8") for part in parts]
    text = "\n".join([*shared, own])
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def encode_arguments(arguments: dict[str, Any]) -> str:
    """The one JSON argument of a script; absent values are left out, since null is a value in Lua's JSON."""
    return json.dumps({key: value for key, value in arguments.items() if value is not None}, separators=(",", ":"))


def decode_reply(text: str | bytes) -> dict[str, Any]:
    """The one JSON reply of a script."""
    reply: dict[str, Any] = json.loads(text)
    return reply
