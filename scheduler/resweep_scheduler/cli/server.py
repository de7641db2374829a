"""`server` and `doctor`: the server that the state lives in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import (
    Command,
    Context,
    Settings,
    command,
    json_option,
    notice,
    store_options,
    write_examples,
)

if TYPE_CHECKING:
    from resweep_scheduler.service.server import ServerStatus


class ServerCommands(click.Group):
    context_class = Context
    command_class = Command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        examples = ("resweep server status", "resweep server stop", "RESWEEP_HOME=/scratch/me resweep server start")
        write_examples(examples, formatter)
        with formatter.section("Environment"):
            formatter.write_dl(
                [
                    ("RESWEEP_HOME", "Its folder. [default: ~/.local/share/resweep/server]"),
                    ("RESWEEP_SERVER", "Binary of Valkey or Redis to run. [default: the one that is shipped]"),
                ]
            )


@click.group("server", cls=ServerCommands)
def server_command() -> None:
    """The embedded server: start, stop, status.

    It is used when no URL is given. The first command that needs it starts it; it then runs until you stop it or the
    machine goes down, and has its data again when it starts again.
    """


@server_command.command("start", examples=("resweep server start",))
@json_option
def start(as_json: bool) -> None:
    """Start the embedded server.

    Unless it runs already. Prints its URL.
    """
    from resweep_scheduler.service.server import ensure_server, server_status

    url = ensure_server()
    if as_json:
        _print_status(server_status(), as_json=True)
    else:
        click.echo(url)


@server_command.command("stop", examples=("resweep server stop",))
def stop() -> None:
    """Stop the embedded server; its data stays."""
    from resweep_scheduler.service.server import default_home, stop_server

    stopped = stop_server()
    notice(f"Stopped. The data stays in {default_home()}" if stopped else "The embedded server does not run.")


@server_command.command("status", examples=("resweep server status", "resweep server status --json | jq .running"))
@json_option
def status(as_json: bool) -> None:
    """Show whether and where the embedded server runs."""
    from resweep_scheduler.service.server import server_status

    _print_status(server_status(), as_json=as_json)


def _print_status(status: ServerStatus, *, as_json: bool) -> None:
    from dataclasses import asdict

    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.objects import to_json

    if as_json:
        click.echo(to_json(asdict(status)))
        return
    state = "running" if status.running else "not running (resweep server start, or any command that needs it)"
    pairs = [
        ("server", state),
        ("url", status.url),
        ("directory", str(status.directory)),
        ("data", f"{status.data_bytes / 1024:.1f} KiB"),
    ]
    optional = {
        "pid": status.pid,
        "version": status.version,
        "uptime": render.duration(status.uptime) if status.uptime is not None else None,
        "problem": status.problem,
    }
    pairs += [(name, str(value)) for name, value in optional.items() if value is not None]
    render.show(render.facts(pairs))


@command(
    "doctor", "resweep doctor", "resweep doctor --url redis://head:6379", "resweep doctor --json | jq '.[].status'"
)
@json_option
@store_options
def doctor_command(settings: Settings, as_json: bool) -> None:
    """Check the server, and say what to fix.

    Connection, version, Lua, rights, persistence, memory, clock.
    Ends with 4 when it cannot be reached, with 5 when a check failed.
    """
    from dataclasses import asdict

    from rich.text import Text

    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.access import store_url
    from resweep_scheduler.cli.objects import to_json
    from resweep_scheduler.service.doctor import examine
    from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, redact

    url = store_url(settings)
    scope = f"{settings.entity_or_environment or DEFAULT_ENTITY}/{settings.project_or_environment or DEFAULT_PROJECT}"
    checks = examine(url, project=scope)
    if as_json:
        click.echo(to_json([asdict(check) for check in checks]))
    else:
        styles = {"ok": "green", "warn": "yellow", "fail": "bold red"}
        rows = [
            (
                Text(check.status, styles[check.status]),
                check.name,
                check.detail + (f"\n→ {check.cure}" if check.cure and check.status != "ok" else ""),
            )
            for check in checks
        ]
        render.show(Text(redact(url), "bold"), render.table(("", "check", "found"), rows))
    failed = [check.name for check in checks if check.status == "fail"]
    if failed:
        unreachable = failed[0] == "connection"
        raise click.exceptions.Exit(ExitCode.REDIS_UNAVAILABLE if unreachable else ExitCode.REDIS_REFUSED)
