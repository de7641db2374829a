"""A JSON schema of the sweep YAML, for editors.

It says what JSON schema can say. Left to the validator alone: what several keys must be together (bounds in order,
probabilities, lattices, macros of the command), and whether a number was written with a decimal point.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from pydantic import BaseModel

from resweep_scheduler.config.parameters import KINDS, NAME_PATTERN, ParameterKind
from resweep_scheduler.config.samplers import SAMPLERS
from resweep_scheduler.config.stopping import RULES
from resweep_scheduler.config.toplevel import METHODS, SECTIONS, Simple
from resweep_scheduler.config.webhooks import Webhook
from resweep_scheduler.store.checkpoints import CHECKPOINT_URL_PATTERN

# Kinds that are recognised by their other keys; all others must be named.
_INFERRED: Final = ("constant", "categorical", "categorical_w_probabilities", "int_uniform", "uniform")

_BOUNDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}

Schema: TypeAlias = dict[str, Any]


def json_schema() -> dict[str, object]:
    """The JSON schema (draft 2020-12) of a sweep config as users write it."""
    definitions: Schema = {"JsonValue": {}, **{name: _kind_schema(name, kind) for name, kind in KINDS.items()}}
    countable = [name for name, kind in KINDS.items() if kind.countable]
    for prefix, kinds in (("", list(KINDS)), ("grid_", countable)):
        definitions[f"{prefix}group"] = _group(f"{prefix}parameters")
        definitions[f"{prefix}choices"] = _choices(f"{prefix}parameters", weighted=not prefix)
        definitions[f"{prefix}parameters"] = _parameters([*kinds, f"{prefix}choices", f"{prefix}group"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "resweep sweep config",
        "type": "object",
        "required": ["method"],
        "additionalProperties": False,
        "properties": _properties(),
        "anyOf": [{"required": ["program"]}, {"required": ["command"]}],
        "allOf": [
            _if_then(
                {"properties": {"method": {"enum": ["bayes", "custom"]}}},
                {"anyOf": [{"required": ["metric"]}, {"required": ["metrics"]}]},
            ),
            _if_then({"properties": {"method": {"const": "custom"}}}, {"required": ["scheduler"]}),
            {
                "anyOf": [
                    {"required": ["parameters"]},
                    {"required": ["scheduler"], "properties": {"scheduler": {"required": ["search_space"]}}},
                ]
            },
            _if_then({"required": ["early_terminate"]}, {"required": ["metric"]}),
            _if_then({"required": ["search"]}, {"properties": {"method": {"enum": ["bayes", "custom"]}}}),
            _if_then(
                {"properties": {"method": {"const": "grid"}}},
                {"properties": {"parameters": {"$ref": "#/$defs/grid_parameters"}}},
            ),
        ],
        "$defs": definitions,
    }


def _properties() -> Schema:
    simple: Schema = _model_schema(Simple)["properties"]
    sections = {name: _model_schema(model) for name, model in SECTIONS.items()}
    # Unquoted in YAML, the word "false" is a boolean; the validator takes both.
    sections["metric"]["properties"]["impute_while_running"]["enum"].append(False)
    del sections["metric"]["properties"]["impute_while_running"]["type"]
    sections["search"]["properties"]["sampler"]["enum"] = list(SAMPLERS)
    nothing = {"type": "null"}
    checkpoint = sections["checkpoint"]
    for name, pattern in (("dir", "^(?!.*://)"), ("url", CHECKPOINT_URL_PATTERN)):
        checkpoint["properties"][name]["pattern"] = pattern
    checkpoint["anyOf"] = [{"properties": {"dir": nothing}}, {"properties": {"url": nothing}}]
    return {
        "metrics": {
            "type": "array",
            "minItems": 2,
            "items": sections["metric"],
            "description": "What is optimised when there are several goals, in place of `metric`.",
        },
        "scheduler": _scheduler(sections["search"]),
        "method": {"enum": [*METHODS, "custom"], "description": "How new runs get their parameters."},
        "parameters": {"$ref": "#/$defs/parameters"},
        "command": {
            "type": "array",
            "minItems": 1,
            "items": {"type": ["string", "number", "boolean"]},
            "description": "The command line of a run, one entry for each argument.",
        },
        "controller": {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"enum": ["local", "cloud"]}},
            "description": "Ignored.",
        },
        "early_terminate": {
            "anyOf": [_model_schema(rule) for rule in RULES.values()],
            "description": "Which runs are stopped before their end.",
        },
        "webhooks": {"type": "array", "items": _webhook()},
        **sections,
        **simple,
    }


def _webhook() -> Schema:
    schema = _model_schema(Webhook)
    schema["properties"]["url"]["pattern"] = "^https?://[^/]"
    return schema


def _scheduler(search: Schema) -> Schema:
    nothing: Schema = {"type": "null"}
    function: Schema = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
    by_name = {
        "engine": {"enum": ["optuna", "wandb"]},
        "optimizer": {"anyOf": [nothing, {"enum": list(SAMPLERS)}, search]},
        "source": nothing,
        "search_space": nothing,
    }
    by_source = {
        "engine": {"const": "optuna"},
        "optimizer": {"anyOf": [nothing, function]},
        "source": {"type": "string", "pattern": r"\.py$"},
        "search_space": {"anyOf": [nothing, function]},
    }
    either: list[Schema] = [{"required": ["optimizer"]}, {"required": ["search_space"]}]
    form: Schema = {"type": "object", "additionalProperties": False}
    return {
        "anyOf": [
            {**form, "required": ["engine"], "properties": by_name},
            {**form, "required": ["engine", "source"], "properties": by_source, "anyOf": either},
        ],
        "description": "W&B's way to name a search engine.",
    }


def _model_schema(model: type[BaseModel]) -> Schema:
    schema: Schema = model.model_json_schema()
    # The only definition is JsonValue, and it stands at the root already.
    schema.pop("$defs", None)
    translated: Schema = _translate(schema)
    return translated


def _translate(schema: Any) -> Any:
    """Rename the bounds of numbers, which pydantic leaves under its own names where a validator stands before them."""
    if isinstance(schema, dict):
        return {_BOUNDS.get(key, key): _translate(part) for key, part in schema.items()}
    return [_translate(part) for part in schema] if isinstance(schema, list) else schema


def _kind_schema(name: str, kind: type[ParameterKind]) -> Schema:
    schema = _model_schema(kind)
    if name not in _INFERRED:
        schema["required"] = sorted({*schema.get("required", ()), "distribution"})
    return schema


def _group(parameters: str) -> Schema:
    return {
        "type": "object",
        "required": ["parameters"],
        "additionalProperties": False,
        "properties": {"parameters": {"$ref": f"#/$defs/{parameters}"}},
        "description": "A group of parameters.",
    }


def _choices(parameters: str, *, weighted: bool) -> Schema:
    nothing: list[Schema] = [{"type": "null"}, {"type": "object", "maxProperties": 0}]
    body: Schema = {
        "parameters": {"anyOf": [*nothing, {"$ref": f"#/$defs/{parameters}"}]},
        "probability": {"type": ["number", "null"], "minimum": 0} if weighted else {"type": "null"},
    }
    bodies: Schema = {"type": ["object", "null"], "additionalProperties": False, "properties": body}
    listed: Schema = {**bodies, "type": "object", "required": ["value"], "properties": {"value": {}, **body}}
    return {
        "type": "object",
        "required": ["choices"],
        "additionalProperties": False,
        "properties": {
            "choices": {
                "anyOf": [
                    {"type": "object", "minProperties": 1, "additionalProperties": bodies},
                    {"type": "array", "minItems": 1, "items": listed},
                ]
            }
        },
        "description": "Values that bring parameters of their own.",
    }


def _parameters(kinds: list[str]) -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
        "additionalProperties": {"anyOf": [{"$ref": f"#/$defs/{kind}"} for kind in kinds]},
    }


def _if_then(condition: Schema, consequence: Schema) -> Schema:
    return {"if": condition, "then": consequence}
