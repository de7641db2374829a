"""Fixtures of the unit tests: the store on a fake server, under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.stores import Clock, fake_store, settable_clock

from resweep_scheduler.store import Store


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The Redis clock; it stands still unless the test moves it."""
    with settable_clock() as settable:
        yield settable


@pytest.fixture
def store(clock: Clock) -> Store:
    """An empty store."""
    return fake_store()
