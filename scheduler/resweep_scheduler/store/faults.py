"""From redis-py's exceptions to the errors of the store, each told in one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from resweep_scheduler.store.connect import redact
from resweep_scheduler.store.errors import StoreError, StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from redis.exceptions import RedisClusterException, RedisError


def translate(error: RedisError | RedisClusterException | OSError, url: str) -> StoreError:
    """Return what `error` means for a caller of the store, with the server's `url` (redacted) and the cure."""
    from redis import exceptions

    what = " ".join(str(error).split())
    if isinstance(error, exceptions.AuthenticationError):
        return StoreRefusedError(f"{redact(url)} refuses the password: {what}")
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | OSError):
        return StoreUnavailableError(f"{redact(url)} does not answer: {what}")
    return StoreRefusedError(f"{redact(url)} refuses: {re.sub(', with args beginning.*', '', what)}")
