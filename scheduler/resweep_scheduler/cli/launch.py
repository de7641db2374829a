"""`launch`: agents on a fleet of `rq worker` processes that is there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import (
    Failure,
    Settings,
    command,
    notice,
    store_options,
    sweep_argument,
    warning_line,
)

if TYPE_CHECKING:
    from redis import Redis


@command(
    "launch",
    "resweep launch SWEEP --agents 8",
    "resweep launch SWEEP --agents 2 --queue gpu --serializer json",
    "resweep launch SWEEP --agents 8 -- --grace 60 --count 5     # options of sweep-agent",
)
@click.option("--agents", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="How many.")
@click.option("--queue", default="default", show_default=True, metavar="NAME", help="The queue of the workers.")
@click.option(
    "--serializer",
    type=click.Choice(["pickle", "json"]),
    default="pickle",
    show_default=True,
    help="That of the workers: json for `rq worker -S json`.",
)
@click.option("--fleet-url", metavar="URL", help="Redis of the workers. [default: that of the sweep]")
@click.option(
    "--max-wait", type=click.FloatRange(min=0), default=300.0, show_default=True, metavar="SECONDS",
    help="An agent without work gives its worker back after so long.",
)  # fmt: skip
@sweep_argument
@click.argument("arguments", nargs=-1, metavar="[-- AGENT OPTIONS]")
@store_options
def launch_command(
    settings: Settings, *, sweep: str, agents: int, queue: str, serializer: str, fleet_url: str | None,
    max_wait: float, arguments: tuple[str, ...],
) -> None:  # fmt: skip
    """Put agents on a fleet of RQ workers.

    Each agent is a job that holds one `rq worker` until the sweep has nothing for it. The workers need resweep, the
    training's program and RESWEEP_URL. When a worker ends, its agent gives its run back, and another worker takes over.
    """
    from redis.exceptions import RedisError

    from resweep_scheduler.cli.access import open_sweep, refuse_if_over
    from resweep_scheduler.service.queue import NoQueueError, queue_client
    from resweep_scheduler.service.vehicle import enqueue_agent
    from resweep_scheduler.store.faults import translate

    store, sweep_id = open_sweep(settings, sweep)
    refuse_if_over(store.sweep(sweep_id))
    url = fleet_url or store.url
    try:
        connection = queue_client(url)
        listening = _workers(connection, queue)
        words = ["--max-wait", f"{max_wait:g}", *arguments]
        for _ in range(agents):
            # What is pickled are texts, because a default worker reads nothing else; nothing of it is read here.
            click.echo(enqueue_agent(connection, queue, serializer, f"{store.scope}/{sweep_id}", words))
    except NoQueueError:
        raise Failure(
            "RQ does not work with Redis Cluster: name the workers' Redis with --fleet-url", ExitCode.USAGE
        ) from None
    except (RedisError, OSError) as error:
        raise translate(error, url) from error
    notice(f"{agents} of sweep {sweep_id} on the queue {queue!r}, which has {listening} workers.")
    if not listening:
        as_json = "-S json " if serializer == "json" else ""
        warning_line(f"nobody takes them: start workers with `rq worker {as_json}{queue}`")


def _workers(connection: Redis, queue: str) -> int:
    from rq import Queue, Worker

    return int(Worker.count(queue=Queue(queue, connection=connection)))
