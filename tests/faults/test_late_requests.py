"""A request is on its way for long: its caller has given up, others have gone on, and then it is executed after all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from redis import Redis
from support.calls import CALLS, LEASE_MS, Stage
from support.dump import dump_keys
from support.proxy import FaultProxy
from support.waiting import wait_until

from resweep_scheduler.store import ClaimOutcome, Scope, Store, StoreUnavailableError, connect
from resweep_scheduler.store.states import RunState

GIVES_UP = 1.0
"""Seconds after which a client no longer waits for its reply; it must suffice for connecting on a busy machine."""

FENCED = sorted(set(CALLS) - {"set_sweep_state", "remove_runs"})
"""A late word of a person is still his word: those two carry no token and are executed when they come."""


@pytest.fixture
def impatient(proxy: FaultProxy) -> Iterator[Store]:
    """A store behind the proxy whose calls give up soon."""
    with ExitStack() as stack:
        client = connect(proxy.url, timeout=GIVES_UP)
        stack.callback(client.close)
        yield Store(client, Scope(), url=proxy.url)


def hold(proxy: FaultProxy, name: str, call: Callable[[], object]) -> None:
    """Make a call whose request does not arrive, and whose caller gives up."""
    proxy.hold_request_of(name)
    with pytest.raises(StoreUnavailableError):
        call()
    wait_until(lambda: proxy.held[name] == 1, description=f"the request of {name} that is held")


def deliver(client: Redis, proxy: FaultProxy) -> None:
    """Let the held request reach the server, and wait until it was executed."""

    def executed() -> int:
        return int(client.info("commandstats")["cmdstat_evalsha"]["calls"])

    before = executed()
    proxy.release_held()
    wait_until(lambda: executed() > before, description="the execution of the request that was held")


@pytest.mark.parametrize("name", FENCED)
def test_a_call_that_comes_after_its_time_changes_nothing(
    name: str, client: Redis, proxy: FaultProxy, impatient: Store
) -> None:
    call = CALLS[name](Stage(Store(client, Scope())))
    assert call.supersede is not None
    hold(proxy, name, lambda: call.make(impatient))
    call.supersede()
    settled = dump_keys(client)

    deliver(client, proxy)

    assert dump_keys(client) == settled


def test_a_claim_that_comes_after_its_agent_has_left_takes_no_run(
    client: Redis, proxy: FaultProxy, impatient: Store
) -> None:
    stage = Stage(Store(client, Scope()))
    hold(proxy, "claim", lambda: impatient.claim(stage.request("one")))
    stage.store.leave(stage.sweep_id, agent="one", session="onea")

    deliver(client, proxy)

    assert stage.store.sweep(stage.sweep_id).counts[RunState.RUNNING] == 0


def test_a_claim_that_comes_after_its_agent_was_started_again_takes_no_run(
    client: Redis, proxy: FaultProxy, impatient: Store
) -> None:
    stage = Stage(Store(client, Scope()))
    hold(proxy, "claim", lambda: impatient.claim(stage.request("one")))
    stage.register("one", "oneb")

    deliver(client, proxy)

    assert stage.store.sweep(stage.sweep_id).counts[RunState.RUNNING] == 0


def test_a_claim_that_comes_late_but_while_its_agent_still_asks_is_the_same_claim(
    client: Redis, proxy: FaultProxy, impatient: Store
) -> None:
    """The late call and the repeated one are one claim: whichever comes first takes the run, the other finds it."""
    stage = Stage(Store(client, Scope()))
    request = stage.request("one")
    hold(proxy, "claim", lambda: impatient.claim(request))

    deliver(client, proxy)
    answer = stage.store.claim(request)

    assert answer.outcome is ClaimOutcome.RUN
    assert stage.store.sweep(stage.sweep_id).counts[RunState.RUNNING] == 1


def test_a_late_heartbeat_does_not_bring_back_a_lease_that_ran_out(
    client: Redis, proxy: FaultProxy, impatient: Store
) -> None:
    stage = Stage(Store(client, Scope()))
    token = stage.begin()
    hold(
        proxy,
        "heartbeat",
        lambda: impatient.heartbeat(stage.sweep_id, agent="one", token=token, lease_ms=LEASE_MS),
    )
    stage.lapse(token)

    deliver(client, proxy)

    assert stage.store.run(token.run_id).state is RunState.CRASHED
    assert token.run_id not in {lease.run_id for lease in stage.store.leases(stage.sweep_id)}
