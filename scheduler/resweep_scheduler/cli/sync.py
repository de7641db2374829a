"""`sync`: send what a run logged while Redis was away."""

from __future__ import annotations

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Settings, command, notice, store_options


@command("sync", "resweep sync", "resweep sync /scratch/training", "RESWEEP_URL=redis://head:6379 resweep sync DIR")
@click.argument("directory", default=".", metavar="[DIR]", type=click.Path(exists=True))
@store_options
def sync_command(settings: Settings, directory: str) -> None:
    """Send rows that were kept in files.

    Rows that could not be sent while Redis was away are in files of DIR (default: here). Files whose rows all arrived
    are removed. Ends with 4 when some could not be sent, and stay for the next time.
    """
    from resweep.sync import SyncOutcome, sync
    from resweep_scheduler.cli.access import open_client

    url, client = open_client(settings)  # a URL that cannot be understood ends here
    client.close()
    report = sync(directory, url)
    notice(str(report))
    if any(file.outcome is SyncOutcome.UNAVAILABLE for file in report.files):
        raise click.exceptions.Exit(ExitCode.REDIS_UNAVAILABLE)
