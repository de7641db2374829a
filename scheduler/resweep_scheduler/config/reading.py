"""One mapping of the config to one model, with pydantic's errors retold as faults: rule, value, cure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from resweep_scheduler.config.faults import MISSING, FaultLog, Path, did_you_mean, suggest

_Model = TypeVar("_Model", bound=BaseModel)

_RULES: Final[dict[str, tuple[str, str]]] = {
    "greater_than": ("must be greater than {gt:g}", "Write a number greater than {gt:g}."),
    "greater_than_equal": ("must be at least {ge:g}", "Write {ge:g} or more."),
    "less_than_equal": ("must be at most {le:g}", "Write {le:g} or less."),
    "string_type": ("must be text", "Put it in quotes."),
    "string_too_short": ("must not be empty", "Write a name, or remove the key."),
    "bool_type": ("must be true or false", "Write true or false, without quotes."),
    "tuple_type": ("must be a list", "Write it as [a, b, c]."),
    "too_short": ("must not be empty", "Add at least one entry."),
    "dict_type": ("must be a mapping", "Write it as key: value."),
}
"""pydantic's error types that the models can raise, with rule and cure."""


def read_model(model: type[_Model], raw: object, path: Path, log: FaultLog) -> _Model | None:
    """Validate `raw` as a `model`; on failure every error becomes a fault below `path`, and None is returned."""
    if not isinstance(raw, Mapping):
        keys = ", ".join(model.model_fields)
        log.spoil(path, "must be a mapping", raw, f"Its keys are: {keys}.")
        return None
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        details = error.errors(include_url=False)
        for detail in details:
            if not _is_echo(detail, details, model):
                _record(detail, model, raw, path, log)
        return None


def _is_echo(detail: ErrorDetails, details: list[ErrorDetails], model: type[BaseModel]) -> bool:
    """Whether another error tells the same mistake.

    A key that is missing because it is misspelt: only the misspelt key is reported. A list that would be too short only
    because its faulty entries stay out.
    """
    if detail["type"] == "too_short":
        where = detail["loc"]
        return any(len(other["loc"]) > len(where) and other["loc"][: len(where)] == where for other in details)
    if detail["type"] != "missing":
        return False
    misspelt = (other["loc"][0] for other in details if other["type"] == "extra_forbidden")
    return any(did_you_mean(key, model.model_fields) == detail["loc"][0] for key in misspelt)


def _record(detail: ErrorDetails, model: type[BaseModel], raw: Mapping[str, object], path: Path, log: FaultLog) -> None:
    kind, context = detail["type"], detail.get("ctx", {})
    here: Path = (*path, *detail["loc"])
    value = detail["input"]
    if kind == "missing":
        log.add(here, f"is required{_title(model, 'by')}", MISSING, f"Add {here[-1]}.")
    elif kind == "extra_forbidden":
        free = [key for key in model.model_fields if key not in raw]
        cure = suggest(here[-1], free, f"Remove it; the keys are: {', '.join(model.model_fields)}.")
        log.add(here, f"is not a key{_title(model, 'of') or ' that is known here'}", here[-1], cure, at_key=True)
    elif kind == "literal_error":
        options = _literal_options(context)
        rule = f"must be one of {', '.join(options)}" if len(options) > 1 else f"must be {options[0]}"
        log.add(
            here,
            rule,
            value,
            suggest(value, options, "Use one of these." if len(options) > 1 else f"Write {options[0]}."),
        )
    elif kind == "rule":
        _record_rule(context, value, here, log)
    elif kind in _RULES:
        rule, cure = _RULES[kind]
        log.add(here, rule.format(**context), value, cure.format(**context))
    else:
        log.add(
            here, detail["msg"][:1].lower() + detail["msg"][1:], value, "Write a value of the kind that is asked for."
        )


def _record_rule(context: dict[str, Any], value: object, here: Path, log: FaultLog) -> None:
    if key := context["key"]:
        here = (*here, key)
        value = value.get(key, MISSING) if isinstance(value, Mapping) else getattr(value, key, MISSING)
    shown = context["shown"]
    log.add(here, context["rule"], value if shown is None else shown, context["cure"])


def _title(model: type[BaseModel], preposition: str) -> str:
    distribution = model.model_fields.get("distribution")
    return f" {preposition} {distribution.default}" if distribution is not None else ""


def _literal_options(context: dict[str, Any]) -> list[str]:
    # pydantic lists them as "'a', 'b' or 'c'".
    return [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
