"""How the store talks to Redis: one script a call, errors translated, an outer retry for those who ask for it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from resweep_scheduler.store.errors import StoreRefusedError, StoreUnavailableError
from resweep_scheduler.store.faults import translate
from resweep_scheduler.store.keys import Keys, Scope
from resweep_scheduler.store.scripts import decode_reply, encode_arguments, load_script

if TYPE_CHECKING:
    from resweep_scheduler.store.connect import Client

T = TypeVar("T")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0


class StoreBase:
    """The connection of one project to its Redis.

    Every method that changes something is one script, safe to repeat. Without ``patient`` a call is tried once.

    Args:
        client: From ``connect(url)``; answers decoded to str, redis-py's own retries off.
        scope: The project.
        url: Named (redacted) in messages.
        timeout: The client's socket timeout in seconds; blocking calls stay below it.
    """

    def __init__(
        self, client: Client, scope: Scope, *, url: str = "", timeout: float = 5.0, patience: float = 0.0
    ) -> None:
        self.client = client
        self.scope = scope
        self.keys = Keys(scope)
        self.url = url
        self.timeout = timeout
        self._patience = patience

    def patient(self, seconds: float) -> Self:
        """The same store, whose calls are tried again for ``seconds`` while Redis is away or refuses for a while."""
        return type(self)(self.client, self.scope, url=self.url, timeout=self.timeout, patience=seconds)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from redis.exceptions import RedisClusterException, RedisError

        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:
            raise translate(error, self.url) from error

    def _try(self, call: Callable[[], T]) -> T:
        deadline = time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                with self._translated():
                    return call()
            except (StoreUnavailableError, StoreRefusedError) as error:
                if isinstance(error, StoreRefusedError) and not error.temporary:
                    raise
                if time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _run_script(self, name: str, key: str, **arguments: Any) -> dict[str, Any]:
        """Runs lua/<name>.lua with the one key that routes it and named arguments; None is left out."""
        script = load_script(name)
        text = encode_arguments({"prefix": self.keys.prefix, **arguments})

        def call() -> str:
            from redis.exceptions import NoScriptError

            try:
                return str(self.client.evalsha(script.sha, 1, key, text))
            except NoScriptError:
                return str(self.client.eval(script.text, 1, key, text))

        return decode_reply(self._try(call))

    def _read(self, fill: Callable[[Any], None]) -> list[Any]:
        """Sends the commands that ``fill`` puts into a pipeline, in one flight."""

        def call() -> list[Any]:
            pipeline = self.client.pipeline(transaction=False)
            fill(pipeline)
            return list(pipeline.execute())

        return self._try(call)

    def _members(self, key: str) -> list[str]:
        """The members of a sorted set, in its order."""
        return [str(member) for member in self._try(lambda: self.client.zrange(key, 0, -1))]

    def redis_time(self) -> int:
        """Milliseconds since the epoch on the Redis clock."""
        seconds, microseconds = self._try(self.client.time)
        return int(seconds) * 1000 + int(microseconds) // 1000
