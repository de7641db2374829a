"""What the config refuses, word by word, and how the report as a whole is made."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from resweep_scheduler.config import ConfigError, Fault, load_sweep, parse_sweep


def refusals() -> Iterator[tuple[str, str, str]]:
    """Name, YAML and expected report of each block of the text file beside this one."""
    for block in Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").split("\n##### ")[1:]:
        name, _, rest = block.partition("\n")
        text, _, expected = rest.partition("\n-----\n")
        yield name, text, expected.strip()


@pytest.mark.parametrize(("text", "expected"), [pytest.param(*case[1:], id=case[0]) for case in refusals()])
def test_a_config_that_cannot_run_is_refused_with_rule_value_and_cure(text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_sweep("s.yaml", text=text)
    assert expected.splitlines() == str(refused.value).splitlines()


def test_every_refusal_is_one_line_that_names_the_value_and_ends_with_a_cure() -> None:
    messages = [line for _, _, expected in refusals() for line in expected.splitlines()]
    assert len(messages) > 100
    for message in messages:
        rule, got, rest = message.partition(" (got ")
        assert rule.startswith("s.yaml")
        assert got
        assert rest.rpartition("). ")[2].endswith((".", "?")), message


def test_all_faults_come_in_one_report_in_the_order_of_the_file() -> None:
    text = """\
early_terminate: {type: hyperband}
method: bayes
parameters:
  b: {min: 3, max: 1}
  a:
    parameters:
      x: {distribution: q_uniform, min: 0.0, max: 1.0, q: -1}
nmae: x
run_cap: -1
"""
    with pytest.raises(ConfigError) as refused:
        load_sweep("s.yaml", text=text)
    faults = refused.value.faults
    assert [(fault.line, fault.path) for fault in faults] == [
        (1, "metric"),
        (1, "program"),
        (1, "early_terminate"),
        (4, "parameters.b.min"),
        (7, "parameters.a.parameters.x.q"),
        (8, "nmae"),
        (9, "run_cap"),
    ]
    assert faults[3] == Fault(
        path="parameters.b.min",
        line=4,
        column=12,
        rule="must be less than max, and 3 is not less than 1",
        value=3,
        cure="Exchange the two, or use value: for a single value.",
    )


def test_faults_of_a_dict_have_paths_and_no_positions() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_sweep({"method": "grid", "parameters": {"lr": {"min": 0.0, "max": 1.0}}, "nmae": "x"})
    assert [(fault.path, fault.line, fault.column) for fault in refused.value.faults] == [
        ("nmae", None, None),
        ("parameters.lr", None, None),
    ]
    assert str(refused.value).startswith('sweep config: nmae: is not a key of a sweep config (got "nmae"). Did you')


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (float("nan"), "numbers must be finite"),
        ({1, 2}, "values must be text, numbers, booleans, null, lists or mappings"),
        (datetime.date(2026, 1, 1), "values must be text, numbers, booleans, null, lists or mappings"),
        ({1: "a"}, "keys must be text"),
        pytest.param(10**5000, "integers must have at most 3,000 digits", id="huge integer"),
        (b"x", "values must be text, numbers, booleans, null, lists or mappings"),
    ],
)
def test_values_without_a_json_form_are_refused_wherever_they_are(value: object, rule: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_sweep({"method": "random", "parameters": {"a": {"values": [1, {"deep": [value]}]}}})
    (fault,) = refused.value.faults
    assert fault.rule == rule
    assert fault.path.startswith("parameters.a.values[1].deep[0]")


def test_a_dict_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="must not be nested deeper than 100 levels"):
        parse_sweep({"method": "random", "parameters": {"a": {"value": loop}}})


def test_anchors_that_blow_up_are_refused_without_unfolding_them() -> None:
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    with pytest.raises(ConfigError, match="anchors must not repeat themselves or unfold"):
        load_sweep("s.yaml", text="\n".join(levels))


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, expected in [
        (tmp_path / "none.yaml", 'the sweep file must be readable (got "No such file or directory"). Check the name'),
        (tmp_path, 'the sweep file must be readable (got "Is a directory"). Check its rights'),
        (binary, 'the sweep file must be UTF-8 text (got "byte 0"). Save it as UTF-8.'),
    ]:
        with pytest.raises(ConfigError) as refused:
            load_sweep(path)
        assert str(refused.value).startswith(f"{path}: {expected}")


def test_control_characters_are_refused_with_their_code() -> None:
    with pytest.raises(ConfigError, match='printable Unicode \\(got "character #x0001"\\)'):
        load_sweep("s.yaml", text="method: \x01")


def test_long_values_are_cut_in_messages() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_sweep({"method": "x" * 1000, "parameters": {"a": {"value": 1}}})
    assert len(str(refused.value)) < 250


def test_names_cannot_break_the_line_or_speak_to_the_terminal() -> None:
    with pytest.raises(ConfigError) as refused:
        parse_sweep({"method": "random", "parameters": {"a\nb\x1b[31m\u2028\ud800": {"value": 1}}})
    assert str(refused.value).startswith(r"sweep config: parameters.a\nb\x1b[31m\u2028\ud800: a parameter's name must")


def test_faults_survive_as_data() -> None:
    with pytest.raises(ConfigError) as refused:
        load_sweep("s.yaml", text="method: grid\nprogram: x\nparameters: {a: {values: []}}\n")
    assert refused.value.source == "s.yaml"
    assert json.dumps([fault.value for fault in refused.value.faults]) == "[[]]"
