"""What a config becomes: inference, defaults, YAML's own traps, storage as JSON."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resweep_scheduler.config import ConfigError, Hyperband, SweepConfig, flatten, load_sweep, parse_sweep
from resweep_scheduler.config.numbers import Lattice

ALL_KINDS: dict[str, dict[str, object]] = {
    "constant": {"value": None},
    "categorical": {"values": [1, "a", None, True, {"k": [1]}]},
    "categorical_w_probabilities": {"values": ["a", "b"], "probabilities": [0.25, 0.75]},
    "int_uniform": {"min": 1, "max": 9},
    "uniform": {"min": 0.5, "max": 1.5},
    "q_uniform": {"min": 0, "max": 1, "q": 0.25},
    "log_uniform": {"min": -3, "max": 1},
    "log_uniform_values": {"min": 1e-5, "max": 1},
    "q_log_uniform": {"min": 0, "max": 3},
    "q_log_uniform_values": {"min": 1, "max": 100, "q": 5},
    "inv_log_uniform": {"min": 0.5, "max": 2},
    "inv_log_uniform_values": {"min": 0.1, "max": 10},
    "normal": {},
    "q_normal": {"mu": 3},
    "log_normal": {"sigma": 0.5},
    "q_log_normal": {"q": 2},
    "beta": {"a": 2},
    "q_beta": {"q": 0.1},
}


def sweep(**changes: object) -> SweepConfig:
    return parse_sweep({"method": "random", "program": "train.py", "parameters": {"a": {"value": 1}}, **changes})


def dump(written: Mapping[str, object]) -> dict[str, object]:
    return sweep(parameters={"a": dict(written)}).model_dump()["parameters"]["a"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"value": 3}, {"distribution": "constant", "value": 3}),
        ({"value": None}, {"distribution": "constant", "value": None}),
        ({"values": [1, 1.0, True]}, {"distribution": "categorical", "values": (1, 1.0, True)}),
        ({"min": 0, "max": 3}, {"distribution": "int_uniform", "min": 0, "max": 3}),
        ({"min": 0.0, "max": 3.0}, {"distribution": "uniform", "min": 0.0, "max": 3.0}),
        ({"distribution": "uniform", "min": 0, "max": 3}, {"distribution": "uniform", "min": 0.0, "max": 3.0}),
        ({"distribution": "q_uniform", "min": 0, "max": 3}, {"min": 0.0, "max": 3.0, "q": 1.0}),
        ({"distribution": "q_uniform", "min": 0, "max": 3, "q": 2}, {"min": 0.0, "max": 3.0, "q": 2}),
        ({"distribution": "normal"}, {"distribution": "normal", "mu": 0.0, "sigma": 1.0}),
        ({"distribution": "q_log_normal"}, {"mu": 0.0, "sigma": 1.0, "q": 1.0}),
        ({"distribution": "beta"}, {"distribution": "beta", "a": 1.0, "b": 1.0}),
        ({"distribution": "q_beta"}, {"a": 1.0, "b": 1.0, "q": 1.0}),
        ({"values": ["x"], "probabilities": [1]}, {"distribution": "categorical_w_probabilities"}),
    ],
)
def test_the_kind_is_inferred_and_defaults_are_filled_in(
    written: dict[str, object], expected: dict[str, object]
) -> None:
    normalised = dump(written)
    kept = {key: normalised[key] for key in expected}
    assert repr(expected) == repr(kept)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_every_kind_can_be_named_and_comes_back_from_storage(kind: str) -> None:
    config = sweep(parameters={"g": {"parameters": {"a": {"distribution": kind, **ALL_KINDS[kind]}}}})
    stored = config.to_json()
    assert "\n" not in stored
    assert SweepConfig.from_json(stored) == config
    assert SweepConfig.from_json(stored).to_json() == stored


def test_all_defaults() -> None:
    normalised = sweep(seed=5).model_dump()
    del normalised["parameters"]
    assert normalised == {
        "method": "random",
        "metric": None,
        "metrics": (),
        "program": "train.py",
        "command": ("${env}", "${interpreter}", "${program}", "${args}"),
        "name": None,
        "description": None,
        "entity": None,
        "project": None,
        "run_cap": None,
        "early_terminate": None,
        "seed": 5,
        "preemption": {"auto": None, "signal": "SIGTERM", "grace": 30.0, "max_attempts_without_progress": 3},
        "retry": {"failed": 0, "crashed": 0},
        "lease": {"duration": 60.0, "heartbeat": 10.0},
        "checkpoint": {"dir": None, "url": None, "keep": 2},
        "search": None,
        "scheduler": None,
        "webhooks": (),
        "priors": (),
        "warnings": (),
    }


def test_sections_are_read() -> None:
    config = sweep(
        metric={"name": "loss", "goal": "maximize", "target": 1, "impute": "best", "impute_while_running": False},
        early_terminate={"type": "hyperband", "max_iter": 27, "s": 2.0},
        preemption={"auto": True, "signal": "SIGUSR1", "grace": 5},
        retry={"failed": 2},
        checkpoint={"dir": "/ckpt", "keep": 3},
        run_cap=10.0,
    )
    assert config.metric is not None
    assert config.metric.model_dump() == {
        "name": "loss",
        "goal": "maximize",
        "target": 1.0,
        "impute": "best",
        "impute_while_running": "false",
    }
    assert isinstance(config.early_terminate, Hyperband)
    assert (config.early_terminate.s, config.early_terminate.eta, config.early_terminate.strict) == (2, 3.0, False)
    assert (config.preemption.auto, config.preemption.signal, config.preemption.grace) == (True, "SIGUSR1", 5.0)
    assert (config.retry.failed, config.retry.crashed) == (2, 0)
    assert (config.checkpoint.dir, config.checkpoint.url, config.checkpoint.keep) == ("/ckpt", None, 3)
    assert config.run_cap == 10
    assert config.warnings == ()


@pytest.mark.parametrize(
    "url",
    ["s3://bucket", "s3://bucket/a@b/c", "gs://b/x", "az://box/x", "file:///shared/x", "memory://", "memory://name"],
)
def test_checkpoints_may_go_to_an_object_store(url: str) -> None:
    assert sweep(checkpoint={"url": url}).checkpoint.url == url


def test_a_short_lease_brings_its_own_heartbeat() -> None:
    assert sweep(lease={"duration": 12}).lease.heartbeat == 2.0
    assert sweep(lease={"duration": 600}).lease.heartbeat == 10.0
    assert sweep(lease={"duration": 30, "heartbeat": 10}).lease.heartbeat == 10.0


def test_a_seed_is_drawn_once_and_kept() -> None:
    configs = [sweep() for _ in range(8)]
    assert len({config.seed for config in configs}) > 1
    assert SweepConfig.from_json(configs[0].to_json()).seed == configs[0].seed
    assert sweep(seed=0).seed == 0


def test_nested_parameters_keep_their_nesting() -> None:
    config = sweep(
        parameters={
            "m": {"parameters": {"o": {"parameters": {"lr": {"value": 1}}}, "d": {"value": 2}}},
            "x.y": {"value": 3},
        }
    )
    assert list(flatten(config.parameters)) == [("m", "o", "lr"), ("m", "d"), ("x.y",)]


def test_yaml_numbers_follow_yaml_1_2() -> None:
    text = """\
method: random
program: train.py
parameters:
  a: {values: [1e-4, 1E5, -2.5e3, .5, 1., 0x10, 1_000, 2026-11-22, 1e, 12:30:45.5, !!float 3]}
"""
    values = load_sweep("s.yaml", text=text).model_dump()["parameters"]["a"]["values"]
    expected = (0.0001, 100000.0, -2500.0, 0.5, 1.0, 16, 1000, "2026-11-22", "1e", "12:30:45.5", 3.0)
    assert repr(expected) == repr(values)


def test_yaml_anchors_and_merges_work() -> None:
    text = """\
method: random
program: train.py
parameters:
  a: &base {distribution: normal, mu: 1}
  b: *base
  c:
    <<: *base
    mu: 2
"""
    parameters = load_sweep("s.yaml", text=text).model_dump()["parameters"]
    assert [parameters[name]["mu"] for name in "abc"] == [1.0, 1.0, 2.0]


def test_faults_in_merged_keys_point_at_the_place_where_they_are_written() -> None:
    text = """\
method: random
program: train.py
parameters:
  a: &base {distribution: normal, sigma: -1}
  c:
    <<: *base
"""
    with pytest.raises(ConfigError) as refused:
        load_sweep("s.yaml", text=text)
    assert [(fault.path, fault.line) for fault in refused.value.faults] == [
        ("parameters.a.sigma", 4),
        ("parameters.c.sigma", 4),
    ]


def test_empty_plain_keys_count_as_not_given() -> None:
    text = "method: random\nprogram: x\nname:\nrun_cap: ~\nparameters: {a: {value: 1}}\n"
    config = load_sweep("s.yaml", text=text)
    assert (config.name, config.run_cap) == (None, None)


def test_a_byte_order_mark_is_no_fault() -> None:
    assert load_sweep("s.yaml", text="\ufeffmethod: random\nprogram: x\nparameters: {a: {value: 1}}\n").program == "x"


def test_only_a_dict_may_leave_out_what_is_run() -> None:
    raw = {"method": "random", "parameters": {"a": {"value": 1}}}
    assert parse_sweep(raw).program is None
    with pytest.raises(ConfigError, match="needs something to run"):
        parse_sweep(raw, require_program=True)
    text = "method: random\ncommand: [./run.sh, '${args}']\nparameters: {a: {value: 1}}\n"
    assert load_sweep("s.yaml", text=text).command == ("./run.sh", "${args}")


def test_a_dict_is_not_changed_and_may_hold_numpy_and_tuples() -> None:
    class Optimiser(enum.StrEnum):
        SGD = "sgd"

    raw = {
        "method": "random",
        "parameters": {"a": {"values": np.array([1, 2])}, "b": {"values": (Optimiser.SGD, np.float64(1))}},
    }
    kept = repr(raw)
    parameters = parse_sweep(raw).model_dump()["parameters"]
    assert repr(raw) == kept
    assert repr((1, 2)) == repr(parameters["a"]["values"])
    assert repr(("sgd", 1.0)) == repr(parameters["b"]["values"])


def test_what_has_no_effect_is_a_warning() -> None:
    config = sweep(
        method="grid",
        command=["python", "x.py", "${args_json}"],
        parameters={"a": {"values": [3, 3.0]}, "args_json": {"value": 1}},
        job="j",
        image_uri="i",
        controller={"type": "local"},
        kind="sweep",
        apiVersion="v1",
    )
    assert config.warnings == (
        "job belongs to W&B Launch and is ignored",
        "image_uri belongs to W&B Launch and is ignored",
        "controller is ignored: resweep's agents own the sweep together",
        "a has equal values; the grid runs each of them once",
        "${args_json} in command is the macro, not the parameter of the same name",
        "program is not used, because command does not contain ${program}",
    )
    (warning,) = sweep(parameters={"lr": {"distribution": "log_uniform", "min": -3, "max": 0}}).warnings
    assert warning == (
        "lr uses log_uniform, whose min and max are exponents of e; log_uniform_values takes the limits themselves"
    )


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"method":"random"}', '{"method":"random","parameters":{},"seed":1,"new":2}']
)
def test_a_stored_config_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"stored sweep config: .*Create the sweep again"):
        SweepConfig.from_json(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(JSON, min_size=1, max_size=5), st.integers(0, 2**63 - 1), st.text(min_size=1))
def test_any_json_value_survives_storage(values: list[object], seed: int, program: str) -> None:
    config = sweep(parameters={"a": {"values": values}}, seed=seed, program=program)
    back = SweepConfig.from_json(config.to_json())
    assert repr(back) == repr(config)


@given(st.integers(-1000, 1000), st.integers(1, 1000), st.integers(1, 50))
def test_a_lattice_is_decimal_and_inside_its_bounds(low: int, width: int, step: int) -> None:
    lattice = Lattice(step / 100, low / 100, (low + width) / 100)
    expected = [n / 100 for n in range(low, low + width + 1) if n % step == 0]
    if lattice.empty:
        assert expected == []
    else:
        assert lattice.first is not None
        assert lattice.last is not None
        assert expected == [lattice.value(n) for n in range(lattice.first, lattice.last + 1)]
