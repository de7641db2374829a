"""The reply of a call is lost: the call was executed, its caller does not know, and makes it again (promise 3)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from redis import Redis
from support.calls import CALLS, LEASE_MS, Stage
from support.dump import dump_keys
from support.proxy import FaultProxy, script_names

from resweep_scheduler.store import (
    ClaimRequest,
    Scope,
    Store,
    StoreUnavailableError,
    connect,
)


@pytest.fixture
def faulty(proxy: FaultProxy) -> Iterator[Store]:
    """A store behind the proxy."""
    with ExitStack() as stack:
        client = connect(proxy.url)
        stack.callback(client.close)
        yield Store(client, Scope(), url=proxy.url)


EXPIRES = ("begin_asking",)
"""Scripts that leave nothing but keys which expire, and which `dump_keys` leaves out."""


def test_there_is_a_call_of_every_script() -> None:
    assert sorted(CALLS) == script_names()


@pytest.mark.parametrize("name", script_names())
def test_a_call_whose_reply_was_lost_is_made_again_and_changes_nothing_more(
    name: str, client: Redis, proxy: FaultProxy, faulty: Store
) -> None:
    call = CALLS[name](Stage(Store(client, Scope())))
    untouched = dump_keys(client)
    proxy.cut_reply_of(name)
    with pytest.raises(StoreUnavailableError):
        call.make(faulty)
    assert proxy.lost[name] == 1
    once = dump_keys(client)
    if name not in EXPIRES:
        assert once != untouched, "the call whose reply was lost had no effect, so this test shows nothing"

    answer = call.make(faulty)

    assert dump_keys(client) == once
    assert call.answered(answer), answer


def test_a_claim_with_an_offer_whose_reply_was_lost_adds_its_runs_once(
    client: Redis, proxy: FaultProxy, faulty: Store
) -> None:
    stage = Stage(Store(client, Scope()))
    for _ in range(4):
        stage.end(stage.claim("one").token, exit_code=0)
    request = ClaimRequest(
        sweep_id=stage.sweep_id, agent="two", nonce="twoa.1", lease_ms=LEASE_MS, offer=stage.offer(4, 2)
    )
    proxy.cut_reply_of("claim")
    with pytest.raises(StoreUnavailableError):
        faulty.claim(request)

    answer = faulty.claim(request)

    assert answer.run is not None
    assert (answer.run.index, answer.next_index) == (4, 6)
    assert [run.index for run in stage.store.runs(stage.sweep_id)] == list(range(6))
