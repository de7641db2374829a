"""W&B's scheduler with a source: what is kept of it, and which functions a file has."""

from __future__ import annotations

from pathlib import Path

import pytest

from resweep_scheduler.config import ConfigError, SweepConfig, build_command, parse_sweep
from resweep_scheduler.config.functions import check_source, functions_in
from resweep_scheduler.config.sections import Source

CUSTOM: dict[str, object] = {"method": "custom", "metric": {"name": "loss"}}
PARAMETERS = {"x": {"min": 0.0, "max": 1.0}}


def sweep(*, optimizer: str | None = None, search_space: str | None = None, **keys: object) -> SweepConfig:
    scheduler = {"engine": "optuna", "source": "code/study.py", "optimizer": optimizer, "search_space": search_space}
    return parse_sweep({**CUSTOM, "scheduler": scheduler, **keys})


def test_the_block_is_kept_in_wandbs_words_through_redis() -> None:
    config = sweep(optimizer="make", parameters=PARAMETERS)
    assert config.method == "bayes"
    assert config.search is None
    assert config.scheduler == Source(source="code/study.py", optimizer="make")
    assert config.scheduler is not None
    assert config.scheduler.model_dump() == {
        "engine": "optuna", "source": "code/study.py", "optimizer": "make", "search_space": None,
    }  # fmt: skip
    assert config.scheduler.file == "study.py"
    assert Source(source="$(touch x)/study.py", optimizer="make").option == "--source '$(touch x)/study.py'"
    assert SweepConfig.from_json(config.to_json()) == config


def test_drawn_parameters_need_not_stand_in_the_config() -> None:
    assert sweep(search_space="draw").parameters == {}
    config = sweep(search_space="draw", parameters={"a": {"min": 3, "max": 1}})
    assert config.parameters == {}
    assert config.warnings == ("parameters is not used, because scheduler.search_space draws them",)


def test_early_termination_goes_with_a_source() -> None:
    rule = {"type": "optuna", "pruner": "median"}
    assert sweep(search_space="draw", early_terminate=rule).early_terminate is not None


def test_a_command_may_name_what_some_runs_draw() -> None:
    config = sweep(search_space="draw", command=["train", "--x=${x}", "--m=${g.m}", "--h=${envvar:HOME}", "${args}"])
    build = {"environ": {"HOME": "/h"}, "args_json_file": None}
    assert build_command(config, {"x": 1}, **build) == ["train", "--x=1", "--h=/h", "--x=1"]  # type: ignore[arg-type]
    words = build_command(config, {"x": 1, "g": {"m": 2}}, **build)  # type: ignore[arg-type]
    assert words == ["train", "--x=1", "--m=2", "--h=/h", "--x=1", '--g={"m": 2}']


def test_functions_are_those_that_the_file_itself_defines(tmp_path: Path) -> None:
    file = tmp_path / "study.py"
    file.write_text(
        "from os import system\nimport optuna\nlater = system\nasync def waits(trial): ...\n"
        "@optuna.anything\ndef draw(trial):\n    def inner(trial): ...\nclass Make:\n    def method(self): ...\n"
        "def make(sweep): raise SystemExit\nraise SystemExit\n"
    )
    assert functions_in(file) == ("draw", "make")


def test_a_file_that_is_here_is_checked_without_executing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = Source(source="code/study.py", optimizer="make", search_space="draw")
    assert check_source(source, "s.yaml") == (
        f"code/study.py is not in {tmp_path}: whether it has make and draw is not known"
    )
    file = tmp_path / "code" / "study.py"
    file.parent.mkdir()
    file.write_text("def drow(trial): ...\nraise SystemExit\n")
    with pytest.raises(ConfigError) as refused:
        check_source(source, "s.yaml")
    assert str(refused.value).splitlines() == [
        "s.yaml: scheduler.optimizer: must be a function that code/study.py defines at its top level "
        '(got "make"). Add for instance: def make(sweep): …',
        "s.yaml: scheduler.search_space: must be a function that code/study.py defines at its top level "
        "(got \"draw\"). Did you mean 'drow'?",
    ]
    file.write_text("def make(sweep): ...\ndef draw(trial): ...\n")
    assert check_source(source, "s.yaml") is None
    file.write_bytes(b"def make(sweep): '\xff'\n")
    with pytest.raises(ConfigError, match=r"code/study.py must be a Python file"):
        check_source(source, "s.yaml")
