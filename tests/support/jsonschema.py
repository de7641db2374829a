"""The part of JSON schema that our schema of the sweep YAML uses, as an oracle for tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
    "integer": (int, float),
}
_KNOWN = {
    "type", "enum", "const", "required", "properties", "additionalProperties", "propertyNames", "minProperties",
    "maxProperties", "items", "minItems", "minLength", "pattern", "minimum", "maximum", "exclusiveMinimum", "anyOf",
    "allOf", "if", "then", "$ref", "$defs", "$schema", "title", "description", "default",
}  # fmt: skip


def accepts(schema: Mapping[str, Any], value: object) -> bool:
    """Whether `value` fits the JSON schema.

    Raises:
        ValueError: The schema uses a keyword that this oracle does not know.
    """
    return _fits(schema, value, schema)


def _fits(schema: Mapping[str, Any], value: object, root: Mapping[str, Any]) -> bool:
    if unknown := set(schema) - _KNOWN:
        raise ValueError(f"keywords must be known to the oracle (got {sorted(unknown)}). Add them.")
    if "$ref" in schema and not _fits(_resolve(schema["$ref"], root), value, root):
        return False
    if "if" in schema and _fits(schema["if"], value, root) and not _fits(schema["then"], value, root):
        return False
    return (
        _fits_type(schema, value)
        and ("const" not in schema or _same(schema["const"], value))
        and ("enum" not in schema or any(_same(option, value) for option in schema["enum"]))
        and ("anyOf" not in schema or any(_fits(option, value, root) for option in schema["anyOf"]))
        and all(_fits(part, value, root) for part in schema.get("allOf", ()))
        and _fits_number(schema, value)
        and _fits_parts(schema, value, root)
    )


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, Mapping)
    return found


def _same(left: object, right: object) -> bool:
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _fits_type(schema: Mapping[str, Any], value: object) -> bool:
    if "type" not in schema:
        return True
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return any(_is_of_type(name, value) for name in types)


def _is_of_type(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    whole = name != "integer" or isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, _TYPES[name]) and whole


def _fits_number(schema: Mapping[str, Any], value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    at_least = "minimum" not in schema or value >= schema["minimum"]
    at_most = "maximum" not in schema or value <= schema["maximum"]
    return at_least and at_most and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])


def _fits_parts(schema: Mapping[str, Any], value: object, root: Mapping[str, Any]) -> bool:
    if isinstance(value, str):
        long_enough = len(value) >= schema.get("minLength", 0)
        return long_enough and ("pattern" not in schema or re.search(schema["pattern"], value) is not None)
    if isinstance(value, list):
        items = all(_fits(schema["items"], item, root) for item in value) if "items" in schema else True
        return items and len(value) >= schema.get("minItems", 0)
    if isinstance(value, dict):
        return _fits_object(schema, value, root)
    return True


def _fits_object(schema: Mapping[str, Any], value: dict[str, object], root: Mapping[str, Any]) -> bool:
    if not schema.get("minProperties", 0) <= len(value) <= schema.get("maxProperties", len(value)):
        return False
    if any(key not in value for key in schema.get("required", ())):
        return False
    if "propertyNames" in schema and not all(_fits(schema["propertyNames"], key, root) for key in value):
        return False
    known = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for key, part in value.items():
        if key in known:
            if not _fits(known[key], part, root):
                return False
        elif others is False or (isinstance(others, Mapping) and not _fits(others, part, root)):
            return False
    return True
