"""`key`: the keys with which W&B's client comes to the gateway."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import (
    Context,
    Failure,
    Settings,
    command,
    json_option,
    notice,
    store_options,
    write_examples,
)


class KeyCommands(click.Group):
    context_class = Context

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(("export WANDB_API_KEY=$(resweep key create)", "resweep key ls"), formatter)


@click.group("key", cls=KeyCommands)
def key_command() -> None:
    """Keys for `resweep serve`: make, list, remove."""


@command(
    "create",
    "export WANDB_API_KEY=$(resweep key create)",
    "resweep key create --entity vision --read --name dashboard",
)
@click.option("--name", default="", metavar="TEXT", help="What it is for; shown by `key ls`.")
@click.option("--read/--write", "read_only", default=False, help="Only look, or do everything. [default: --write]")
@store_options
def create_command(settings: Settings, *, name: str, read_only: bool) -> None:
    """Print a new key. It is shown this once, only its hash is stored."""
    from resweep_scheduler.cli.access import open_client
    from resweep_scheduler.store import DEFAULT_ENTITY
    from resweep_scheduler.store.credentials import Credentials, Rights

    url, client = open_client(settings)
    entity = settings.entity_or_environment or DEFAULT_ENTITY
    rights = Rights.READ if read_only else Rights.WRITE
    record, key = Credentials(client, url=url).create_key(entity=entity, rights=rights, name=name)
    notice(f"Key {record.key_id}: {rights} in {entity}. It is shown this once.")
    click.echo(key)


@command("ls", "resweep key ls")
@json_option
@store_options
def ls_command(settings: Settings, *, as_json: bool) -> None:
    """List the keys of this server.

    What they allow, not what they are.
    """
    from resweep_scheduler.cli import render
    from resweep_scheduler.cli.access import open_client
    from resweep_scheduler.cli.objects import to_json
    from resweep_scheduler.store.credentials import Credentials

    url, client = open_client(settings)
    records = Credentials(client, url=url).keys_list()
    if as_json:
        fields = ("key_id", "entity", "rights", "name", "created_at")
        click.echo(to_json([{name: getattr(record, name) for name in fields} for record in records]))
    elif records:
        cells = [
            [record.key_id, record.entity, record.rights.value, record.name, _day(record.created_at)]
            for record in records
        ]
        render.show(render.table(["key", "entity", "rights", "name", "created"], cells))
    else:
        notice("There are no keys; make one: resweep key create")


@command("rm", "resweep key rm k3j2h1g0")
@click.argument("key_id", metavar="KEY")
@store_options
def rm_command(settings: Settings, *, key_id: str) -> None:
    """Make a key void at once. KEY is its id, as `key ls` shows it."""
    from resweep_scheduler.cli.access import open_client
    from resweep_scheduler.store.credentials import Credentials

    url, client = open_client(settings)
    if not Credentials(client, url=url).remove_key(key_id):
        raise Failure(f"no key has the id {key_id!r}: `resweep key ls` lists them", ExitCode.USAGE)
    notice(f"Key {key_id} is void.")


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


for subcommand in (create_command, ls_command, rm_command):
    key_command.add_command(subcommand)
