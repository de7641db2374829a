"""10,000 agents on one server: its CPU share, and how long a claim takes meanwhile.

Every simulated agent owns a run and sends a heartbeat every 10 s, so 1,000 heartbeats reach the server each second.
They come evenly, from a few processes that each send what is due in a pipeline; one connection for each agent would
cost the server memory and some time for reading, and is not simulated. Meanwhile another client claims and ends runs
of the same sweep, and times its claims. The baseline is the least that any system with heartbeats can send, `SET key
value EX`, at the same rate from the same processes; and the same claims on the same server without any heartbeats.

An agent also waits on a list of its own for word that it must heartbeat at once. A wait holds a connection, so that
cannot travel in pipelines: what one wait costs is measured alone, on connections of its own.
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier, Event

import harness
from harness import Figure, Report, Server, Spread, StoreAgent
from redis import Redis

from resweep_scheduler.store import ClaimToken, EndRequest, Store, open_store
from resweep_scheduler.store.scripts import encode_arguments, load_script

AGENTS = 10_000
INTERVAL = 10.0  # seconds between the heartbeats of an agent
SENDERS = 2
TICK = 0.01  # seconds between two pipelines of a sender
WAITERS = 1000  # connections; as many waits a second
CLAIM_PAUSE = 0.02  # seconds between two claims: a run a moment, so that heartbeats and not claims make the load
_SPAWN = multiprocessing.get_context("spawn")

Held = tuple[str, ClaimToken]  # agent, what it owns


def heartbeat_command(store: Store, sweep_id: str, held: Held) -> tuple[object, ...]:
    """What `Store.heartbeat` sends."""
    agent, token = held
    arguments = {
        "prefix": store.keys.prefix,
        "sid": sweep_id,
        "agent": agent,
        "lease_ms": harness.LEASE_MS,
        "run_id": token.run_id,
        "attempt": token.attempt,
        "nonce": token.nonce,
    }
    return "EVALSHA", load_script("heartbeat").sha, 1, store.keys.run(token.run_id), encode_arguments(arguments)


def plain_command(held: Held) -> tuple[object, ...]:
    """A heartbeat of the simplest kind."""
    agent, token = held
    return "SET", f"alive:{agent}", token.nonce, "EX", 60


def send_heartbeats(url: str, sweep_id: str, held: list[Held], *, plain: bool, barrier: Barrier, stop: Event) -> None:
    """One sender: the heartbeats of its agents, evenly over the interval, until told to stop."""
    store = open_store(url, harness.SCOPE, timeout=30)
    commands = [plain_command(one) if plain else heartbeat_command(store, sweep_id, one) for one in held]
    if held and not plain:  # one the usual way, so that the server has the script
        agent, token = held[0]
        store.heartbeat(sweep_id, agent=agent, token=token, lease_ms=harness.LEASE_MS)
    barrier.wait(120)
    start = time.monotonic()
    sent = 0
    while not stop.wait(TICK):
        due = int((time.monotonic() - start) / INTERVAL * len(commands))
        pipeline = store.client.pipeline(transaction=False)
        for number in range(sent, due):
            pipeline.execute_command(*commands[number % len(commands)])
        pipeline.execute()
        sent = due


@dataclass(frozen=True, slots=True)
class Load:
    """What was seen during one load."""

    cpu_share: float  # of one core
    claim_ms: list[float]


def under_load(server: Server, sweep_id: str, held: list[Held], *, plain: bool, seconds: float) -> Load:
    """Claims against a server that gets the heartbeats of ``held``, which may be none."""
    store = server.store()
    agent = StoreAgent(store, sweep_id, f"claimer-{time.monotonic_ns()}")
    barrier, stop = _SPAWN.Barrier(SENDERS + 1), _SPAWN.Event()
    shares = [held[number::SENDERS] for number in range(SENDERS)]
    senders = [
        _SPAWN.Process(
            target=send_heartbeats,
            args=(server.url, sweep_id, share),
            kwargs={"plain": plain, "barrier": barrier, "stop": stop},
        )
        for share in shares
    ]
    for sender in senders:
        sender.start()
    barrier.wait(120)
    cpu, start = server.cpu_seconds(), time.monotonic()
    claim_ms = []
    while time.monotonic() < start + seconds:
        claim_ms.append(timed_claim(store, agent, sweep_id))
        time.sleep(CLAIM_PAUSE)
    share = (server.cpu_seconds() - cpu) / (time.monotonic() - start)
    stop.set()
    for sender in senders:
        sender.join()
    if any(sender.exitcode for sender in senders):
        raise RuntimeError("a sender failed; its message is above")
    return Load(share, claim_ms)


def timed_claim(store: Store, agent: StoreAgent, sweep_id: str) -> float:
    """Milliseconds of one claim that carries its offer; the run is ended afterwards."""
    next_index = store.sweep(sweep_id).next_index
    offer = harness.offer_for(sweep_id, next_index)
    start = time.perf_counter()
    run = agent.claim(offer).run
    taken = (time.perf_counter() - start) * 1000
    if run is None:
        raise RuntimeError("a claim with an offer must get a run")
    store.end_attempt(EndRequest(run.token, exit_code=0))
    return taken


def populate(store: Store, sweep_id: str, count: int) -> list[Held]:
    """Agents that each own a run."""
    held = []
    for index in range(count):
        agent = StoreAgent(store, sweep_id, f"node{index:05d}")
        run = agent.claim(harness.offer_for(sweep_id, index)).run
        if run is None:
            raise RuntimeError("a claim with an offer must get a run")
        held.append((agent.name, run.token))
    return held


def measure(quick: bool) -> Report:
    """Loads in turn: heartbeats of ours, plain ones, none."""
    count = 1000 if quick else AGENTS
    seconds = 3.0 if quick else 10.0
    rounds = 1 if quick else 2  # of 10 s each: 20 s of every load
    report = Report(f"Agents: {count:,} with a heartbeat every {INTERVAL:.0f} s on one server")
    for settings, appendfsync in (("AOF everysec", "everysec"), ("AOF always", "always")):
        with harness.private_server("") as server:
            harness.say(f"agents, {settings}: starting {count:,}")
            store = server.store()
            sweep_id = harness.new_sweep(store)
            held = populate(store, sweep_id, count)
            with server.client() as client:
                _switch_on_file(client, appendfsync)
            loads: dict[str, list[Load]] = {"ours": [], "plain": [], "none": []}
            for _ in range(rounds):
                for name, agents in (("ours", held), ("plain", held), ("none", [])):
                    harness.say(f"agents, {settings}: {name} for {seconds:.0f} s")
                    loads[name].append(under_load(server, sweep_id, agents, plain=name == "plain", seconds=seconds))
        report.figures.extend(_figures(settings, loads))
    with harness.private_server("") as server:
        harness.say(f"agents: {WAITERS:,} that wait for a poke")
        costs = [wait_cost_us(server, seconds) for _ in range(rounds)]
    wait = Figure("server CPU, a wait for a poke", "µs", Spread.of(costs))
    report.figures.append(wait)
    report.remarks.append(
        "not in the share above: each agent process renews its wait for a poke once a second; by its cost, "
        f"{count:,} of them take {wait.ours.median * count / 1e4:.0f} % of a core more (computed)"
    )
    return report


def wait_cost_us(server: Server, seconds: float) -> float:
    """Microseconds of server CPU for one wait of an agent for a poke that does not come, with many waiting at once.

    The waits are written to plain sockets, because a client library would be the limit, not the server.
    """
    keys = server.store().keys
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number in range(WAITERS):
            waiter = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiter.connect(server.url.removeprefix("unix://"))
            key = keys.sweep("waits", f"poke:{number:08x}")
            command = f"*3\r\n$5\r\nBLPOP\r\n${len(key)}\r\n{key}\r\n$1\r\n1\r\n".encode()
            selector.register(waiter, selectors.EVENT_READ, (waiter, command))
            waiter.sendall(command)
            time.sleep(1 / WAITERS)  # so that they do not all end at the same moment
        waits, cpu, end = 0, server.cpu_seconds(), time.monotonic() + seconds
        while time.monotonic() < end:
            for ready, _ in selector.select(0.1):
                waiter, command = ready.data
                waiter.recv(256)
                waiter.sendall(command)
                waits += 1
        return (server.cpu_seconds() - cpu) / waits * 1e6


def _switch_on_file(client: Redis, appendfsync: str) -> None:
    """The file comes after the agents, whose start is not what is measured."""
    client.config_set("appendfsync", appendfsync)
    client.config_set("appendonly", "yes")
    while client.info("persistence")["aof_rewrite_in_progress"]:
        time.sleep(0.05)


def _figures(settings: str, loads: dict[str, list[Load]]) -> list[Figure]:
    shares = {name: [load.cpu_share * 100 for load in some] for name, some in loads.items()}
    claims = {name: [ms for load in some for ms in load.claim_ms] for name, some in loads.items()}
    worst = {name: harness.percentile(some, 99) for name, some in claims.items()}
    return [
        Figure(
            f"server CPU, {settings}",
            "% of a core",
            Spread.of(shares["ours"]),
            "SET … EX heartbeats",
            Spread.of(shares["plain"]),
            f"x {harness.paired_ratio(shares['ours'], shares['plain']):.1f}",
        ),
        Figure(
            f"claim, {settings}",
            "ms",
            Spread.of(claims["ours"]),
            "same without heartbeats",
            Spread.of(claims["none"]),
            f"x {harness.percentile(claims['ours'], 50) / harness.percentile(claims['none'], 50):.2f}",
        ),
        Figure(
            f"claim p99, {settings}",
            "ms",
            Spread.of([worst["ours"]]),
            "same without heartbeats",
            Spread.of([worst["none"]]),
            f"x {worst['ours'] / worst['none']:.2f}",
        ),
    ]


if __name__ == "__main__":
    harness.main(measure, __doc__)
