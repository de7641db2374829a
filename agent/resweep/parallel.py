"""Calls that run side by side, whose results are taken in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Call(Generic[Result]):
    """One call in a thread of its own. The threads are daemons: a script that ends does not wait for them."""

    def __init__(self, call: Callable[[], Result]) -> None:
        self._call = call
        self._result: Result
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = threading.Thread(target=self._run, name="resweep-transfer", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter ends, and has no new threads
            self._thread = None
            self._run()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> Result:
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


def in_order(call: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[tuple[Item, Result]]:
    """Each item with what `call` makes of it, in the order of the items.

    At most `workers` results are being made or wait to be taken, which bounds the memory that they need. An error of a
    call is raised in its turn.
    """
    under_way: deque[tuple[Item, _Call[Result]]] = deque()
    for item in items:
        if len(under_way) == workers:
            first, running = under_way.popleft()
            yield first, running.result()
        under_way.append((item, _Call(lambda item=item: call(item))))  # type: ignore[misc]
    for item, running in under_way:
        yield item, running.result()
