"""Whatever is written, the answer is a config that works or a report of faults; never another exception."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from resweep_scheduler.config import ConfigError, Fault, SweepConfig, build_command, load_sweep, parse_sweep
from resweep_scheduler.search import PastRun, create_search

WHOLE: dict[str, Any] = {
    "method": "bayes",
    "program": "train.py",
    "parameters": {
        "constant": {"value": 1},
        "categorical": {"values": [1, "a", None]},
        "weighted": {"values": ["a", "b"], "probabilities": [0.25, 0.75]},
        "integer": {"min": 1, "max": 9},
        "float": {"min": 0.5, "max": 1.5},
        "quantised": {"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25},
        "log": {"distribution": "log_uniform", "min": -3, "max": 1},
        "log_values": {"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 5},
        "inverse": {"distribution": "inv_log_uniform", "min": 0.5, "max": 2},
        "chosen": {
            "choices": {
                "a": {"parameters": {"of_a": {"min": 0.0, "max": 1.0}, "of_both": {"value": 1}}, "probability": 0.5},
                "b": {"parameters": {"of_both": {"values": [1, 2]}}, "probability": 0.25},
                "c": {"parameters": None, "probability": 0.25},
            }
        },
        "listed": {
            "choices": [
                {
                    "value": [1],
                    "parameters": {"deep": {"choices": {"x": {"parameters": {"y": {"value": 1}}}, 1: None}}},
                },
                {"value": None},
            ]
        },
        "group": {
            "parameters": {
                "normal": {"distribution": "q_normal", "mu": 3, "sigma": 1, "q": 1},
                "log_normal": {"distribution": "log_normal", "mu": 0, "sigma": 0.5},
                "beta": {"distribution": "q_beta", "a": 2, "b": 1, "q": 0.5},
            }
        },
    },
    "metric": {"name": "loss", "goal": "minimize", "target": 0.1, "impute": "worst", "impute_while_running": "false"},
    "early_terminate": {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3, "strict": False},
    "command": ["${env}", "python", "${program}", "--x=${float}", "--y=${of_a}${y}", "${group.beta}", "${args}"],
    "name": "n",
    "run_cap": 3,
    "seed": 5,
    "preemption": {"auto": True, "signal": "SIGTERM", "grace": 3, "max_attempts_without_progress": 1},
    "retry": {"failed": 1, "crashed": 1},
    "lease": {"duration": 30, "heartbeat": 5},
    "checkpoint": {"dir": "x"},
    "search": {"sampler": "tpe", "options": {"n_startup_trials": 2}},
}
ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1, 2.5, 1e308, -1e308, 5e-324, float("nan"), float("inf"), 10**400),
        *("", "a", "grid", "random", "${args}", "${x}", "${", "$${", "uniform", "q_uniform", "normal"),
        *([], {}, [[]], {"a": 1}, {"values": []}, {1: 2}),
    ]
)
VALUES = ODD | st.floats() | st.integers() | st.text(max_size=5) | st.lists(ODD, max_size=3)


def _places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    inner: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    return [path] * bool(path) + [place for key, part in inner for place in _places(part, (*path, key))]


PLACES = _places(WHOLE)


def _mutate(draw: st.DataObject) -> dict[str, Any]:
    """The whole config with up to three values, keys or entries replaced, added or removed."""
    config = copy.deepcopy(WHOLE)
    for _ in range(draw.draw(st.integers(1, 3))):
        *above, last = draw.draw(st.sampled_from(PLACES))
        holder: Any = config
        try:
            for part in above:
                holder = holder[part]
            how = draw.draw(st.sampled_from(["replace", "remove", "add"]))
            if how == "replace":
                holder[last] = copy.deepcopy(draw.draw(VALUES))
            elif how == "remove":
                del holder[last]
            elif isinstance(holder, dict):
                holder[draw.draw(st.text(max_size=8))] = copy.deepcopy(draw.draw(VALUES))
        except (KeyError, IndexError, TypeError):
            continue
    return config


def _check_that_it_works(config: SweepConfig) -> None:
    assert SweepConfig.from_json(config.to_json()).to_json() == config.to_json()
    search = create_search(config)
    points = search.suggest(first_index=0, count=2)
    runs = [PastRun(index, point, "finished", float(index)) for index, point in enumerate(points)]
    for point in points + search.suggest(first_index=2, count=2, runs=runs):
        if config.program is not None and "\0" not in "".join(config.command):
            argv = build_command(config, point, environ={"PATH": ""}, args_json_file=None)
            assert all(isinstance(word, str) for word in argv)


def _faults_of(read: Callable[[], SweepConfig]) -> tuple[Fault, ...]:
    try:
        _check_that_it_works(read())
    except ConfigError as error:
        return error.faults
    return ()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_config_is_reported_in_lines_or_works(data: st.DataObject) -> None:
    raw = _mutate(data)
    assert all("\n" not in str(fault) for fault in _faults_of(lambda: parse_sweep(raw)))


@settings(deadline=None)
@given(st.data())
def test_text_and_dict_are_judged_alike(data: st.DataObject) -> None:
    raw = _mutate(data)
    text = yaml.safe_dump(raw)
    of_text = _faults_of(lambda: load_sweep("s.yaml", text=text, require_program=False))
    assert bool(of_text) == bool(_faults_of(lambda: parse_sweep(raw)))
    assert all(fault.line is not None for fault in of_text)


@settings(deadline=None)
@given(
    st.text(alphabet=st.sampled_from("methodparas: {}[]\"'\n\t-&*!|>?,#%@`0123.e<="), max_size=60)
    | st.text(max_size=30)
)
def test_any_text_is_reported(text: str) -> None:
    assert _faults_of(lambda: load_sweep("s.yaml", text=text))


def test_the_whole_config_works() -> None:
    _check_that_it_works(parse_sweep(WHOLE))
