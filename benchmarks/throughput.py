"""Full cycles (add, claim, end) per second by 8 client processes on one server, against RQ's SimpleWorker.

A cycle is a suggestion that becomes a run, a claim that hands it out and the report that it finished. "three calls"
makes three round trips of it, each client in a sweep of its own; "one flight" is what an agent does between two runs:
end, offer and claim travel together, all clients work on one sweep and race for its indices, and offers get longer
while others are faster.

RQ's jobs are put on the queue before the clock starts, so RQ is measured without its enqueueing, on the same server,
with as many workers. Rounds alternate. A server without a file shows the cost of the code; the embedded server's
settings (every write is synced to the disk before it is answered) show what a user of one machine gets.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
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


def three_calls(url: str, number: int, barrier: Barrier, sweep_ids: list[str], until: int) -> None:
    """One client: add, claim and end in three round trips, its share of ``until`` runs in a sweep of its own."""
    store = open_store(url, harness.SCOPE, timeout=30)
    sweep_id = sweep_ids[number]
    agent = StoreAgent(store, sweep_id, f"client-{number}")
    barrier.wait(READY_TIMEOUT)
    for index in range(until // CLIENTS):
        store.add_runs(sweep_id, harness.offer_for(sweep_id, index))
        run = agent.claim().run
        if run is None:
            raise RuntimeError("a run that was just added must be claimed")
        store.end_attempt(EndRequest(run.token, exit_code=0))


def one_flight(url: str, number: int, barrier: Barrier, sweep_ids: list[str], until: int) -> None:
    """One client as an agent works, in the first sweep, until ``until`` runs were added and none waits."""
    store = open_store(url, harness.SCOPE, timeout=30)
    sweep_id = sweep_ids[0]
    agent = StoreAgent(store, sweep_id, f"client-{number}")
    barrier.wait(READY_TIMEOUT)
    answer = agent.claim()
    offer: Offer | None = None
    length = 1
    while True:
        if answer.next_index >= until:
            offer = None
        elif offer is None or offer.first_index != answer.next_index:
            offer = harness.offer_for(sweep_id, answer.next_index, length)
        if answer.outcome is ClaimOutcome.RUN and answer.run is not None:
            end = EndRequest(answer.run.token, exit_code=0)
            _, answer = store.end_and_claim(end, agent.request(offer))
            agent.answered(answer)
        elif offer is None:
            return
        else:
            length = min(LONGEST_OFFER, length * 2)
            offer = harness.offer_for(sweep_id, answer.next_index, length)
            answer = agent.claim(offer)


def rq_worker(url: str, number: int, barrier: Barrier) -> None:
    """One SimpleWorker that works until the queue is empty."""
    from rq import Queue, SimpleWorker

    connection = Redis.from_url(url)
    worker = SimpleWorker([Queue(QUEUE, connection=connection)], connection=connection, name=f"rq-{number}")
    barrier.wait(READY_TIMEOUT)
    worker.work(burst=True, logging_level="WARNING")


def timed(url: str, client: Callable[..., None], *arguments: object) -> float:
    """Seconds from the moment at which all clients are ready until the last one is done."""
    barrier = _SPAWN.Barrier(CLIENTS + 1)
    processes = [_SPAWN.Process(target=client, args=(url, number, barrier, *arguments)) for number in range(CLIENTS)]
    for process in processes:
        process.start()
    barrier.wait(READY_TIMEOUT)
    start = time.monotonic()
    for process in processes:
        process.join()
    taken = time.monotonic() - start
    if any(process.exitcode for process in processes):
        raise RuntimeError("a client failed; its message is above")
    return taken


def runs_per_second(server: Server, client: Callable[..., None], runs: int) -> float:
    store = server.store()
    sweep_ids = [harness.new_sweep(store) for _ in range(CLIENTS)]
    taken = timed(server.url, client, sweep_ids, runs)
    finished = 0
    for sweep_id in sweep_ids:
        counts = store.sweep(sweep_id).counts
        finished += counts[RunState.FINISHED]
        if sum(counts.values()) != counts[RunState.FINISHED]:
            raise RuntimeError(f"every run must be finished, got {dict(counts)}")
    return finished / taken


def jobs_per_second(server: Server, jobs: int) -> float:
    from rq import Queue

    with Redis.from_url(server.url) as connection:
        connection.delete(f"rq:queue:{QUEUE}")
        queue = Queue(QUEUE, connection=connection)
        queue.enqueue_many([Queue.prepare_data("time.time", result_ttl=600) for _ in range(jobs)])
        taken = timed(server.url, rq_worker)
        finished = queue.finished_job_registry.get_job_count(cleanup=False)
        queue.finished_job_registry.cleanup()
        connection.flushdb()
    if finished != jobs:
        raise RuntimeError(f"RQ must have finished {jobs} jobs, got {finished}")
    return jobs / taken


def measure(quick: bool) -> Report:
    """Rounds on both kinds of server."""
    report = Report("Throughput: full cycles by 8 clients on one server")
    rounds = 1 if quick else 5
    for settings, appendfsync in (("no file", ""), ("AOF always", "always")):
        runs = 1000 if quick else 4000
        jobs = 200 if quick else 600
        rates: dict[str, list[float]] = {"three calls": [], "one flight": [], "rq": []}
        with harness.private_server(appendfsync) as server:
            for number in range(rounds):
                harness.say(f"throughput, {settings}: round {number + 1} of {rounds}")
                rates["three calls"].append(runs_per_second(server, three_calls, runs))
                rates["one flight"].append(runs_per_second(server, one_flight, runs))
                rates["rq"].append(jobs_per_second(server, jobs))
        for name in ("three calls", "one flight"):
            ratio = harness.paired_ratio(rates[name], rates["rq"])
            report.figures.append(
                Figure(
                    f"cycles, {name}, {settings}",
                    "1/s",
                    Spread.of(rates[name]),
                    "RQ SimpleWorker, jobs",
                    Spread.of(rates["rq"]),
                    f"x {ratio:.1f}",
                    f"x {TARGET:.0f}",
                    ratio >= TARGET,
                )
            )
    return report


if __name__ == "__main__":
    harness.main(measure, __doc__)
