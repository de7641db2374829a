"""GraphQL as far as W&B's client needs it: operations told apart by the name in their text, answers made by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resweep_scheduler.gateway.access import Access
from resweep_scheduler.store import Store

_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")
_FIELD = re.compile(r"^\s*(?:query\s*)?\{\s*(\w+)")


class GatewayError(Exception):
    """What a request cannot have; becomes an answer of W&B's form.

    The client tries again after 409, 429 and 5xx, and takes any other status for the last word.

    Args:
        message: One line: rule, value, cure.
        status: Of HTTP.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """One operation that a client asks for."""

    name: str
    text: str
    variables: Mapping[str, Any]
    access: Access
    base_url: str  # of the gateway, as the client reaches it

    def word(self, name: str) -> str:
        """A variable that must be a text, and not empty.

        Raises:
            GatewayError: It is not.
        """
        value = self.variables.get(name)
        if not isinstance(value, str) or not value:
            raise GatewayError(f"{self.name} needs the variable {name!r} as a text, got {value!r}; report it as a bug")
        return value

    def optional(self, name: str) -> str | None:
        """A variable that is a text or missing; empty counts as missing."""
        value = self.variables.get(name)
        return value if isinstance(value, str) and value else None

    def store(self, *, write: bool, entity: str = "entity", project: str = "project") -> Store:
        """The store of the project that the variables name, if the key allows it."""
        return self.access.store(self.optional(entity), self.optional(project), write=write)


Handler = Callable[[Call], dict[str, Any]]


def operation_of(text: str) -> str:
    """The name of the first operation in a document; most calls of the client say it nowhere else.

    An operation without a name is called by the first field that it asks for.
    """
    found = _FIELD.search(text) or _OPERATION.search(text)
    return found[1] if found else ""
