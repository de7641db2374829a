"""Background jobs, from the side of those who want something done: RQ's queue, with JSON in it and nothing else.

Every job is a hint. It names one of the functions that `resweep_scheduler.service.jobs` has, its arguments are ids, and
the truth is read from our own keys when it runs; a job that is lost costs a delay and never a run.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from resweep_scheduler.store.connect import connect
from resweep_scheduler.store.faults import translate

if TYPE_CHECKING:
    from redis import Redis

    from resweep_scheduler.store import Store

QUEUE = "resweep:jobs"
"""The only queue of the service: RQ loses jobs of workers that wait on several queues."""
FAILURE_TTL = 3600
"""Seconds for which a job that failed can be looked at; an id is blocked as long."""


class NoQueueError(RuntimeError):
    """There are no background jobs on this server; the message says why, and what to do."""


@functools.lru_cache(maxsize=8)
def queue_client(url: str) -> Redis:
    """A client as RQ needs it: replies in bytes, no retries.

    Raises:
        NoQueueError: RQ cannot work with Redis Cluster.
    """
    from redis import Redis

    client = connect(url, decode=False)
    if not isinstance(client, Redis):
        raise NoQueueError("RQ does not work with Redis Cluster: leave --background out")
    return client


def enqueue(
    url: str, function: str, *arguments: str, job_id: str, timeout: int = 120, ttl: int | None = None,
    failure_ttl: int = FAILURE_TTL, at_front: bool = False,
) -> bool:  # fmt: skip
    """Ask for a job; False when it is asked for already.

    Args:
        url: Of Redis.
        function: One of the names in `resweep_scheduler.service.jobs`.
        arguments: Of the function.
        job_id: What is asked for once: letters, digits, `_` and `-`.
        timeout: Seconds after which the job is ended.
        ttl: Seconds after which nobody needs to begin with it any more.
        failure_ttl: Seconds for which a job that failed is kept.
        at_front: Before all others.

    Raises:
        NoQueueError: RQ cannot work with this server.
        RedisError: The server does not answer, or refuses.
    """
    from rq import Queue
    from rq.exceptions import DuplicateJobError
    from rq.serializers import JSONSerializer

    settings: dict[str, Any] = {"job_timeout": timeout, "result_ttl": 0, "failure_ttl": failure_ttl, "ttl": ttl}
    try:
        Queue(QUEUE, connection=queue_client(url), serializer=JSONSerializer).enqueue(
            function, *arguments, job_id=job_id, unique=True, at_front=at_front, **settings
        )
    except DuplicateJobError:
        return False
    return True


def workers(url: str) -> int:
    """How many services wait for jobs.

    Raises:
        NoQueueError: RQ cannot work with this server.
        StoreError: The server does not answer, or refuses.
    """
    from redis.exceptions import RedisError
    from rq import Queue, Worker

    client = queue_client(url)
    try:
        return int(Worker.count(queue=Queue(QUEUE, connection=client)))
    except (RedisError, OSError) as error:
        raise translate(error, url) from error


def hand_over(store: Store, sweep_id: str, next_index: int) -> None:
    """Call the service for suggestions from `next_index` on. It looks by itself several times a second, too."""
    from redis.exceptions import RedisError

    job_id = f"suggest-{sweep_id}-{next_index}"
    try:
        enqueue(store.url, "suggest", sweep_id, job_id=job_id, ttl=30, failure_ttl=30, at_front=True)
    except (NoQueueError, RedisError, OSError):
        return  # whoever waits asks again, and asks the search itself in the end
