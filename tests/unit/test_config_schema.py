"""The JSON schema for editors agrees with the validator, as far as JSON schema can say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support.jsonschema import accepts

from resweep_scheduler.config import json_schema, parse_sweep
from resweep_scheduler.config.parameters import KINDS

SCHEMA = json_schema()
HEAD = {"method": "random", "program": "train.py"}

# Faults that need two values side by side, or the way in which a number or a key was written.
BEYOND_JSON_SCHEMA = {
    "key twice", "parameter twice", "mixed bounds", "mixed bounds with a fraction", "min above max", "min equals max",
    "int_uniform with floats", "NaN", "infinity", "huge number", "no multiple of q", "log exponents overflow",
    "inverse exponents overflow", "log_normal overflows", "normal overflows", "one probability too few",
    "probabilities do not sum", "fault in a group", "colliding names", "bayes with constants only",
    "early_terminate without bands", "early_terminate with empty bands", "program in command only",
    "command without a program", "unknown macro", "shell variable", "list macro inside", "bad environment variable",
    "slow heartbeat", "quantised log without a multiple", "quantised exponents without a multiple",
    "quantised exponents overflow", "continuous in a grid", "continuous choice in a grid",
    "unknown sampler option", "wrong sampler option", "wrong sampler count", "seed of a sampler",
    "option of another sampler", "wrong sampler share", "wrong sampler word", "too few parents",
    "group without multivariate", "two kinds of cmaes", "cmaes without numbers", "brute force without end",
    "equal metrics", "target of several metrics", "metric and metrics", "sampler of one goal",
    "sampler that does not fit, beside scheduler",
    "code beside search", "code with random", "code and what Optuna does not have", "command of drawn parameters",
    "scheduler with random", "engine wandb with custom", "optimizer of wandb", "sampler named twice",
    "equal choices", "choice twice", "one and true", "probabilities of choices do not sum",
    "choices without a probability", "name of a choice outside", "name of the parameter itself",
    "names of two choices that can be taken together", "name of a choice in an outer choice",
    "command that needs a choice", "group in two choices",
    "unknown pruner", "unknown pruner option",
    "wrong pruner option", "refused pruner option", "missing pruner option", "pruner without limits",
    "wrapped pruner without a name", "unknown wrapped pruner", "pruner option is a fraction", "pruner option is a word",
}  # fmt: skip


def parsed_refusals() -> list[tuple[str, object]]:
    """Name and parsed YAML of the configs in test_config_faults.txt that are YAML at all."""
    found: list[tuple[str, object]] = []
    text = Path(__file__).with_name("test_config_faults.txt").read_text(encoding="utf-8")
    for block in text.split("\n##### ")[1:]:
        name, _, rest = block.partition("\n")
        try:
            raw = yaml.safe_load(rest.partition("\n-----\n")[0])
        except yaml.YAMLError:
            continue
        if name not in ("cyclic anchor", "key is no text"):
            found.append((name, raw))
    return found


def test_the_schema_is_json() -> None:
    schema = json_schema()
    assert json.loads(json.dumps(schema)) == schema


@pytest.mark.parametrize(("name", "raw"), [pytest.param(*case, id=case[0]) for case in parsed_refusals()])
def test_what_the_validator_refuses_the_schema_refuses_if_it_can(name: str, raw: object) -> None:
    assert accepts(SCHEMA, raw) == (name in BEYOND_JSON_SCHEMA)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_accepts_every_kind_nested_and_not(kind: str) -> None:
    examples: dict[str, object] = {"value": 1, "values": [1, None], "probabilities": [0.5, 0.5], "min": 1, "max": 2}
    parameter = {key: examples[key] for key in KINDS[kind].model_fields if key in examples} | {"distribution": kind}
    parameters = {"a": parameter, "g": {"parameters": {"b": parameter}}}
    assert accepts(SCHEMA, {**HEAD, "parameters": parameters})
    assert accepts(SCHEMA, {**HEAD, "method": "grid", "parameters": parameters}) == KINDS[kind].countable


@pytest.mark.parametrize(
    "choices",
    [
        {"sgd": {"parameters": {"m": {"value": 1}}}, "adam": {}, "lbfgs": None},
        {"sgd": {"parameters": {}, "probability": None}, "adam": {"parameters": None}},
        [{"value": [1]}, {"value": None, "parameters": {"o": {"choices": {"x": {"parameters": {"y": {"value": 1}}}}}}}],
    ],
)
def test_the_schema_accepts_choices_in_both_forms_and_methods(choices: object) -> None:
    for method in ("random", "grid"):
        parameters = {"a": {"choices": choices}, "g": {"parameters": {"a": {"choices": choices}}}}
        config = {**HEAD, "method": method, "parameters": parameters}
        assert accepts(SCHEMA, config)
        parse_sweep(config)


def test_the_schema_takes_for_a_grid_only_what_can_be_counted_in_choices_too() -> None:
    normal = {"parameters": {"a": {"choices": {"x": {"parameters": {"n": {"distribution": "normal"}}}}}}}
    weighted = {"parameters": {"a": {"choices": {"x": {"probability": 1}}}}}
    for parameters in (normal, weighted):
        assert accepts(SCHEMA, {**HEAD, **parameters})
        assert not accepts(SCHEMA, {**HEAD, **parameters, "method": "grid"})


def test_the_schema_accepts_all_keys_at_once() -> None:
    config = {
        **HEAD,
        "method": "bayes",
        "parameters": {"a": {"min": 0.0, "max": 1.0}, "b": {"values": ["x"]}, "c": {"value": None}},
        "metric": {"name": "l", "goal": "maximize", "target": 0.5, "impute": "best", "impute_while_running": False},
        "early_terminate": {"type": "hyperband", "min_iter": 3, "eta": 2, "strict": True},
        "command": ["${env}", "python", 3, "${program}", "${args}"],
        "name": "n", "description": None, "entity": "e", "project": "p", "run_cap": 3, "seed": 1, "kind": "sweep",
        "apiVersion": "v1", "job": "j", "image_uri": "i", "controller": {"type": "cloud", "more": 1},
        "preemption": {"auto": None, "signal": "SIGUSR1", "grace": 0, "max_attempts_without_progress": 0},
        "retry": {"failed": 1, "crashed": 1}, "lease": {"duration": 10, "heartbeat": 1},
        "checkpoint": {"url": "s3://bucket/x", "dir": None, "keep": 3},
        "search": {"sampler": "tpe", "options": {"n_startup_trials": 5}},
    }  # fmt: skip
    assert accepts(SCHEMA, config)


def test_the_schema_accepts_several_goals_and_wandbs_scheduler() -> None:
    config: dict[str, object] = {
        **HEAD,
        "method": "custom",
        "parameters": {"a": {"min": 0.0, "max": 1.0}},
        "metrics": [{"name": "loss"}, {"name": "size", "goal": "maximize"}],
    }
    assert accepts(SCHEMA, {**config, "scheduler": {"engine": "optuna"}})
    for optimizer in ("nsga2", {"sampler": "nsga2", "options": {}}):
        assert accepts(SCHEMA, {**config, "scheduler": {"engine": "optuna", "optimizer": optimizer}})
    drawn = {key: value for key, value in config.items() if key != "parameters"}
    source: dict[str, object] = {"engine": "optuna", "source": "study.py", "optimizer": "make"}
    assert accepts(SCHEMA, {**config, "scheduler": source})
    assert accepts(SCHEMA, {**drawn, "scheduler": {**source, "search_space": "draw"}})
    assert not accepts(SCHEMA, {**drawn, "scheduler": source})
    assert not accepts(SCHEMA, config)
