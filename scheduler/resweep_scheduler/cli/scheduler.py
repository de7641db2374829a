"""`scheduler`: the search service, and what it does in the background."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from resweep_scheduler.cli.options import Settings, command, notice, source_option, store_options


@command(
    "scheduler",
    "resweep scheduler",
    "resweep scheduler --url redis://head:6379 --ahead 8",
    "resweep scheduler --source study.py    # for sweeps whose scheduler.source is study.py",
    "resweep scheduler --keep-finished 30",
    "resweep scheduler --burst        # do what is due, and end",
)
@click.option("--name", metavar="NAME", help="Of this service. [default: host and process id]")
@click.option("--burst", is_flag=True, help="End when nothing is left to do.")
@click.option(
    "--ahead",
    type=click.IntRange(min=0),
    metavar="N",
    help="Runs kept ready for each sweep. [default: as few as will do]",
)
@click.option(
    "--keep-finished", type=click.FloatRange(min=0), metavar="DAYS", help="Remove sweeps that have been over so long."
)
@click.option(
    "--export-dir",
    default="resweep-exports",
    show_default=True,
    metavar="DIR",
    help="For `resweep export --background`.",
)
@click.option(
    "--webhook-url", envvar="RESWEEP_WEBHOOK_URL", show_envvar=True, metavar="URL",
    help="Post events of all sweeps there, besides what their configs say.",
)  # fmt: skip
@source_option
@store_options
def scheduler_command(
    settings: Settings, *, name: str | None, burst: bool, ahead: int | None, keep_finished: float | None,
    export_dir: str, webhook_url: str | None, sources: tuple[Path, ...],
) -> None:  # fmt: skip
    """Suggest runs ahead of the agents, and do background jobs.

    Nothing depends on it: agents ask the search themselves when no scheduler runs. It may be killed at any moment, and
    several may run. Ctrl-C or SIGTERM ends it.
    """
    from resweep_scheduler.cli.access import store_url
    from resweep_scheduler.config.webhooks import check_webhook_url
    from resweep_scheduler.search import Sources
    from resweep_scheduler.service.scheduler import Scheduler, SchedulerOptions
    from resweep_scheduler.store import redact

    if webhook_url is not None:
        try:
            check_webhook_url(webhook_url)
        except ValueError:
            raise click.UsageError("--webhook-url must be an http:// or https:// address.") from None
    try:
        executed = Sources(sources)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _log_to_stderr()
    url = store_url(settings)
    options = SchedulerOptions(
        url=url,
        name=name or f"{socket.gethostname()}-{os.getpid()}",
        ahead=ahead,
        keep_finished=keep_finished,
        exports=Path(export_dir).absolute(),
        webhook_url=webhook_url,
        burst=burst,
        entity=settings.entity_or_environment,
        project=settings.project_or_environment,
        sources=executed,
    )
    scheduler = Scheduler(options)
    if not scheduler.queued:
        notice("RQ does not work with Redis Cluster: there are no background jobs, everything else works.")
    if not burst:
        only = "/".join(part for part in (options.entity, options.project) if part)
        notice(f"Scheduler {options.name} looks after the sweeps of {redact(url)}{f', {only} only' if only else ''}")
    scheduler.run()


def _log_to_stderr() -> None:
    import logging

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
