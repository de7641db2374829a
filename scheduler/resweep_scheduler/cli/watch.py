"""`watch`: following a sweep live."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.options import Settings, command, json_option, store_options, sweep_argument

if TYPE_CHECKING:
    from resweep_scheduler.cli.monitor import Monitor
    from resweep_scheduler.store.records import Event

REFRESH = 0.5
"""Seconds between two pictures; events are shown as they come."""


@command("watch", "resweep watch SWEEP", "resweep watch SWEEP | tee sweep.log   # lines only, without a terminal")
@json_option
@sweep_argument
@store_options
def watch_command(settings: Settings, sweep: str, as_json: bool) -> None:
    """Follow a sweep live.

    States, run queue, agents, leases, rate, time left. Ends with the sweep, or with Ctrl-C.

    With --json: the events, one object a line.
    """
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.cli.monitor import Monitor
    from resweep_scheduler.cli.objects import event_object, to_json
    from resweep_scheduler.cli.runs import print_best
    from resweep_scheduler.cli.view import View

    store, sweep_id = open_sweep(settings, sweep)
    monitor = Monitor(store, sweep_id)
    if as_json:
        for events in _to_the_end(monitor):
            for event in events:
                click.echo(to_json(event_object(event), indent=None))
                sys.stdout.flush()
        return
    with View(monitor) as view:
        view.tell_state()
        for events in _to_the_end(monitor):
            view.update(events)
        view.tell_state()
    if best := monitor.best():
        print_best(monitor.sweep, best)


def _to_the_end(monitor: Monitor) -> Iterator[list[Event]]:
    """What happens, batch by batch, until the sweep is over and the last of it was told."""
    while not (monitor.sweep.state.is_over and not monitor.owned()):
        yield monitor.step(REFRESH)
    # A step reads the sweep after the events: it may see the end before the events that led to it.
    while events := monitor.step(0):
        yield events
