"""Where the store is, and how long the SDK waits for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from resweep.errors import CommError
from resweep.notes import logger

if TYPE_CHECKING:
    from resweep_scheduler.store import Store

T = TypeVar("T")

PATIENCE_BEFORE_A_WORD = 3.0  # seconds


def open_store(entity: str, project: str, url: str | None = None) -> Store:
    """The store of a project: at `url`, else RESWEEP_URL, else REDIS_URL, else the embedded server of this user.

    Raises:
        CommError: The address cannot be understood, or the embedded server cannot be started.
    """
    from resweep_scheduler.store import Scope, StoreError, resolve_url
    from resweep_scheduler.store import open_store as open_at

    address = resolve_url(url, os.environ) or _embedded_url()
    try:
        return open_at(address, Scope(entity, project))
    except StoreError as error:
        raise CommError(str(error)) from error


def close_store(store: Store) -> None:
    """Close its connections; errors of a server that is away do not matter any more."""
    try:
        store.client.close()
    except Exception as error:
        logger.debug("closing the connection failed: %s", error)


def patiently(store: Store, timeout: float, run_id: str, call: Callable[[Store], T]) -> T:
    """`call` with the store, tried again for `timeout` seconds while Redis is away; a person is told why it takes long.

    Raises:
        CommError: No answer in that time, or a refusal.
    """
    from resweep_scheduler.store import StoreRefusedError, StoreUnavailableError

    first = min(timeout, PATIENCE_BEFORE_A_WORD)
    try:
        try:
            return call(store.patient(first))
        except (StoreUnavailableError, StoreRefusedError) as error:
            if timeout <= first or (isinstance(error, StoreRefusedError) and not error.temporary):
                raise
            logger.warning("run %s waits up to %g s for Redis: %s", run_id, timeout, error)
            return call(store.patient(timeout - first))
    except (StoreUnavailableError, StoreRefusedError) as error:
        raise CommError(
            f"Failed to get resume status for run ID: {run_id}: {error}. Tried for {timeout:g} s "
            "(RESWEEP_INIT_TIMEOUT); start the server or correct RESWEEP_URL, or log to a file with mode='offline'"
        ) from error


def _embedded_url() -> str:
    from resweep_scheduler.service.server import ServerError, ensure_server

    try:
        return ensure_server()
    except ServerError as error:
        raise CommError(str(error)) from error
