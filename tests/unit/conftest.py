"""Fixtures of the unit tests: the store on a fake server, under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.stores import Clock, fake_store, settable_clock, undocumented_keys

from resweep_scheduler.store import Store


@pytest.fixture
def clock() -> Iterator[Clock]:
    """The Redis clock; it stands still unless the test moves it."""
    with settable_clock() as settable:
        yield settable


@pytest.fixture
def store(clock: Clock) -> Iterator[Store]:
    """An empty store; a test that leaves a key behind which keys.py does not list fails."""
    empty = fake_store()
    yield empty
    assert undocumented_keys(empty) == []
