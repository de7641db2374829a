"""`sync`: send what a run logged while Redis was away."""

from __future__ import annotations

import click

from resweep_scheduler.cli.options import Settings, command, notice, store_options


@command("sync", "resweep sync", "resweep sync /scratch/training", "RESWEEP_URL=redis://head:6379 resweep sync DIR")
@click.argument("directory", default=".", metavar="[DIR]", type=click.Path(exists=True, file_okay=False))
@store_options
def sync_command(settings: Settings, directory: str) -> None:
    """Send rows that were kept in files.

    Rows that could not be sent while Redis was away are in files of DIR (default: here). Files whose rows all arrived
    are removed.
    """
    from resweep.sync import sync

    from resweep_scheduler.cli.access import store_url

    notice(str(sync(directory, store_url(settings))))
