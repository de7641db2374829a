"""Waiting for something to become true, never for time to pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(
    predicate: Callable[[], Value], *, timeout: float = 10.0, interval: float = 0.01, description: str
) -> Value:
    """Call `predicate` until it answers something true, and return that.

    Args:
        predicate: Asked again and again; an exception of it ends the wait and reaches the caller.
        timeout: Seconds after which the test fails.
        interval: Seconds between two calls.
        description: What is waited for; it ends the sentence "waited 10 s for …".

    Raises:
        AssertionError: The time is over; the message has the last answer.
    """
    deadline = time.monotonic() + timeout
    late = False
    while not (answer := predicate()):
        if late:
            raise AssertionError(f"waited {timeout:g} s for {description}; the last answer was {answer!r}")
        time.sleep(interval)
        # Before the next look: one that a busy machine held up is not the last.
        late = time.monotonic() > deadline
    return answer
