"""When two values of a parameter are the same."""

from __future__ import annotations

import json


def category_key(value: object) -> str:
    """A text that is equal for values that mean the same in JSON or YAML: 3 and 3.0 are one, 1 and true are two."""
    return json.dumps(_unify_numbers(value), sort_keys=True)


def _unify_numbers(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_unify_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _unify_numbers(item) for key, item in value.items()}
    return value
