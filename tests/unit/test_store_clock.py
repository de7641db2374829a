"""When a lease ends: on the Redis clock, without the gaps in which nobody at all was heard (promise 5)."""

from __future__ import annotations

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, be_heard, make_offer, make_sweep, pass_time

from resweep_scheduler.store import Hold, RunState, Store, SweepCommand


def owner_of(store: Store, name: str, index: int, *, lease: float = LEASE) -> Agent:
    """An agent that owns the run of this index, on a machine that may be taken away: the run is queued when lost."""
    agent = Agent(store, name, preemptible=True, lease=lease)
    assert agent.take(make_offer(1, first=index)).index == index
    return agent


def remaining(store: Store) -> dict[str, float]:
    """Seconds that the leases have left."""
    return {lease.run_id: lease.remaining_ms / 1000 for lease in store.leases(SWEEP)}


def test_lease_ends_when_its_time_was_heard(store: Store, clock: Clock) -> None:
    """An owner that is silent while others are heard loses its lease after exactly its length."""
    make_sweep(store)
    owner_of(store, "a", 0)
    pass_time(store, clock, LEASE - 10)
    clock.advance(9.999)
    be_heard(store)
    assert store.run("run0").state is RunState.RUNNING
    assert remaining(store) == {"run0": 0.001}
    clock.advance(0.001)
    be_heard(store)
    assert store.run("run0").state is RunState.PREEMPTED


def test_heartbeat_renews_the_lease(store: Store, clock: Clock) -> None:
    """An owner that is heard keeps its run for ever."""
    make_sweep(store)
    agent = owner_of(store, "a", 0)
    for _ in range(50):
        clock.advance(10)
        assert agent.heartbeat().hold is Hold.OWNER
    assert remaining(store) == {"run0": LEASE}


def test_healthy_owner_renews_a_lease_that_ran_out_unnoticed(store: Store, clock: Clock) -> None:
    """The owner's own heartbeat is never the one that ends its attempt."""
    make_sweep(store)
    agent = owner_of(store, "a", 0, lease=3)
    for _ in range(4):
        clock.advance(100)
        assert agent.heartbeat().hold is Hold.OWNER
    check_promises(store, SWEEP, complete=False)


@pytest.mark.parametrize("outage", [LEASE, 10 * LEASE, 1000 * LEASE])
def test_outage_loses_no_lease_of_anybody(store: Store, clock: Clock, outage: float) -> None:
    """Redis is away for many leases; who comes back first does not reap the others."""
    make_sweep(store)
    agents = [owner_of(store, name, index) for index, name in enumerate("abcd")]
    clock.advance(10)
    for agent in agents[:-1]:
        agent.heartbeat()
    clock.advance(outage)
    idle = Agent(store, "idle")
    idle.claim()
    for agent in agents:
        clock.advance(5)
        assert agent.heartbeat().hold is Hold.OWNER
    assert store.sweep(SWEEP).counts[RunState.RUNNING] == 4


def test_silence_of_everybody_counts_as_a_third_of_the_lease(store: Store, clock: Clock) -> None:
    """After an outage there is time to be heard: two thirds of what the lease had, minus what had passed before."""
    make_sweep(store)
    owner_of(store, "a", 0)
    clock.advance(10)
    be_heard(store)
    clock.advance(3600)
    be_heard(store)
    assert remaining(store) == {"run0": LEASE - 10 - LEASE / 3}


def test_dead_owner_is_found_after_an_outage_too(store: Store, clock: Clock) -> None:
    """An owner that does not come back after the outage loses its lease once others were heard long enough."""
    make_sweep(store)
    owner_of(store, "dead", 0)
    alive = owner_of(store, "alive", 1)
    clock.advance(10 * LEASE)
    for _ in range(round(LEASE / 10)):
        assert alive.heartbeat().hold is Hold.OWNER
        clock.advance(10)
    assert store.run("run0").state is RunState.PREEMPTED
    assert alive.heartbeat().hold is Hold.OWNER


def test_last_agent_died_and_another_comes_much_later(store: Store, clock: Clock) -> None:
    """Nobody was there to find the lost lease: the next agent finds it, after waiting for at most one lease."""
    make_sweep(store)
    owner_of(store, "dead", 0)
    clock.advance(7 * 24 * 3600)
    agent = Agent(store, "next")
    waited = 0
    while agent.claim().run is None and waited <= LEASE:
        clock.advance(1)
        waited += 1
    assert agent.run.token.run_id == "run0"
    assert LEASE / 3 < waited <= LEASE
    check_promises(store, SWEEP, complete=False)


@pytest.mark.parametrize("jump", [-3600, -600, -1, 600, 3600, 10**7])
def test_jump_of_the_server_clock_loses_no_lease(store: Store, clock: Clock, jump: int) -> None:
    """Forward is taken for an outage, backward for no time at all; both ways heartbeats go on as if nothing was."""
    make_sweep(store)
    first, second = owner_of(store, "a", 0), owner_of(store, "b", 1)
    clock.advance(10)
    second.heartbeat()
    clock.advance(jump)
    for _ in range(3):
        assert second.heartbeat().hold is Hold.OWNER
        clock.advance(5)
        assert first.heartbeat().hold is Hold.OWNER
        clock.advance(5)
    check_promises(store, SWEEP, complete=False)


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_lost_lease_is_found_after_a_jump_of_the_server_clock(store: Store, clock: Clock, jump: int) -> None:
    """A dead owner is found within a lease of heard time, however the clock stands."""
    make_sweep(store)
    owner_of(store, "dead", 0)
    clock.advance(jump)
    pass_time(store, clock, LEASE)
    pass_time(store, clock, 10)
    assert store.run("run0").state is RunState.PREEMPTED


def test_shorter_lease_of_one_agent_bounds_what_silence_counts(store: Store, clock: Clock) -> None:
    """With a lease of 15 s in use, silence counts 5 s at most: an outage does not end the short lease either."""
    make_sweep(store)
    short, other = owner_of(store, "short", 0, lease=15), owner_of(store, "other", 1)
    clock.advance(5)
    short.heartbeat()
    clock.advance(600)
    assert other.heartbeat().hold is Hold.OWNER
    assert remaining(store)["run0"] == 10
    clock.advance(4)
    assert short.heartbeat().hold is Hold.OWNER


def test_claim_finds_lost_leases_before_it_looks_for_a_run(store: Store, clock: Clock) -> None:
    """The claim that reaps a run is the one that gets it."""
    make_sweep(store)
    owner_of(store, "dead", 0)
    pass_time(store, clock, LEASE - 10)
    clock.advance(10)
    agent = Agent(store, "next")
    assert agent.take().token.run_id == "run0"


def test_stale_heartbeat_finds_lost_leases_of_others(store: Store, clock: Clock) -> None:
    """Whoever is heard looks after all leases, also somebody who lost its own."""
    make_sweep(store)
    owner_of(store, "dead", 0)
    loser = owner_of(store, "loser", 1)
    loser.end(0)
    for _ in range(6):
        clock.advance(10)
        assert loser.heartbeat().hold is Hold.ENDED
    assert store.run("run0").state is RunState.PREEMPTED


def test_paused_and_stopped_sweeps_find_lost_leases(store: Store, clock: Clock) -> None:
    """Agents that wait or are sent home still look after the leases of others."""
    make_sweep(store)
    owner_of(store, "dead", 0)
    waiting = Agent(store, "waiting")
    store.command_sweep(SWEEP, SweepCommand.PAUSE)
    for _ in range(6):
        clock.advance(10)
        waiting.claim()
    assert store.run("run0").state is RunState.PREEMPTED
    assert store.sweep(SWEEP).queue == ("run0",)
