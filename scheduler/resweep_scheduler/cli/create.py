"""`validate`, `schema`, `create`: from a YAML to a sweep in Redis."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import (
    Settings,
    command,
    error_line,
    json_option,
    store_options,
    warning_line,
)

if TYPE_CHECKING:
    from resweep_scheduler.config import SweepConfig
    from resweep_scheduler.config.sections import Source
    from resweep_scheduler.store import Store

STANDARD_INPUT = "-"


@command("validate", "resweep validate sweep.yaml", "resweep validate configs/*.yaml")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@json_option
def validate_command(files: tuple[str, ...], as_json: bool) -> None:
    """Check sweep configs.

    Tells every fault in one go, each with its place, the rule, the value and a cure.
    """
    from resweep_scheduler.cli.access import planned_runs
    from resweep_scheduler.cli.objects import to_json
    from resweep_scheduler.config import ConfigError

    results: list[dict[str, object]] = []
    for file in files:
        try:
            config, _ = load_config(file)
        except ConfigError as error:
            faults = [
                {
                    "path": fault.path,
                    "line": fault.line,
                    "column": fault.column,
                    "rule": fault.rule,
                    "value": fault.value,
                    "cure": fault.cure,
                }
                for fault in error.faults
            ]
            results.append({"file": file, "valid": False, "faults": faults})
            for line in [] if as_json else str(error).splitlines():
                error_line(line)
            continue
        planned = planned_runs(config)
        results.append({"file": file, "valid": True, "planned": planned, "warnings": config.warnings})
        for warning in config.warnings:
            warning_line(f"{file}: {warning}")
        if not as_json:
            runs = "endless (no run_cap)" if planned is None else f"{planned} runs"
            number = "drawn" if config.open_names else len(config.parameters)
            click.echo(f"{file}: ok, {config.method}, {number} parameters, {runs}")
    if as_json:
        click.echo(to_json(results))
    if not all(result["valid"] for result in results):
        raise click.exceptions.Exit(ExitCode.USAGE)


@command("schema", "resweep schema > sweep.schema.json   # then in the YAML: # yaml-language-server: $schema=…")
def schema_command() -> None:
    """Print the JSON schema of the config, for editors."""
    from resweep_scheduler.cli.objects import to_json
    from resweep_scheduler.config import json_schema

    click.echo(to_json(json_schema()))


@command(
    "create",
    "resweep create sweep.yaml",
    "resweep create sweep.yaml --project digits --name 'first try'",
    "sweep-agent $(resweep create -q sweep.yaml)",
    "sed s/SEED/7/ sweep.yaml | resweep create -",
    "resweep create sweep.yaml --warm-start EARLIER_SWEEP --prior-run RUN",
)
@click.option("-q", "--quiet", is_flag=True, help="Print the id of the sweep, nothing else.")
@click.option("--id", "sweep_id", metavar="ID", help="Id of the sweep; without it, a new one.")
@click.option("--name", metavar="NAME", help="Name of the sweep, in place of the config's `name`.")
@click.option("--program", metavar="PROGRAM", help="Script that is run, in place of the config's `program`.")
@click.option(
    "-R",
    "--prior-run",
    "--prior_run",
    "prior_runs",
    multiple=True,
    metavar="RUN",
    help="The search learns from this run, too; may be repeated.",
)
@click.option(
    "--warm-start",
    "warm_start",
    multiple=True,
    metavar="SWEEP",
    help="The search learns from all runs of this sweep, too; may be repeated.",
)
@click.argument("file", metavar="FILE")
@store_options
def create_command(
    settings: Settings,
    *,
    file: str,
    quiet: bool,
    sweep_id: str | None,
    name: str | None,
    program: str | None,
    prior_runs: tuple[str, ...],
    warm_start: tuple[str, ...],
) -> None:
    """Create a sweep from a YAML file.

    FILE may be - for standard input. Agents on any machine can run the sweep then. Runs of before (--prior-run,
    --warm-start) are read now and kept with the sweep; those whose parameters do not fit are left out, and named.
    """
    config, text = load_config(file, name=name, program=program)
    if prior_runs or warm_start:
        config = _with_priors(settings, config, prior_runs, warm_start)
    missing = missing_program(config, file)
    store, created = create_from(settings, config, text, sweep_id=sweep_id)
    if quiet:
        click.echo(created)
    else:
        click.echo(f"Creating sweep from: {file}")
        click.echo(f"Created sweep with ID: {created}")
        click.echo(f"Run agents with: {agent_command(settings, store, created)}")
        if config.scheduler is not None:
            click.echo(f"Run the search with: {scheduler_command(settings, config.scheduler)}")
    if config.priors and not quiet:
        click.echo(f"Prior runs: {len(config.priors)}")
    for warning in config.warnings:
        warning_line(warning)
    if missing:
        warning_line(f"{missing}. Agents elsewhere may find it")


def _with_priors(
    settings: Settings, config: SweepConfig, runs: tuple[str, ...], sweeps: tuple[str, ...]
) -> SweepConfig:
    from resweep_scheduler.cli.access import store_url
    from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, Scope
    from resweep_scheduler.warm_start import add_priors

    entity, project = _place(settings, config)
    scope = Scope(entity or DEFAULT_ENTITY, project or DEFAULT_PROJECT)
    return add_priors(store_url(settings), config, scope, runs=runs, sweeps=sweeps)


def _place(settings: Settings, config: SweepConfig) -> tuple[str | None, str | None]:
    """Entity and project of a new sweep: the options win over the config, which wins over the environment."""
    return (
        settings.entity or config.entity or settings.entity_or_environment,
        settings.project or config.project or settings.project_or_environment,
    )


def load_config(file: str, *, name: str | None = None, program: str | None = None) -> tuple[SweepConfig, str]:
    """Read a config and its text; `name` and `program` replace those of the config.

    Raises:
        ConfigError: It cannot be read, or has faults.
    """
    from resweep_scheduler.config import load_sweep
    from resweep_scheduler.config.functions import check_source

    text = sys.stdin.read() if file == STANDARD_INPUT else _read(file)
    source = "standard input" if file == STANDARD_INPUT else file
    config = load_sweep(source, text=text, require_program=program is None)
    changes: dict[str, object] = {key: value for key, value in (("name", name), ("program", program)) if value}
    if config.scheduler is not None and (warning := check_source(config.scheduler, source)):
        changes["warnings"] = (*config.warnings, warning)
    return config.model_copy(update=changes), text


def _read(file: str) -> str:
    from resweep_scheduler.config import ConfigError, Fault

    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        value, cure = error.strerror, f"Check the name, and the folder you call from: {os.getcwd()}."
    except UnicodeDecodeError as error:
        value, cure = f"byte {error.start} is not UTF-8", "Save it as UTF-8."
    raise ConfigError([Fault("", None, None, "the sweep file must be a readable text", value, cure)], file)


def create_from(
    settings: Settings, config: SweepConfig, text: str, *, sweep_id: str | None = None
) -> tuple[Store, str]:
    """Put a sweep into Redis."""
    from resweep_scheduler.cli.access import PATIENCE, store_url
    from resweep_scheduler.creation import create_sweep

    entity, project = _place(settings, config)
    store, created = create_sweep(
        store_url(settings),
        config,
        config_text=text,
        entity=entity,
        project=project,
        sweep_id=sweep_id,
    )
    return store.patient(PATIENCE), created


def missing_program(config: SweepConfig, file: str) -> str | None:
    """Say that the program is not where an agent that is started here would look for it; None when it is."""
    program = config.program
    if program is None or not any("${program}" in str(element) for element in config.command):
        return None
    if Path(program).is_file():
        return None
    beside = Path(file).resolve().parent
    for folder in (beside, *beside.parents[:1]):
        if file != STANDARD_INPUT and (folder / program).is_file():
            return f"the program {program!r} is not in {os.getcwd()}, where agents look for it: cd {folder} first"
    return (
        f"the program {program!r} is not in {os.getcwd()}, where agents look for it: "
        "call from its folder, or correct `program:` (or --program)"
    )


def agent_command(settings: Settings, store: Store, sweep_id: str) -> str:
    """The command line that runs an agent of the sweep, on this or any other machine."""
    return _command(settings, "sweep-agent", f"{store.scope}/{sweep_id}")


def scheduler_command(settings: Settings, source: Source) -> str:
    """The command line that runs the search of sweeps with a source, where its file lies."""
    return _command(settings, "resweep scheduler", source.option)


def _command(settings: Settings, program: str, arguments: str) -> str:
    from resweep_scheduler.store import redact

    if settings.url is None:
        return f"{program} {arguments}"
    if redact(settings.url) != settings.url:  # a password belongs neither on a screen nor on a command line
        return f"RESWEEP_URL={shlex.quote(redact(settings.url))} {program} {arguments}"
    return f"{program} --url {shlex.quote(settings.url)} {arguments}"
