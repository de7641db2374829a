"""Agents that come, restart and go, and claims that come twice or too late."""

from __future__ import annotations

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, dump, make_offer, make_sweep, pass_time

from resweep_scheduler.store import (
    AgentReplacedError,
    ClaimOutcome,
    Hold,
    RunState,
    Store,
)


def test_repeated_claim_gives_the_same_run(store: Store) -> None:
    """After a lost reply the same claim is answered as the first time, and nothing happens twice."""
    make_sweep(store)
    agent = Agent(store)
    request = agent.request(make_offer(2))
    first, before = store.claim(request), dump(store)
    assert store.claim(request) == first
    assert dump(store) == before


def test_repeated_claim_after_the_run_was_lost(store: Store, clock: Clock) -> None:
    """A claim whose run was reaped meanwhile is answered LOST, and takes nothing until a new nonce asks."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2))
    agent = Agent(store)
    request = agent.request()
    store.claim(request)
    pass_time(store, clock, LEASE)
    before = dump(store)
    assert store.claim(request).outcome is ClaimOutcome.LOST
    assert dump(store) == before
    agent.seq += 1
    assert agent.take().token.run_id == "run0"


def test_claim_that_arrives_after_a_newer_one_takes_nothing(store: Store) -> None:
    """A claim that was held up in the network while its agent went on is LATE."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(3))
    agent = Agent(store)
    held_up = agent.request()
    agent.take()
    agent.end()
    before = dump(store)
    assert store.claim(held_up).outcome is ClaimOutcome.LOST
    assert dump(store) == before
    agent.take()
    before = dump(store)
    assert store.claim(held_up).outcome is ClaimOutcome.LATE
    assert dump(store) == before
    check_promises(store, SWEEP, complete=False)


def test_claim_that_was_answered_wait_may_come_again_late(store: Store) -> None:
    """A polling claim keeps its nonce, so a late copy of it finds the run that the later one got."""
    make_sweep(store)
    agent = Agent(store)
    held_up = agent.request()
    assert agent.claim().outcome is ClaimOutcome.ASK
    store.add_runs(SWEEP, make_offer(2))
    run = agent.take_unconfirmed()
    assert store.claim(held_up).run == run
    assert [lease.run_id for lease in store.leases(SWEEP)] == ["run0"]


def test_claim_of_an_agent_that_left_takes_nothing(store: Store) -> None:
    """Nobody is there to launch what a late claim would get."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(1))
    agent = Agent(store)
    agent.leave()
    before = dump(store)
    assert store.claim(agent.request()).outcome is ClaimOutcome.UNREGISTERED
    assert dump(store) == before


def test_claim_without_registration(store: Store) -> None:
    """An agent that the store does not know (Redis was emptied) registers, and goes on with its nonce."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(1))
    agent = Agent(store, register=False)
    agent.seq = 7
    assert agent.claim().outcome is ClaimOutcome.UNREGISTERED
    agent.register()
    assert agent.take().token.nonce == "session-a.7"


def test_slots_of_one_process_do_not_disturb_each_other(store: Store) -> None:
    """Slots share a session and count their claims each on its own."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(4))
    slots = [Agent(store, name, session="process") for name in ("a-0", "a-1")]
    assert [slot.take().index for slot in slots * 2] == [0, 1, 2, 3]
    slots[0].leave()
    assert slots[1].heartbeat().hold is Hold.OWNER
    assert [record.agent for record in store.agents(SWEEP)] == ["a-1"]


# Agents that come, restart and go.


def test_restarted_agent_gives_its_run_back_at_once(store: Store) -> None:
    """Registering under the same id voids what the older process held, without waiting for the lease."""
    make_sweep(store)
    old = Agent(store, "node1", session="old", preemptible=True)
    old.take(make_offer(1))
    new = Agent(store, "node1", session="new", register=False)
    assert new.register() == ["run0"]
    assert store.sweep(SWEEP).queue == ("run0",)
    assert new.register() == []
    run = new.take()
    assert (run.token.run_id, run.token.attempt) == ("run0", 2)
    check_promises(store, SWEEP, complete=False)


def test_replaced_agent_is_told_to_end_its_child(store: Store) -> None:
    """Nothing that the older process holds counts any more, even before somebody else takes its run."""
    make_sweep(store)
    old = Agent(store, "node1", session="old")
    old.take(make_offer(1))
    Agent(store, "node1", session="new")
    before = dump(store)
    assert old.heartbeat().hold is Hold.STALE
    assert old.adopt().hold is Hold.STALE
    assert old.log(0).hold is Hold.STALE
    assert old.mark().hold is Hold.STALE
    assert store.commit_checkpoint(old.run.token, path="/tmp/x", step=1).hold is Hold.STALE
    assert old.end(0).hold is Hold.STALE
    assert old.claim().outcome is ClaimOutcome.UNREGISTERED
    assert dump(store) == before


def test_adoption_by_a_process_that_was_replaced_is_refused(store: Store, clock: Clock) -> None:
    """Same id again means that the older one is gone: also when its lease had run out before."""
    make_sweep(store)
    old = Agent(store, "node1", session="old")
    old.take(make_offer(1))
    pass_time(store, clock, LEASE)
    Agent(store, "node1", session="new")
    before = dump(store)
    assert old.adopt().hold is Hold.STALE
    assert dump(store) == before


def test_registration_that_arrives_after_its_agent_was_replaced_does_nothing(store: Store) -> None:
    """A held-up registration of the older process does not void what the newer one holds."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2))
    Agent(store, "node1", session="old").take()
    new = Agent(store, "node1", session="new")
    new.take()
    before = dump(store)
    with pytest.raises(AgentReplacedError, match="node1"):
        Agent(store, "node1", session="old")
    assert dump(store) == before
    assert new.heartbeat().hold is Hold.OWNER


def test_registration_that_arrives_after_its_agent_left_does_nothing(store: Store) -> None:
    """A held-up registration of a process that left does not void what a newer one of the same id holds."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2))
    Agent(store, "node1", session="old").leave()
    new = Agent(store, "node1", session="new")
    new.take()
    before = dump(store)
    with pytest.raises(AgentReplacedError):
        Agent(store, "node1", session="old")
    assert dump(store) == before
    assert new.heartbeat().hold is Hold.OWNER


def test_registration_of_a_replaced_process_is_refused_after_its_successor_left(store: Store) -> None:
    """What the record of an agent knew of older processes outlives its farewell."""
    make_sweep(store)
    Agent(store, "node1", session="first")
    Agent(store, "node1", session="second").leave()
    third = Agent(store, "node1", session="third")
    third.take(make_offer(1))
    with pytest.raises(AgentReplacedError):
        Agent(store, "node1", session="first")
    assert third.heartbeat().hold is Hold.OWNER


def test_leaving_late_does_not_remove_the_successor(store: Store) -> None:
    """A held-up farewell of the older process leaves the newer one registered."""
    make_sweep(store)
    old = Agent(store, "node1", session="old")
    new = Agent(store, "node1", session="new")
    old.leave()
    assert new.take(make_offer(1)).token.run_id == "run0"


def test_agents_show_what_they_hold(store: Store, clock: Clock) -> None:
    """The record of an agent names its run, whether it waits, and when it was heard last."""
    make_sweep(store)
    busy, idle = Agent(store, "busy"), Agent(store, "idle")
    busy.take(make_offer(1, exhausted=True))
    heard = store.redis_time()
    clock.advance(5)
    idle.claim()
    records = {record.agent: record for record in store.agents(SWEEP)}
    assert (records["busy"].run_id, records["busy"].waiting, records["busy"].last_seen) == ("run0", False, heard)
    assert (records["idle"].run_id, records["idle"].waiting, records["idle"].last_seen) == (None, True, heard + 5000)


def test_dead_agent_is_not_shown_as_seen_when_its_lease_is_reaped(store: Store, clock: Clock) -> None:
    """Last seen is when the agent itself was heard, not when somebody else ended its attempt."""
    make_sweep(store)
    dead = Agent(store, "dead")
    dead.take(make_offer(1))
    heard = store.redis_time()
    pass_time(store, clock, LEASE)
    assert store.run("run0").state is RunState.CRASHED
    [record] = store.agents(SWEEP)
    assert (record.run_id, record.last_seen) == (None, heard)


def test_pending_runs_wait_for_agents_in_order_of_their_indices(store: Store) -> None:
    """Suggestions of several asks are handed out in the order of the search."""
    make_sweep(store)
    agent = Agent(store)
    store.add_runs(SWEEP, make_offer(2))
    store.add_runs(SWEEP, make_offer(3, first=2))
    assert store.sweep(SWEEP).counts[RunState.PENDING] == 5
    assert [agent.take().index for _ in range(5)] == [0, 1, 2, 3, 4]
