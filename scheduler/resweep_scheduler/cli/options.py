"""What all commands share: how they are declared, the options that say which Redis and project, and how they fail."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from resweep_scheduler.cli.exitcodes import ExitCode

P = ParamSpec("P")
R = TypeVar("R")

URL_HELP = "Address of Redis: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://."
URL_ENVIRONMENT = "RESWEEP_URL, else REDIS_URL; else the embedded server"


class Failure(click.ClickException):
    """An error that was foreseen: one line that says the rule, the value and the cure, and a named exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class Formatter(click.HelpFormatter):
    """Click's help with bold headings (where the terminal knows bold)."""

    def write_heading(self, heading: str) -> None:
        super().write_heading(click.style(heading, bold=True))

    def write_lines(self, lines: Sequence[str]) -> None:
        """Write `lines` as they are: commands must be copied, not wrapped."""
        for line in lines:
            self.write(f"{'':>{self.current_indent}}{line}\n")


class Context(click.Context):
    formatter_class = Formatter


class Command(click.Command):
    """A command whose help ends with examples."""

    context_class = Context

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(self.examples, formatter)
        super().format_epilog(ctx, formatter)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    if examples and isinstance(formatter, Formatter):
        with formatter.section("Examples"):
            formatter.write_lines(examples)


def command(name: str, *examples: str, **settings: Any) -> Callable[[Callable[..., None]], Command]:
    """Declare a command; its docstring is its help, and `examples` are shown below it."""

    def decorate(function: Callable[..., None]) -> Command:
        return click.command(name, cls=Command, examples=examples, **settings)(function)

    return decorate


@dataclass(frozen=True, slots=True)
class Settings:
    """What the person gave on the command line; None where nothing was given.

    The environment is not mixed in here, because it may not overrule the path of a sweep: a WANDB_PROJECT left over in
    a shell must not hide a sweep whose id says where it is.
    """

    url: str | None = None
    entity: str | None = None
    project: str | None = None

    @property
    def entity_or_environment(self) -> str | None:
        return self.entity or os.environ.get("WANDB_ENTITY") or None

    @property
    def project_or_environment(self) -> str | None:
        return self.project or os.environ.get("WANDB_PROJECT") or None


def store_options(function: Callable[..., R]) -> Callable[..., R]:
    """Add --url, --entity and --project, and pass them as one `settings`.

    They may stand before the command too (`resweep --url … ls`); the later one wins.
    """

    @click.option("--project", metavar="NAME", help="Project. [env: WANDB_PROJECT; default: uncategorized]")
    @click.option("--entity", metavar="NAME", help="Entity. [env: WANDB_ENTITY; default: local]")
    @click.option("--url", metavar="URL", help=f"{URL_HELP} [env: {URL_ENVIRONMENT}]")
    @click.pass_context
    @functools.wraps(function)
    def wrapper(
        context: click.Context, /, *args: Any, url: str | None, entity: str | None, project: str | None, **kwargs: Any
    ) -> R:
        outer = context.find_object(Settings) or Settings()
        given = {"url": url, "entity": entity, "project": project}
        settings = replace(outer, **{name: value for name, value in given.items() if value})
        return function(*args, settings=settings, **kwargs)

    return wrapper


source_option = click.option(
    "--source",
    "sources",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Execute this Python file for the search of sweeps whose scheduler.source has its name; may be repeated.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, for programs.")


def sweep_argument(function: Callable[..., R]) -> Callable[..., R]:
    """Add the argument SWEEP, completed by the shell from the sweeps that Redis has."""
    return click.argument("sweep", metavar="[ENTITY/][PROJECT/]SWEEP", shell_complete=_complete_sweeps)(function)


def run_argument(function: Callable[..., R]) -> Callable[..., R]:
    return click.argument("run", metavar="[ENTITY/][PROJECT/]RUN")(function)


def _complete_sweeps(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from resweep_scheduler.cli.access import sweep_ids_at_hand

    return [sweep_id for sweep_id in sweep_ids_at_hand(context.params.get("url")) if sweep_id.startswith(incomplete)]


def notice(text: str) -> None:
    """Say something to the person, on stderr: stdout belongs to results."""
    click.echo(text, err=True)


def error_line(message: str) -> None:
    """Print `error: …` on stderr."""
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True)


def warning_line(message: str) -> None:
    click.echo(click.style("warning: ", fg="yellow", bold=True) + message, err=True)


def terminal_width() -> int:
    """Columns of the terminal; wide where there is none, so that nothing is wrapped in a pipe or a log file."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
