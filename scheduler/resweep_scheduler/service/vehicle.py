"""What `resweep launch` puts on the queue of a fleet of `rq worker` processes: a job that runs one `sweep-agent`.

The job is a vehicle only. Runs are safe by their claims, so whatever RQ loses or doubles is an agent more or less. The
agent is a process of its own, and gets SIGTERM, which makes it give its runs back, whatever ends the vehicle:

    SIGTERM to the worker      noted in Redis by RQ, and read here once a second; an agent elsewhere takes over
    SIGKILL to the worker      seen here, because our parent has changed; an agent elsewhere takes over
    SIGKILL to us              the kernel sends the agent SIGTERM; the worker puts the job back (`Retry`)
    the machine                another worker's maintenance puts the job back; leases give back the runs

`resweep_scheduler.service.vehicle.run_agent` is stored in users' queues: neither name nor arguments may change.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from resweep_scheduler.store.connect import resolve_url

if TYPE_CHECKING:
    from rq.job import Job

POLL = 1.0
"""Seconds between two looks at the worker."""
SHORT_LIFE = 10.0
"""An agent that was told to go this soon would be told so again: the next one waits as long."""
LEFT: Final = (75, -signal.SIGTERM)
"""Exit statuses of agents that were told to go; SIGTERM itself ends one that is still being loaded."""
TRIES = 100
"""How often a job comes back whose process was killed."""
_PR_SET_PDEATHSIG: Final = 1


class VehicleError(RuntimeError):
    """A worker cannot run agents, or its agent ended for a reason that somebody must do something about."""


def run_agent(path: str, arguments: Sequence[str] = ()) -> int:
    """Run one agent of the sweep at `path` until it ends; returns its exit status.

    Raises:
        VehicleError: The agent ended with another one, or the worker executes jobs in its own process.
    """
    from rq import get_current_job

    job = get_current_job()
    if job is None:
        raise VehicleError("run_agent is the job of `resweep launch`; by hand, call sweep-agent")
    try:
        return _run_agent(job, path, arguments)
    except Exception:
        job.retries_left = 0  # it would end the same way again; tries are for processes that were killed
        raise


def _run_agent(job: Job, path: str, arguments: Sequence[str]) -> int:
    _refuse_simple_worker(job)
    started, parent = time.monotonic(), os.getppid()
    agent = subprocess.Popen(
        [_program(), path, *arguments],
        stdin=subprocess.DEVNULL,
        env=_environment(job, os.environ),
        start_new_session=True,
        # This process is a fork with one thread.
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509
    )
    told = False
    while True:
        try:
            code = agent.wait(POLL)
            break
        except subprocess.TimeoutExpired:
            if not told and (os.getppid() != parent or _worker_leaves(job)):
                told = True
                agent.terminate()
    if code in LEFT:
        if not told:
            time.sleep(max(0.0, SHORT_LIFE - (time.monotonic() - started)))
        enqueue_agent(job.connection, job.origin, job.serializer, path, arguments)
    elif code != 0:
        raise VehicleError(f"sweep-agent {path} ended with {code}; its output is in the log of the worker")
    return code


def enqueue_agent(connection: Any, queue: str, serializer: Any, path: str, arguments: Sequence[str]) -> str:
    """Put one agent on a queue; returns the id of its job."""
    from rq import Queue, Retry

    job = Queue(queue, connection=connection, serializer=serializer).enqueue(
        "resweep_scheduler.service.vehicle.run_agent",
        args=(path, list(arguments)),
        job_timeout=-1,
        result_ttl=3600,
        failure_ttl=7 * 86_400,
        retry=Retry(max=TRIES),
        description=f"sweep-agent {path}",
    )
    return str(job.id)


def _refuse_simple_worker(job: Job) -> None:
    worker = _worker_of(job)
    if worker is not None and worker.pid == os.getpid():
        raise VehicleError(
            "a worker that executes jobs in its own process sends no heartbeats, so that RQ would run the agent twice; "
            "run agents on `rq worker` (class rq.Worker)"
        )


def _worker_of(job: Job) -> Any:
    from rq import Worker

    key = f"{Worker.redis_worker_namespace_prefix}{job.worker_name}"
    return Worker.find_by_key(key, connection=job.connection, serializer=job.serializer)


def _worker_leaves(job: Job) -> bool:
    """Whether the worker was told to end after this job."""
    from redis.exceptions import RedisError

    try:
        worker = _worker_of(job)
    except (RedisError, OSError):
        return False  # Redis is away: that is no reason to end anything
    return worker is not None and worker.shutdown_requested_date is not None


def _program() -> str:
    from resweep_scheduler.cli.local_agents import agent_program

    return agent_program()


def _environment(job: Job, environ: Mapping[str, str]) -> dict[str, str]:
    """That of the worker; where it names no Redis, the agent uses the one of the queue."""
    if resolve_url(None, environ) is not None:
        return dict(environ)
    return {**environ, "RESWEEP_URL": url_of(job.connection.connection_pool.connection_kwargs)}


def url_of(options: Mapping[str, Any]) -> str:
    """The address of a Redis from the options of redis-py's connections."""
    user, password = options.get("username") or "", options.get("password") or ""
    credentials = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
    database = options.get("db") or 0
    if path := options.get("path"):
        return f"unix://{credentials}{quote(path)}?db={database}"
    host, port = options.get("host", "localhost"), options.get("port", 6379)
    return f"redis://{credentials}{f'[{host}]' if ':' in host else host}:{port}/{database}"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
