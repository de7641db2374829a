"""`serve`: the gateway for W&B's client."""

from __future__ import annotations

import logging
import socket
from urllib.parse import urlsplit

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, Settings, command, notice, store_options


def _check_url(ctx: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if not value:
        return ""
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or "@" in parts.netloc or parts.query or parts.fragment:
        raise click.BadParameter(f"give it as https://HOST or https://HOST:PORT/PATH, not {value!r}", ctx, parameter)
    return value


@command(
    "serve",
    "resweep key create                       # the key for WANDB_API_KEY",
    "resweep serve                            # on this machine only",
    "resweep serve --host 0.0.0.0 --port 80   # for a cluster, behind TLS",
    "resweep serve --no-auth                  # without keys, for programs of this machine",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, metavar="N")
@click.option(
    "--public-url", envvar="RESWEEP_PUBLIC_URL", show_envvar=True, metavar="URL", callback=_check_url,
    help="How clients reach it, where TLS ends on another machine: files are sent there.",
)  # fmt: skip
@click.option("--no-auth", is_flag=True, help="Ask for no key; on the loopback interface only.")
@click.option("--fd", type=int, hidden=True, help="A socket that listens already.")
@click.option("--lifeline", type=int, hidden=True, help="A descriptor whose end is ours, too.")
@store_options
def serve_command(
    settings: Settings, *, host: str, port: int, public_url: str, no_auth: bool, fd: int | None, lifeline: int | None
) -> None:
    """Serve scripts and agents that use `wandb`, over this Redis.

    Set WANDB_BASE_URL to its address and WANDB_API_KEY to a key of `resweep key create`. It keeps no state: several may
    run, and any may be killed. Needs the extra: pip install 'resweep[gateway]'.
    """
    from resweep_scheduler.cli.access import store_url
    from resweep_scheduler.store import redact

    try:
        from resweep_scheduler.gateway.serve import is_loopback, serve
    except ModuleNotFoundError as error:
        raise Failure(
            f"the gateway needs {error.name}: pip install 'resweep[gateway]'", ExitCode.COMMAND_NOT_FOUND
        ) from None
    if no_auth and not is_loopback(host):
        raise click.UsageError(
            f"--no-auth is for the loopback interface only, not for {host}; use `resweep key create`."
        )
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    url = store_url(settings)
    listener = socket.socket(fileno=fd) if fd is not None else _listen(host, port)
    with listener:
        address, number = listener.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        notice(f"Gateway to {redact(url)} at http://{shown}:{number}")
        serve(url, listener, no_auth=no_auth, public_url=public_url, lifeline=lifeline)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OSError as error:
        raise Failure(
            f"cannot listen on {host}:{port} ({error.strerror or error}): choose another --port or --host",
            ExitCode.USAGE,
        ) from None
