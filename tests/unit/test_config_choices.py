"""Choices in the config: both forms, the types of keys, storage, and what a command makes of what a run lacks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from resweep_scheduler.config import ConfigError, SweepConfig, build_command, flatten, load_sweep, parse_sweep
from resweep_scheduler.config.parameters import Choices, leaves_of


def sweep(choices: object, **changes: object) -> SweepConfig:
    raw = {"method": "random", "program": "train.py", "parameters": {"o": {"choices": choices}}}
    return parse_sweep({**raw, **changes})


def choices_of(config: SweepConfig) -> Choices:
    found = config.parameters["o"]
    assert isinstance(found, Choices)
    return found


def values_of(config: SweepConfig) -> str:
    return repr([choice.value for choice in choices_of(config).choices])


SGD: dict[str, object] = {"momentum": {"min": 0.0, "max": 0.9}}


def test_a_mapping_and_a_list_say_the_same() -> None:
    mapping = sweep({"sgd": {"parameters": SGD}, "adam": {}, "lbfgs": None}, seed=1)
    listed = sweep(
        [{"value": "sgd", "parameters": SGD}, {"value": "adam"}, {"value": "lbfgs", "parameters": {}}], seed=1
    )
    assert mapping == listed
    assert [list(choice.parameters) for choice in choices_of(mapping).choices] == [["momentum"], [], []]


def test_keys_of_the_yaml_keep_their_type() -> None:
    text = """\
method: random
program: t
parameters:
  o:
    choices:
      1: {parameters: {a: {value: 1}}}
      "1":
      true: {}
      null: {parameters: {a: {value: 2}}}
      ~text:
      1e-3:
      2024-01-01:
"""
    with pytest.raises(ConfigError, match=r"s.yaml:8:7: .*it is the same as 1 in line 6 \(got \"true\"\)"):
        load_sweep("s.yaml", text=text)
    config = load_sweep("s.yaml", text=text.replace("true: {}", "false: {}"))
    assert values_of(config) == repr([1, "1", False, None, "~text", 0.001, "2024-01-01"])


def test_values_of_a_list_may_be_anything() -> None:
    values: list[object] = [1, True, "1", None, [1, {"a": 2}], {"b": []}, 0, False, ""]
    assert values_of(sweep([{"value": value} for value in values])) == repr(values)


@pytest.mark.parametrize("form", ["mapping", "list"])
def test_it_comes_back_from_storage(form: str) -> None:
    inner = {"s": {"choices": {True: {"parameters": {"x": {"value": [1]}}}, "n": None}}}
    choices: object = {None: {"parameters": inner, "probability": 0.25}, 2: {"probability": 0.75}}
    if form == "list":
        choices = [{"value": [1], "parameters": inner, "probability": 0.25}, {"value": {"k": 1}, "probability": 0.75}]
    config = sweep(choices)
    choices_of(config).chosen(None if form == "mapping" else [1.0])  # what is cached does not count
    stored = SweepConfig.from_json(config.to_json())
    assert stored == config
    assert stored.to_json() == config.to_json()


def test_the_values_by_themselves_are_a_categorical_parameter() -> None:
    plain = choices_of(sweep({"a": None, "b": None}))
    weighted = choices_of(sweep({"a": {"probability": 0.3}, "b": {"probability": 0.7}}))
    assert plain.categorical.model_dump() == {"distribution": "categorical", "values": ("a", "b")}
    assert weighted.categorical.model_dump() == {
        "distribution": "categorical_w_probabilities",
        "values": ("a", "b"),
        "probabilities": (0.3, 0.7),
    }


def test_a_choice_is_found_by_what_its_value_means() -> None:
    choices = choices_of(sweep([{"value": 3.0}, {"value": True}, {"value": {"a": 1, "b": 2}}, {"value": "3"}]))
    for index, value in enumerate((3, True, {"b": 2.0, "a": 1}, "3")):
        assert choices.chosen(value) is choices.choices[index]
    with pytest.raises(KeyError):
        choices.chosen(1)


def test_leaves_are_those_of_all_choices_and_flatten_gives_one_level() -> None:
    raw = {"g": {"parameters": {"o": {"choices": {"x": {"parameters": {"h": {"parameters": {"a": {"value": 1}}}}}}}}}}
    parameters = parse_sweep({"method": "random", "parameters": raw}).parameters
    assert list(flatten(parameters)) == [("g", "o")]
    assert [(leaf.path, leaf.parameter.distribution) for leaf in leaves_of(parameters)] == [
        (("g", "o"), "categorical"),
        (("g", "h", "a"), "constant"),
    ]


@pytest.mark.parametrize(
    ("choices", "rule"),
    [
        ({(1, 2): {}}, "a value that is a key must be text, a number, true, false or null"),
        ({float("nan"): {}}, "numbers must be finite"),
        ({"sgd": {"parameters": {1: {"value": 1}}}}, "keys must be text"),
        ({"sgd": {1: 1}}, "keys must be text"),
        ([{1: 1}], "keys must be text"),
    ],
)
def test_keys_that_cannot_be_values_are_refused(choices: object, rule: str) -> None:
    with pytest.raises(ConfigError) as refused:
        sweep(choices)
    assert rule in {fault.rule for fault in refused.value.faults}


def test_only_the_choices_of_a_parameter_may_have_keys_that_are_no_text() -> None:
    faulty: list[dict[str, object]] = [
        {"value": {"choices": {1: 2}}},
        {"values": [{"choices": {1: 2}}]},
        {"choices": {"a": {1: {}}}},
    ]
    for parameter in faulty:
        with pytest.raises(ConfigError, match="keys must be text"):
            parse_sweep({"method": "random", "parameters": {"a": parameter}})
    parse_sweep(
        {"method": "random", "parameters": {"choices": {"choices": {1: {"parameters": {"parameters": {"value": 1}}}}}}}
    )


def test_a_dict_is_told_the_places_as_it_was_written() -> None:
    clash = {"parameters": {"lr": {"value": 1}}}
    for choices, place in (({"x": clash}, "choices.x"), ([{"value": "x", **clash}], "choices[0]")):
        with pytest.raises(ConfigError) as refused:
            sweep(None, parameters={"lr": {"value": 2}, "o": {"choices": choices}})
        assert [fault.path for fault in refused.value.faults] == [f"parameters.o.{place}.parameters.lr"]


def test_exponents_in_choices_are_warned_of() -> None:
    config = sweep({"x": {"parameters": {"a": {"distribution": "log_uniform", "min": 0, "max": 1}}}})
    assert config.warnings == (
        "a uses log_uniform, whose min and max are exponents of e; log_uniform_values takes the limits themselves",
    )


def test_thousands_of_choices_with_a_common_name_are_checked_at_once() -> None:
    config = sweep({f"v{n}": {"parameters": {"lr": {"value": n}, f"p{n}": {"value": 1}}} for n in range(4000)})
    assert len(choices_of(config).choices) == 4000


COMMAND = ["run", "--o=${o}", "--momentum=${momentum}", "w=${momentum},${lr}", "--deep=${g.x}", "${lr}", "${args}"]
CHOICES: dict[str, object] = {
    "sgd": {"parameters": {**SGD, "lr": {"value": 1}, "g": {"parameters": {"x": {"value": 5}}}}},
    "adam": {"parameters": {"lr": {"value": 2}}},
}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (
            {"o": "sgd", "momentum": 0.5, "lr": 1, "g": {"x": 5}},
            [
                "--o=sgd",
                "--momentum=0.5",
                "w=0.5,1",
                "--deep=5",
                "1",
                "--o=sgd",
                "--momentum=0.5",
                "--lr=1",
                '--g={"x": 5}',
            ],
        ),
        ({"o": "adam", "lr": 2}, ["--o=adam", "2", "--o=adam", "--lr=2"]),
    ],
)
def test_an_argument_with_what_a_run_lacks_is_left_out(params: Mapping[str, object], expected: list[str]) -> None:
    config = sweep(CHOICES, command=COMMAND)
    assert build_command(config, params, environ={}, args_json_file=None) == ["run", *expected]


@pytest.mark.parametrize(
    ("macro", "words"),
    [
        ("${args}", ["--o=adam", "--lr=2"]),
        ("${args_no_equals}", ["--o", "adam", "--lr", "2"]),
        ("${args_no_hyphens}", ["o=adam", "lr=2"]),
        ("${args_no_boolean_flags}", ["--o=adam", "--lr=2"]),
        ("${args_append_hydra}", ["+o=adam", "+lr=2"]),
        ("${args_override_hydra}", ["++o=adam", "++lr=2"]),
        ("${args_json}", ['{"o": "adam", "lr": 2}']),
    ],
)
def test_macros_have_only_what_the_run_has(macro: str, words: list[str]) -> None:
    config = sweep(CHOICES, command=["run", macro])
    assert build_command(config, {"o": "adam", "lr": 2}, environ={}, args_json_file=None) == ["run", *words]


@pytest.mark.parametrize(
    "element", ["${momentum}", "--m ${momentum}", "x ${momentum}", "${momentum}=1", "a b=${momentum}"]
)
def test_an_argument_that_cannot_be_left_out_alone_is_refused(element: str) -> None:
    with pytest.raises(ConfigError, match=r"\$\{momentum\} is not in every run, so its element must be one argument"):
        sweep(CHOICES, command=["run", element])


def test_a_macro_of_the_same_name_is_the_macro() -> None:
    config = sweep({"a": {"parameters": {"program": {"value": 1}}}, "b": {}}, command=["${program}"])
    assert build_command(config, {"o": "b"}, environ={}, args_json_file=None) == ["train.py"]
    assert any("the macro, not the parameter" in warning for warning in config.warnings)


def test_the_json_file_has_only_what_the_run_has(tmp_path: Path) -> None:
    file = tmp_path / "args.json"
    config = sweep(CHOICES, command=["run", "${args_json_file}"])
    build_command(config, {"o": "adam", "lr": 2}, environ={}, args_json_file=file)
    assert file.read_text() == '{"o": "adam", "lr": 2}\n'
