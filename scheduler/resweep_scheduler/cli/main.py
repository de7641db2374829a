"""The `resweep` command: the list of its subcommands, and what happens to errors.

Each subcommand's module is imported when it is asked for, and imports what is heavy when it runs.
"""

from __future__ import annotations

import difflib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence

import click

from resweep_scheduler.cli.exitcodes import ExitCode, exit_code_of
from resweep_scheduler.cli.options import (
    URL_ENVIRONMENT,
    URL_HELP,
    Context,
    Failure,
    Settings,
    error_line,
    write_examples,
)

SECTIONS: dict[str, dict[str, str]] = {
    "Make and run sweeps": {"start": "start", "create": "create", "validate": "create", "schema": "create"},
    "Look": {
        "ls": "sweeps",
        "show": "sweeps",
        "watch": "watch",
        "best": "runs",
        "runs": "runs",
        "run": "runs",
        "missing": "sweeps",
        "gantt": "gantt",
        "logs": "logs",
        "history": "logs",
    },
    "Control": {
        "pause": "control",
        "resume": "control",
        "stop": "control",
        "cancel": "control",
        "retry": "control",
        "rm": "control",
    },
    "Data": {"export": "export", "sync": "sync"},
    "Fleets": {"scheduler": "scheduler", "slurm": "slurm", "launch": "launch"},
    "Server and shell": {"server": "server", "doctor": "server", "completion": "completion"},
    "W&B": {"serve": "serve", "key": "key"},
}
"""Heading → subcommand → the module of this package that has it, under its own name plus `_command`."""

EXAMPLES = (
    "resweep start configs/quickstart.yaml        # create a sweep, run it here, show the best run",
    "resweep create sweep.yaml --project digits   # put it into Redis; agents anywhere run it",
    "sweep-agent SWEEP                            # … as this one does",
    "resweep watch SWEEP",
)

ENVIRONMENT = (
    ("RESWEEP_URL", "Address of Redis, for every command (--url); REDIS_URL is read after it."),
    ("WANDB_ENTITY, WANDB_PROJECT", "Where new sweeps go, and which ones `ls` shows (--entity, --project)."),
    ("RESWEEP_HOME", "Folder of the embedded server."),
    ("NO_COLOR", "No colours."),
)


class Commands(click.Group):
    """Subcommands under headings, each loaded when it is needed."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for commands in SECTIONS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for commands in SECTIONS.values():
            if cmd_name in commands:
                module = importlib.import_module(f"resweep_scheduler.cli.{commands[cmd_name]}")
                found: click.Command = getattr(module, f"{cmd_name}_command")
                return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            meant = f"did you mean {close[0]!r}?" if close else "`resweep --help` lists the commands."
            raise click.UsageError(f"there is no command {args[0]!r}: {meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                formatter.write_dl([(name, found.get_short_help_str(90)) for name, found in commands if found])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(EXAMPLES, formatter)
        with formatter.section("Environment"):
            formatter.write_dl(ENVIRONMENT)
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(int(code)), code.meaning) for code in ExitCode])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--url", metavar="URL", help=f"{URL_HELP} [env: {URL_ENVIRONMENT}]")
@click.option("--entity", metavar="NAME", help="Entity. [env: WANDB_ENTITY; default: local]")
@click.option("--project", metavar="NAME", help="Project. [env: WANDB_PROJECT; default: uncategorized]")
@click.version_option(package_name="resweep", message="resweep %(version)s")
@click.pass_context
def cli(context: click.Context, url: str | None, entity: str | None, project: str | None) -> None:
    """Hyperparameter sweeps that survive preemption.

    A sweep is a W&B sweep YAML. Its state lives in your Redis (or in a small server that resweep starts for you);
    `sweep-agent` processes anywhere run it, and a run that was preempted goes on where it was.
    """
    context.obj = Settings(url, entity, project)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors that were foreseen become one line on stderr."""
    try:
        status = cli.main(list(arguments), prog_name="resweep", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "resweep"
        error_line(f"{error.format_message()} (see `{path} --help`)")
        return ExitCode.USAGE
    except Failure as error:
        error_line(error.message)
        return error.code
    except click.Abort:
        error_line("interrupted")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; the interpreter must not complain when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        code = exit_code_of(error)
        if code is None:
            raise
        for line in str(error).splitlines():  # a config tells all its faults, one a line
            error_line(line)
        return code
    return status if isinstance(status, int) else ExitCode.OK


def main() -> None:
    """Entry point of the `resweep` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show must not end the command
    sys.exit(run(sys.argv[1:]))
