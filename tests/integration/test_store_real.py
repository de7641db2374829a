"""The store on real servers: Valkey, Redis, Sentinel, Cluster, and Redis with TLS and an agent's ACL user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import redis
from support.checks import check_promises
from support.servers import cluster_servers, private_server, require, sentinel_servers, tls_acl_server
from support.stores import Agent, be_heard, make_offer, make_sweep, undocumented_keys, work_through
from support.waiting import wait_until

from resweep_scheduler.store import (
    ClaimOutcome,
    EndRequest,
    Hold,
    InitOutcome,
    RunMeta,
    RunState,
    Scope,
    Store,
    SweepCommand,
    SweepState,
    new_id,
    open_store,
    open_sweep,
)

SHORT_LEASE = 0.6
"""Seconds; for tests in which a lease runs out."""


@dataclass(frozen=True)
class Deployment:
    """A server, or several, for all tests of this module.

    Attributes:
        url: What an agent is given.
        forget_scripts: Empties the script cache, as an administrator or a failover does.
    """

    url: str
    forget_scripts: Callable[[], object]


@contextmanager
def _valkey(directory: Path) -> Iterator[Deployment]:
    with private_server(directory, appendfsync="") as server, server.client() as client:
        yield Deployment(server.url, client.script_flush)


@contextmanager
def _redis(directory: Path) -> Iterator[Deployment]:
    with private_server(directory, binary=require("redis-server"), appendfsync="") as server, server.client() as client:
        yield Deployment(server.url, client.script_flush)


@contextmanager
def _sentinel(directory: Path) -> Iterator[Deployment]:
    with sentinel_servers(directory) as sentinels, sentinels.master().client() as client:
        yield Deployment(sentinels.url, client.script_flush)


@contextmanager
def _cluster(directory: Path) -> Iterator[Deployment]:
    with cluster_servers(directory) as cluster:

        def forget() -> None:
            for node in cluster.nodes:
                with node.client() as client:
                    client.script_flush()

        yield Deployment(cluster.url, forget)


@contextmanager
def _tls_and_acl(directory: Path) -> Iterator[Deployment]:
    with tls_acl_server(directory) as secure:
        store = open_store(secure.agent_url, Scope())

        def forget() -> None:
            with pytest.raises(redis.exceptions.NoPermissionError):
                store.client.script_flush()

        yield Deployment(secure.agent_url, forget)
        store.client.close()


DEPLOYMENTS = {
    "valkey": _valkey,
    "redis": _redis,
    "sentinel": _sentinel,
    "cluster": _cluster,
    "tls and acl": _tls_and_acl,
}


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with DEPLOYMENTS[request.param](tmp_path_factory.mktemp("servers")) as started:
        yield started


@pytest.fixture
def store(deployment: Deployment) -> Iterator[Store]:
    """A project of the test's own; a test that leaves a key behind which keys.py does not list fails."""
    opened = open_store(deployment.url, Scope("local", f"project-{new_id()}"))
    yield opened
    assert undocumented_keys(opened) == []
    opened.client.close()


@pytest.fixture
def sweep_id() -> str:
    """Sweep ids are used once on a server."""
    return f"sweep-{new_id()}"


def test_whole_life_of_a_sweep(store: Store, sweep_id: str) -> None:
    """Each transition once: taken, logged, preempted, resumed elsewhere, stopped, retried, finished, removed."""
    make_sweep(store, sweep_id, metric_name="loss", metric_goal="minimize")
    first, second = Agent(store, "a", sweep_id=sweep_id), Agent(store, "b", sweep_id=sweep_id)
    token = first.take(make_offer(3, exhausted=True)).token
    begun = store.init_run(
        run_id="run0", resume="allow", nonce=token.nonce, attempt=1, config={"a": {"b": 1}}, meta=RunMeta(tags=("t",))
    )
    assert (begun.outcome, begun.starting_step, begun.objective.metrics) == (
        InitOutcome.NEW,
        0,
        (("loss", "minimize"),),
    )
    first.log(0, 1, 2, summary='{"loss": 2}', metric=2.0)
    store.commit_checkpoint(token, path="/tmp/c2", step=2)
    store.append_output(token, "hello\n", piece=1)
    assert first.mark().hold is Hold.OWNER
    assert first.end(1).state is RunState.PREEMPTED
    assert store.sweep(sweep_id).queue == ("run0",)

    resumed = second.take()
    assert (resumed.token.run_id, resumed.token.attempt, resumed.step) == ("run0", 2, 2)
    assert resumed.checkpoint is not None
    assert resumed.checkpoint.path == "/tmp/c2"
    again = store.init_run(run_id="run0", resume="must", nonce=resumed.token.nonce, attempt=2)
    assert (again.outcome, again.starting_step) == (InitOutcome.RESUMED, 3)
    assert store.log(token, first_seq=4, rows=[(3, "{}")]).hold is Hold.STALE
    second.log(3, 4, metric=0.5)
    ended, claimed = store.end_and_claim(EndRequest(resumed.token, 0), second.request())
    assert (ended.state, claimed.outcome) == (RunState.FINISHED, ClaimOutcome.RUN)

    assert store.stop_run("run2", reason="stopped by user") is RunState.KILLED
    third = Agent(store, "b", sweep_id=sweep_id, session="restarted")
    assert third.take().token.attempt == 2  # run1, which the older process had claimed
    assert third.end(1).state is RunState.FAILED
    assert store.sweep(sweep_id).state is SweepState.FINISHED
    retried = store.retry_runs(sweep_id, ["run0", "run1", "run2"])
    assert retried == {"run1": RunState.FAILED, "run2": RunState.KILLED}
    for _ in retried:
        third.take()
        third.log(*range(5))
        third.end(0)
    assert third.claim().outcome is ClaimOutcome.DONE
    check_promises(store, sweep_id, steps=range(5))

    assert store.run("run0").summary == {"loss": 2}
    assert store.run("run0").config == {"x": 0, "a": {"b": 1}}
    assert [chunk.text for chunk in store.output("run0")] == ["hello\n"]
    assert store.remove_sweep(sweep_id) == 3
    client: Any = store.client
    left = list(client.scan_iter(match=f"{store.keys.prefix}*"))
    assert all(client.pttl(key) > 0 for key in left)


def test_commands_of_people(store: Store, sweep_id: str) -> None:
    """Pause, resume, stop and cancel, seen by an agent that runs."""
    make_sweep(store, sweep_id)
    agent = Agent(store, sweep_id=sweep_id)
    agent.take(make_offer(2))
    for command, state, outcome in (
        (SweepCommand.PAUSE, SweepState.PAUSED, ClaimOutcome.WAIT),
        (SweepCommand.STOP, SweepState.FINISHED, ClaimOutcome.DONE),
        (SweepCommand.CANCEL, SweepState.CANCELED, ClaimOutcome.DONE),
    ):
        assert store.command_sweep(sweep_id, command) is state
        assert Agent(store, "other", sweep_id=sweep_id).claim().outcome is outcome
    assert agent.heartbeat().stop == "canceled"
    agent.end(None, killed=True)
    check_promises(store, sweep_id)


def test_lease_runs_out_on_the_redis_clock(store: Store, sweep_id: str) -> None:
    """A silent owner loses its run while others are heard; it adopts the run again while nobody has taken it."""
    make_sweep(store, sweep_id, lease=SHORT_LEASE)
    owner = Agent(store, "owner", sweep_id=sweep_id, lease=SHORT_LEASE, preemptible=True)
    owner.take(make_offer(1, exhausted=True))

    def lost() -> bool:
        be_heard(store, sweep_id)
        return store.run("run0").state is RunState.PREEMPTED

    wait_until(lost, timeout=20, description="the lease to run out")
    assert owner.heartbeat().hold is Hold.LAPSED
    assert owner.adopt().hold is Hold.OWNER
    assert owner.heartbeat().hold is Hold.OWNER
    wait_until(lost, timeout=20, description="the lease to run out again")
    other = Agent(store, "other", sweep_id=sweep_id)
    assert other.take().token.attempt == 2
    assert owner.adopt().hold is Hold.STALE
    assert owner.end(0).hold is Hold.STALE
    other.end(0)
    check_promises(store, sweep_id)


def test_forgotten_scripts_are_sent_again(store: Store, sweep_id: str, deployment: Deployment) -> None:
    """A server that lost its script cache gets each script once more, also in the middle of two calls of one flight."""
    make_sweep(store, sweep_id)
    agent = Agent(store, sweep_id=sweep_id)
    deployment.forget_scripts()
    agent.take(make_offer(3, exhausted=True))
    for _ in range(2):
        deployment.forget_scripts()
        agent.heartbeat()  # only this script is known again
        ended, claimed = store.end_and_claim(EndRequest(agent.run.token, 0), agent.request())
        assert (ended.state, claimed.outcome) == (RunState.FINISHED, ClaimOutcome.RUN)
        assert agent.claim() == claimed
    deployment.forget_scripts()
    assert agent.end(0).state is RunState.FINISHED
    check_promises(store, sweep_id)
    assert [run.attempt for run in store.runs(sweep_id)] == [1, 1, 1]


def test_idle_agents_are_woken(store: Store, sweep_id: str) -> None:
    """Who waits for work wakes up when there is some, and who runs is called when it must hear something."""
    make_sweep(store, sweep_id)
    agent = Agent(store, sweep_id=sweep_id)
    assert not store.wait_for_work(sweep_id, 0.05)
    woken: list[bool] = []
    waiting = threading.Thread(target=lambda: woken.append(store.wait_for_work(sweep_id, 1)))
    waiting.start()
    store.add_runs(sweep_id, make_offer(1))
    waiting.join(10)
    assert woken == [True]
    agent.take()
    assert not store.wait_for_poke(sweep_id, session=agent.session, timeout=0.05)
    store.stop_run("run0", reason="stopped by user")
    assert store.wait_for_poke(sweep_id, session=agent.session, timeout=1)
    assert agent.heartbeat().stop == "stopped by user"
    agent.end(None, killed=True)


def test_events_are_read_as_they_come(store: Store, sweep_id: str) -> None:
    """Reading blocks until there is something new, and goes on after the last event."""
    make_sweep(store, sweep_id)
    [created] = store.events(sweep_id)
    assert store.events(sweep_id, after=created.event_id, block_ms=20) == []
    store.add_runs(sweep_id, make_offer(3))
    suggested = store.events(sweep_id, after=created.event_id, count=2, block_ms=1000)
    assert [(event.kind, event.run_id, event.after) for event in suggested] == [
        ("suggested", "run0", "pending"),
        ("suggested", "run1", "pending"),
    ]
    [last] = store.events(sweep_id, after=suggested[-1].event_id)
    assert last.run_id == "run2"


def test_sweep_is_found_by_its_id(store: Store, sweep_id: str, deployment: Deployment) -> None:
    """`sweep-agent` needs no more than the id."""
    make_sweep(store, sweep_id)
    found, name = open_sweep(deployment.url, sweep_id)
    assert (found.scope, name) == (store.scope, sweep_id)
    assert found.sweep(name).state is SweepState.PENDING
    found.client.close()


def test_processes_share_a_sweep(store: Store, sweep_id: str, deployment: Deployment) -> None:
    """Eight processes claim as fast as they can: each run is taken once, each index exists once, nothing is lost."""
    points, agents = 60, 8
    make_sweep(store, sweep_id)
    with ProcessPoolExecutor(agents, mp_context=get_context("spawn")) as pool:
        shares = [
            pool.submit(
                work_through, deployment.url, store.scope, sweep_id, f"agent{number}", agents=agents, points=points
            )
            for number in range(agents)
        ]
        claims = [claim for share in shares for claim in share.result(timeout=120)]
    assert sorted(claims) == sorted(
        (f"run{index}", attempt) for index in range(points) for attempt in ((1, 2) if index % 3 == 0 else (1,))
    )
    replay = check_promises(store, sweep_id)
    assert replay.counts == {"finished": points}
    assert [run.index for run in store.runs(sweep_id)] == list(range(points))
