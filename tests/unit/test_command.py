"""The command line of a run, macro by macro."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from resweep_scheduler.config import CommandError, SweepConfig, build_command, needs_args_json_file, parse_sweep

PARAMS: dict[str, object] = {
    "lr": 0.1,
    "flag": True,
    "off": False,
    "none": None,
    "text": "a b'c",
    "list": [1, "x"],
    "model": {"depth": 2, "opt": {"name": "sgd"}},
    "x.y": 1e-05,
}


def sweep(*command: object) -> SweepConfig:
    groups = {"depth": {"value": 2}, "opt": {"parameters": {"name": {"value": "sgd"}}}}
    parameters: dict[str, object] = {name: {"value": value} for name, value in PARAMS.items()}
    parameters["model"] = {"parameters": groups}
    raw: dict[str, object] = {"method": "random", "program": "train.py", "parameters": parameters}
    return parse_sweep({**raw, "command": list(command)} if command else raw)


def build(*command: object, environ: dict[str, str] | None = None, json_file: Path | None = None) -> list[str]:
    config = sweep(*command)
    return build_command(config, PARAMS, environ=environ or {}, args_json_file=json_file, interpreter="py")


ARGS = ["--lr=0.1", "--flag=True", "--off=False", "--none=None", "--text=a b'c", '--list=[1, "x"]']
MODEL = '{"depth": 2, "opt": {"name": "sgd"}}'


@pytest.mark.parametrize(
    ("macro", "expected"),
    [
        ("${args}", [*ARGS, f"--model={MODEL}", "--x.y=1e-05"]),
        ("${args_no_hyphens}", [*(arg[2:] for arg in ARGS), f"model={MODEL}", "x.y=1e-05"]),
        (
            "${args_no_boolean_flags}",
            ["--lr=0.1", "--flag", "--none=None", "--text=a b'c", '--list=[1, "x"]', f"--model={MODEL}", "--x.y=1e-05"],
        ),
        ("${args_append_hydra}", [*(f"+{arg[2:]}" for arg in ARGS), f"+model={MODEL}", "+x.y=1e-05"]),
        ("${args_override_hydra}", [*(f"++{arg[2:]}" for arg in ARGS), f"++model={MODEL}", "++x.y=1e-05"]),
        ("${args_json}", [json.dumps(PARAMS)]),
        ("${env}", ["/usr/bin/env"]),
        ("${interpreter}", ["py"]),
        ("${program}", ["train.py"]),
        ("${lr}", ["0.1"]),
        ("--lr=${lr},${flag}", ["--lr=0.1,True"]),
        ("${model}", [MODEL]),
        ("${model.depth}-${model.opt.name}", ["2-sgd"]),
        ("${model.opt}", ['{"name": "sgd"}']),
        ("${x.y}", ["1e-05"]),
        ("--config=${args_json}", [f"--config={json.dumps(PARAMS)}"]),
        ("${envvar:DATA}/x:${envvar:DATA}", ["/data/x:/data"]),
        ("echo $${lr} $lr {lr} $$", ["echo ${lr} $lr {lr} $$"]),
        (3, ["3"]),
    ],
)
def test_macro(macro: object, expected: list[str]) -> None:
    assert ["run", *expected] == build("run", macro, environ={"DATA": "/data"})


def test_args_no_equals_gives_name_and_value_as_two_arguments() -> None:
    words = build("run", "${args_no_equals}")
    assert words[:5] == ["run", "--lr", "0.1", "--flag", "True"]
    assert len(words) == 1 + 2 * len(PARAMS)


def test_the_default_command_is_that_of_wandb() -> None:
    assert build()[:4] == ["/usr/bin/env", "py", "train.py", "--lr=0.1"]


def test_values_are_never_expanded_again() -> None:
    config = parse_sweep({"method": "random", "program": "t", "parameters": {"a": {"value": "${program}"}}})
    argv = build_command(config, {"a": "${envvar:HOME}"}, environ={}, args_json_file=None)
    assert argv[-1] == "--a=${envvar:HOME}"


def test_args_json_file_is_written_and_passed(tmp_path: Path) -> None:
    path = tmp_path / "args.json"
    assert build("run", "${args_json_file}", "--c=${args_json_file}", json_file=path) == [
        "run",
        str(path),
        f"--c={path}",
    ]
    assert json.loads(path.read_text(encoding="utf-8")) == PARAMS


def test_only_commands_that_use_it_need_an_args_json_file() -> None:
    assert needs_args_json_file(sweep("run", "--c=${args_json_file}"))
    assert not needs_args_json_file(sweep("run", "$${args_json_file}", "${args_json}"))
    with pytest.raises(CommandError, match=r"\$\{args_json_file\} needs a path"):
        build("run", "${args_json_file}")


def test_an_unset_environment_variable_is_named() -> None:
    with pytest.raises(CommandError, match=r"needs the environment variable DATA \(got nothing\). Set DATA"):
        build("run", "${envvar:DATA}", environ={"OTHER": "1"})


def test_an_empty_environment_variable_is_set() -> None:
    assert build("run", "-${envvar:DATA}", environ={"DATA": ""}) == ["run", "-"]


def test_a_run_without_the_parameter_is_refused() -> None:
    with pytest.raises(CommandError, match=r"\$\{lr\} in command must be a parameter of the run \(got other\)"):
        build_command(sweep("run", "${lr}"), {"other": 1}, environ={}, args_json_file=None)


def test_a_sweep_of_functions_has_no_command() -> None:
    config = parse_sweep({"method": "random", "parameters": {"a": {"value": 1}}})
    with pytest.raises(CommandError, match=r"\$\{program\} needs the key program"):
        build_command(config, {"a": 1}, environ={}, args_json_file=None)


def test_the_interpreter_is_python_if_there_is_one(tmp_path: Path) -> None:
    config = sweep("${interpreter}", "${program}")
    none = build_command(config, PARAMS, environ={"PATH": str(tmp_path)}, args_json_file=None)
    assert none == [sys.executable, "train.py"]
    (tmp_path / "python").symlink_to(sys.executable)
    found = build_command(config, PARAMS, environ={"PATH": str(tmp_path)}, args_json_file=None)
    assert found == ["python", "train.py"]


def test_arguments_reach_a_real_process_unchanged() -> None:
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    argv = build_command(
        sweep("${interpreter}", "-c", code, "${args}"),
        PARAMS,
        environ={},
        args_json_file=None,
        interpreter=sys.executable,
    )
    answer = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(answer.stdout) == [*ARGS, f"--model={MODEL}", "--x.y=1e-05"]
