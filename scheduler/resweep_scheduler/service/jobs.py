"""The background jobs: every function that a job may name, and how RQ is kept from calling any other.

A job's record in Redis can name functions to import (the job itself, three callbacks) and addresses to call. The class
of jobs that `job_class` makes lets none of them through: it reads the fields that our own jobs have, and looks the
function up in a table.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.service.exports import export_name, export_text, write_text
from resweep_scheduler.service.queue import enqueue
from resweep_scheduler.service.retention import is_old
from resweep_scheduler.service.webhooks import deliver_due, targets_of
from resweep_scheduler.store import (
    IllegalTransitionError,
    Store,
    StoreError,
    UnknownSweepError,
    find_sweep,
    validate_sweep_id,
)
from resweep_scheduler.store.faults import translate

if TYPE_CHECKING:
    from rq.job import Job

    from resweep_scheduler.service.watcher import Watcher

_log = logging.getLogger(__name__)

Function: TypeAlias = Callable[..., object]

TIME_LIMIT = 120
"""Seconds after which a job is ended, unless whoever asks for it says otherwise."""
JOB_FIELDS = frozenset(
    (
        *("data", "origin", "worker_name", "description", "status", "timeout", "ttl", "result_ttl", "failure_ttl"),
        *("created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "retries_left"),
    )
)
"""What is read of a job's record: no callbacks, no webhooks, no dependencies, no groups, no repetitions."""


class UnknownJobError(Exception):
    """A job names something that is none of our jobs; it is not executed."""


def job_class(functions: Mapping[str, Function]) -> type[Job]:
    """RQ's class of jobs for a worker that executes these functions and nothing else."""
    from rq.job import Job
    from rq.utils import as_text

    class KnownJob(Job):
        def restore(self, raw_data: Mapping[bytes | str, Any]) -> Any:
            return super().restore({key: value for key, value in raw_data.items() if as_text(key) in JOB_FIELDS})

        @property
        def func(self) -> Function:
            name = self.func_name
            if self.instance is not None or not isinstance(name, str) or name not in functions:
                return _refusal(f"jobs of resweep are {', '.join(functions)}, not {name!r}")
            if self.kwargs or not all(isinstance(argument, str) for argument in self.args):
                return _refusal(f"arguments of {name} are texts, got {self.args!r} {self.kwargs!r}")
            return _telling(name, functions[name])

    return KnownJob


def _refusal(message: str) -> Function:
    def refuse(*_: object, **__: object) -> None:
        _log.error("job-refused: %s", message)
        raise UnknownJobError(message)

    return refuse


def _telling(name: str, function: Function) -> Function:
    """The function, which says in a line how it failed; RQ's own tracebacks are not shown."""

    @functools.wraps(function)
    def call(*arguments: str) -> object:
        try:
            return function(*arguments)
        except (StoreError, OSError, ValueError) as error:
            _log.error("job-failed job=%s arguments=%s: %s", name, ",".join(arguments), error)
            raise
        except Exception:
            _log.exception("job-failed job=%s arguments=%s", name, ",".join(arguments))
            raise

    return call


class Jobs:
    """The functions, as a service executes them. A sweep that is gone by now needs none of them.

    Args:
        watcher: Whose warm searches answer `suggest`.
        exports: The only folder that `export` writes to.
        webhook_url: See `targets_of`.
    """

    def __init__(self, watcher: Watcher, *, exports: Path, webhook_url: str | None = None) -> None:
        self._watcher = watcher
        self._exports = exports
        self._webhook_url = webhook_url

    def table(self) -> dict[str, Function]:
        """By the names that jobs carry."""
        return {
            "suggest": self.suggest,
            "deliver": self.deliver,
            "remove": self.remove,
            "expire": self.expire,
            "export": self.export,
        }

    def suggest(self, sweep_id: str) -> None:
        """Agents of a sweep wait for suggestions."""
        with suppress(UnknownSweepError):
            self._watcher.supply(validate_sweep_id(sweep_id))

    def deliver(self, sweep_id: str) -> None:
        """Webhooks of a sweep are due."""
        with suppress(UnknownSweepError):
            store = self._store(sweep_id)
            config = SweepConfig.from_json(store.sweep(sweep_id).config_json)
            targets = targets_of(config, self._webhook_url)
            deliver_due(store, sweep_id, targets, now_ms=store.redis_time)

    def remove(self, sweep_id: str) -> None:
        """A sweep that nobody runs is removed, with its runs."""
        with suppress(UnknownSweepError):
            removed = self._store(sweep_id).remove_sweep(sweep_id)
            _log.info("sweep-removed sweep=%s runs=%d", sweep_id, removed)

    def expire(self, sweep_id: str, max_age_ms: str) -> None:
        """A sweep that has been over for long is removed; it may have gone on since the job was asked for."""
        with suppress(UnknownSweepError, IllegalTransitionError):
            store = self._store(sweep_id)
            if is_old(store, sweep_id, int(max_age_ms), now_ms=store.redis_time()):
                removed = store.remove_sweep(sweep_id, only_over=True)
                _log.info("sweep-expired sweep=%s runs=%d", sweep_id, removed)

    def export(self, sweep_id: str, what: str, kind: str) -> None:
        """A sweep is written to a file in the service's folder for exports, whose name follows from the arguments."""
        path = self._exports / export_name(validate_sweep_id(sweep_id), what, kind)
        self._exports.mkdir(parents=True, exist_ok=True)
        text, count = export_text(self._store(sweep_id), sweep_id, what=what, kind=kind)
        write_text(path, text)
        _log.info("exported sweep=%s rows=%d file=%s", sweep_id, count, path)

    def _store(self, sweep_id: str) -> Store:
        url, client = self._watcher.url, self._watcher.client
        return Store(client, find_sweep(client, validate_sweep_id(sweep_id), url=url), url=url).patient(5.0)


def call_for(
    url: str, function: str, sweep_id: str, *more: str, timeout: int = TIME_LIMIT, ttl: int | None = None
) -> bool:
    """Ask for a job of a sweep; False when it is asked for already.

    Args:
        url: Of Redis.
        function: One of the names in `Jobs.table`.
        sweep_id: The sweep.
        more: Further arguments of the function.
        timeout: Seconds after which the job is ended.
        ttl: Seconds after which nobody needs to begin with it any more.

    Raises:
        NoQueueError: RQ cannot work with this server.
        StoreError: The server does not answer, or refuses.
    """
    from redis.exceptions import RedisError

    job_id = "-".join((function, sweep_id, *more))
    try:
        return enqueue(url, function, sweep_id, *more, job_id=job_id, timeout=timeout, ttl=ttl, failure_ttl=60)
    except (RedisError, OSError) as error:
        raise translate(error, url) from error
