"""Run ids that follow from the sweep and the index."""

from __future__ import annotations

import hashlib
import string
from typing import Final

_ALPHABET: Final = string.digits + string.ascii_lowercase
_LENGTH: Final = 8


def run_id_for(sweep_id: str, index: int, salt: int = 0) -> str:
    """The id of the run that carries point `index` of a sweep: 8 characters of a-z and 0-9.

    The same index gives the same id for ever, so that after a rollback of Redis it is the same run with the same
    files; `salt` gives another id where that one is taken.
    """
    number = int.from_bytes(hashlib.sha256(f"{sweep_id}:{index}:{salt}".encode()).digest())
    characters = []
    for _ in range(_LENGTH):
        number, place = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[place])
    return "".join(characters)
