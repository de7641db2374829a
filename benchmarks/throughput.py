"""Full cycles (add, claim, end) per second by 8 client processes on one server, against RQ's SimpleWorker.

A cycle is a suggestion that becomes a run, a claim that hands it out and the report that it finished. "three calls"
makes three round trips of it, each client in a sweep of its own; "one flight" is what an agent does between two runs:
end, offer and claim travel together, all clients work on one sweep and race for its indices, and offers get longer
while others are faster.

RQ's jobs are put on the queue before the clock starts, so RQ is measured without its enqueueing, on the same server.
There are two baselines, because "RQ's SimpleWorker" may mean one worker or as many workers as we have clients; the
target is judged against the eight, the harder one. Rounds alternate. A server without a file shows the cost of the
code; the embedded server's settings (every write is synced to the disk before it is answered) show what a user of one
machine gets. The CPU time of clients and server together is what a busy machine changes least.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Barrier

import harness
from harness import Figure, Report, Server, Spread, StoreAgent
from redis import Redis

from resweep_scheduler.store import ClaimOutcome, EndRequest, Offer, RunState, open_store

CLIENTS = 8
TARGET = 20.0
LONGEST_OFFER = 16  # as the agent's
QUEUE = "bench"
READY_TIMEOUT = 120.0  # seconds
_SPAWN = multiprocessing.get_context("spawn")

Ready = Callable[[], None]  # called by a client when it is connected; returns when all of them are


@dataclass(frozen=True, slots=True)
class Rate:
    """Work per second, and the CPU time that clients and server spent on a piece of it."""

    per_second: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What all clients and the server took together."""

    seconds: float
    cpu_seconds: float

    def rate(self, pieces: int) -> Rate:
        return Rate(pieces / self.seconds, self.cpu_seconds / pieces * 1e6)


def three_calls(url: str, number: int, ready: Ready, sweep_ids: list[str], until: int) -> None:
    """One client: add, claim and end in three round trips, its share of ``until`` runs in a sweep of its own."""
    store = open_store(url, harness.SCOPE, timeout=30)
    sweep_id = sweep_ids[number]
    agent = StoreAgent(store, sweep_id, f"client-{number}")
    ready()
    for index in range(until // CLIENTS):
        store.add_runs(sweep_id, harness.offer_for(sweep_id, index))
        run = agent.claim().run
        if run is None:
            raise RuntimeError("a run that was just added must be claimed")
        store.end_attempt(EndRequest(run.token, exit_code=0))


def one_flight(url: str, number: int, ready: Ready, sweep_ids: list[str], until: int) -> None:
    """One client as an agent works, in the first sweep, until ``until`` runs were added and none waits."""
    store = open_store(url, harness.SCOPE, timeout=30)
    sweep_id = sweep_ids[0]
    agent = StoreAgent(store, sweep_id, f"client-{number}")
    ready()
    answer = agent.claim()
    offer: Offer | None = None
    length = 1
    while True:
        if answer.next_index >= until or answer.ready:
            offer = None
        elif offer is None or offer.first_index != answer.next_index:
            offer = harness.offer_for(sweep_id, answer.next_index, length)
        if answer.outcome is ClaimOutcome.RUN and answer.run is not None:
            end = EndRequest(answer.run.token, exit_code=0)
            _, answer = store.end_and_claim(end, agent.request(offer))
            agent.answered(answer)
        elif answer.next_index >= until:
            return
        else:
            length = min(LONGEST_OFFER, length * 2)
            offer = harness.offer_for(sweep_id, answer.next_index, length)
            answer = agent.claim(offer)


def rq_worker(url: str, number: int, ready: Ready) -> None:
    """One SimpleWorker that works until the queue is empty."""
    from rq import Queue, SimpleWorker

    connection = Redis.from_url(url)
    worker = SimpleWorker([Queue(QUEUE, connection=connection)], connection=connection, name=f"rq-{number}")
    ready()
    worker.work(burst=True, logging_level="WARNING")


def in_process(
    client: Callable[..., None],
    url: str,
    number: int,
    *arguments: object,
    barrier: Barrier,
    cpu: SynchronizedArray[float],
) -> None:
    """One client in its process; notes the CPU time that it took from the start of the work on."""
    begun = 0.0

    def ready() -> None:
        nonlocal begun
        barrier.wait(READY_TIMEOUT)
        begun = time.process_time()

    client(url, number, ready, *arguments)
    cpu[number] = time.process_time() - begun


def timed(server: Server, client: Callable[..., None], *arguments: object, clients: int = CLIENTS) -> Taken:
    """From the moment at which all clients are ready until the last one is done."""
    barrier, cpu = _SPAWN.Barrier(clients + 1), _SPAWN.Array("d", clients)
    processes = [
        _SPAWN.Process(
            target=in_process, args=(client, server.url, number, *arguments), kwargs={"barrier": barrier, "cpu": cpu}
        )
        for number in range(clients)
    ]
    for process in processes:
        process.start()
    barrier.wait(READY_TIMEOUT)
    start, server_cpu = time.monotonic(), server.cpu_seconds()
    for process in processes:
        process.join()
    taken = Taken(time.monotonic() - start, sum(cpu[:]) + server.cpu_seconds() - server_cpu)
    if any(process.exitcode for process in processes):
        raise RuntimeError("a client failed; its message is above")
    return taken


def rate_of_runs(server: Server, client: Callable[..., None], runs: int) -> Rate:
    """A round of ours."""
    store = server.store()
    sweep_ids = [harness.new_sweep(store) for _ in range(CLIENTS)]
    taken = timed(server, client, sweep_ids, runs)
    finished = 0
    for sweep_id in sweep_ids:
        counts = store.sweep(sweep_id).counts
        finished += counts[RunState.FINISHED]
        if sum(counts.values()) != counts[RunState.FINISHED]:
            raise RuntimeError(f"every run must be finished, got {dict(counts)}")
    return taken.rate(finished)


def rate_of_jobs(server: Server, jobs: int, workers: int) -> Rate:
    """A round of the baseline."""
    from rq import Queue

    with Redis.from_url(server.url) as connection:
        queue = Queue(QUEUE, connection=connection)
        queue.enqueue_many([Queue.prepare_data("time.time", result_ttl=600) for _ in range(jobs)])
        taken = timed(server, rq_worker, clients=workers)
        finished = queue.finished_job_registry.get_job_count(cleanup=False)
        connection.flushdb()
    if finished != jobs:
        raise RuntimeError(f"RQ must have finished {jobs} jobs, got {finished}")
    return taken.rate(jobs)


def measure(quick: bool) -> Report:
    """Rounds on both kinds of server."""
    report = Report("Throughput: full cycles by 8 clients on one server")
    rounds, runs, jobs = (1, 1000, 200) if quick else (5, 8000, 1200)
    for settings, appendfsync in (("no file", ""), ("AOF always", "always")):
        rates: dict[str, list[Rate]] = {"three calls": [], "one flight": [], "rq": [], "one rq": []}
        with harness.private_server(appendfsync) as server:
            for number in range(rounds):
                harness.say(f"throughput, {settings}: round {number + 1} of {rounds}")
                rates["three calls"].append(rate_of_runs(server, three_calls, runs))
                rates["one flight"].append(rate_of_runs(server, one_flight, runs))
                rates["rq"].append(rate_of_jobs(server, jobs, CLIENTS))
                rates["one rq"].append(rate_of_jobs(server, jobs // 4, 1))
        for name in ("three calls", "one flight"):
            report.figures += _figures(f"{name}, {settings}", rates[name], rates["rq"])
            report.figures.append(_beside_one_worker(f"{name}, {settings}", rates[name], rates["one rq"]))
    return report


def _beside_one_worker(name: str, ours: list[Rate], theirs: list[Rate]) -> Figure:
    speeds, their_speeds = [rate.per_second for rate in ours], [rate.per_second for rate in theirs]
    return Figure(
        f"cycles, {name}",
        "1/s",
        Spread.of(speeds),
        "one RQ SimpleWorker alone, jobs",
        Spread.of(their_speeds),
        f"x {harness.paired_ratio(speeds, their_speeds):.1f}",
    )


def _figures(name: str, ours: list[Rate], theirs: list[Rate]) -> list[Figure]:
    speeds, their_speeds = [rate.per_second for rate in ours], [rate.per_second for rate in theirs]
    costs, their_costs = [rate.cpu_us for rate in ours], [rate.cpu_us for rate in theirs]
    faster = harness.paired_ratio(speeds, their_speeds)
    cheaper = harness.paired_ratio(their_costs, costs)
    return [
        Figure(
            f"cycles, {name}",
            "1/s",
            Spread.of(speeds),
            f"{CLIENTS} RQ SimpleWorkers, jobs",
            Spread.of(their_speeds),
            f"x {faster:.1f}",
            f"x {TARGET:.0f}",
            faster >= TARGET,
        ),
        Figure(
            f"CPU per cycle, {name}",
            "µs",
            Spread.of(costs),
            f"{CLIENTS} RQ SimpleWorkers, a job",
            Spread.of(their_costs),
            f"{cheaper:.1f} times less",
        ),
    ]


if __name__ == "__main__":
    harness.main(measure, __doc__)
