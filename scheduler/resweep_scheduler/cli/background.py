"""Leaving work to a running `resweep scheduler`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, notice

if TYPE_CHECKING:
    from resweep_scheduler.store import Store

PATIENCE = 3600
"""Seconds that a job in the background may take."""


def ask_for(store: Store, function: str, sweep_id: str, *more: str) -> None:
    """Put a job on the queue of the scheduler, and say so.

    Raises:
        Failure: There is no queue on this server.
        StoreError: The server does not answer, or refuses.
    """
    from resweep_scheduler.service.jobs import call_for
    from resweep_scheduler.service.queue import NoQueueError, workers

    try:
        new = call_for(store.url, function, sweep_id, *more, timeout=PATIENCE)
        listening = workers(store.url)
    except NoQueueError as error:
        raise Failure(str(error), ExitCode.USAGE) from None
    notice(f"{'Asked' if new else 'It was asked already'} for: {' '.join((function, sweep_id, *more))}")
    if not listening:
        notice("No scheduler is running; the next one does it: resweep scheduler")
