"""Every command explains itself: help, examples, environment, exit codes; and starts without heavy imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from resweep_agent.exitcodes import ExitCode as AgentExitCode
from resweep_scheduler.cli.exitcodes import ExitCode, exit_code_of
from resweep_scheduler.cli.main import SECTIONS, cli, run
from resweep_scheduler.config import ConfigError
from resweep_scheduler.service.server import ServerError
from resweep_scheduler.store import errors


def all_commands(group: click.Group = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of each command, groups among them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield (*words, name)
        if isinstance(found, click.Group):
            yield from all_commands(found, (*words, name))


COMMANDS = list(all_commands())
PROMISED = """
    validate schema create start ls show runs run logs history best watch missing gantt pause resume stop cancel retry
    rm sync export scheduler slurm launch server doctor completion serve key
"""


def test_all_promised_commands_are_there() -> None:
    assert sorted(PROMISED.split()) == sorted(name for names in SECTIONS.values() for name in names)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_examples_that_name_it(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: resweep {' '.join(words)}" in text
    _, _, examples = text.partition("Examples:\n")
    assert f"resweep {' '.join(words)}" in examples


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_short_help_fits_on_one_line(words: tuple[str, ...]) -> None:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    assert "..." not in command.get_short_help_str(60)


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] not in ("server", "validate", "schema")])
def test_options_name_their_environment_variable(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    if words in {("completion",), ("key",)}:
        return
    run([*words, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for variable in ("RESWEEP_URL", "REDIS_URL", "WANDB_ENTITY", "WANDB_PROJECT"):
        assert variable in text


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for code in ExitCode:
        assert f"{int(code)} {code.meaning}" in text


def test_the_agent_uses_the_same_numbers() -> None:
    assert {int(code) for code in AgentExitCode} <= {int(code) for code in ExitCode}
    for name in ("OK", "UNEXPECTED", "USAGE", "REDIS_REFUSED", "COMMAND_NOT_FOUND", "FLAPPING", "PREEMPTED"):
        assert int(ExitCode[name]) == int(AgentExitCode[name])
    assert int(ExitCode.UNKNOWN) == int(AgentExitCode.UNKNOWN_SWEEP)
    assert int(ExitCode.REDIS_UNAVAILABLE) == int(AgentExitCode.REDIS_LOST)


def test_every_error_of_the_store_has_an_exit_code() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.StoreError)]
    for kind in kinds:
        if kind is not errors.StoreError:
            assert exit_code_of(kind("text")) is not None, kind
    assert exit_code_of(ConfigError([], "file")) is ExitCode.USAGE
    assert exit_code_of(ServerError("text")) is ExitCode.REDIS_UNAVAILABLE
    assert exit_code_of(KeyError("text")) is None


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_RESWEEP_COMPLETE" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("resweep 0.")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from resweep_scheduler.cli.main import run; run(['--help'])\n"
        "heavy = {'redis', 'pydantic', 'optuna', 'rq', 'rich', 'yaml', 'numpy', 'resweep'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_an_error_that_was_not_foreseen_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("resweep_scheduler.config.json_schema", fail)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        run(["schema"])
