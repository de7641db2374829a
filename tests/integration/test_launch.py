"""`resweep launch` on real `rq worker` processes: agents come, go with their workers, and come back elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from rq import Queue
from support import processes
from support.checks import check_promises
from support.desk import Desk, desk_in
from support.servers import Server
from support.training import Training, check_totals, make_sweep
from support.waiting import wait_until

from resweep_scheduler.service.queue import queue_client
from resweep_scheduler.store import RunState, Store, SweepState

POINTS = 10
PATIENCE = 90.0


class Worker:
    """One `rq worker`."""

    def __init__(self, url: str, folder: Path, number: int, *words: str, environment: Mapping[str, str]) -> None:
        self.log = folder / f"worker-{number}.log"
        command = [str(Path(sys.executable).with_name("rq")), "worker", "--url", url, *words]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=sink,
                stderr=sink, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self.process.pid

    def horses(self) -> list[int]:
        """Its children: the processes that execute jobs."""
        return [one.pid for one in processes.descendants().values() if one.parent == self.pid and one.state != "Z"]

    def has_agent(self) -> bool:
        horses = self.horses()
        return any(one.parent in horses and "sweep-agent" in one.command for one in processes.descendants().values())

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


class Fleet:
    """Workers of one queue, a sweep, and the command that brings agents to them."""

    def __init__(self, desk: Desk, server: Server, stack: ExitStack, training: Training) -> None:
        self.desk = desk
        self.server = server
        self.stack = stack
        self.training = training
        self.workers: list[Worker] = []
        store, self.sweep_id = make_sweep(server.url, points=POINTS, lease=5.0, retry={"crashed": 20, "failed": 20})
        self.store: Store = store.patient(30)
        stack.callback(store.client.close)

    def start(self, count: int, *words: str) -> list[Worker]:
        # No address of Redis: the agents find it by their queue.
        environment = {**self.training.environment(), "WANDB_AGENT_DISABLE_FLAPPING": "true"}
        fresh = [
            Worker(self.server.url, self.desk.folder, len(self.workers) + number, *words, environment=environment)
            for number in range(count)
        ]
        self.workers += fresh
        for worker in fresh:
            self.stack.callback(worker.end)
        return fresh

    def wait_for(self, happened: object, description: str) -> None:
        assert callable(happened)
        try:
            wait_until(happened, timeout=PATIENCE, interval=0.1, description=description)
        except AssertionError as error:
            logs = "\n".join(f"-- {worker.log.name}\n{worker.log.read_text()[-4000:]}" for worker in self.workers)
            raise AssertionError(f"{error}\n{logs}") from None

    def with_agents(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.poll() is None and worker.has_agent()]

    def finished(self) -> int:
        return self.store.sweep(self.sweep_id).counts[RunState.FINISHED]

    def check(self) -> None:
        self.wait_for(lambda: self.store.sweep(self.sweep_id).state is SweepState.FINISHED, "the end of the sweep")
        check_promises(self.store, self.sweep_id, steps=range(self.training.steps))
        runs = self.store.runs(self.sweep_id)
        assert sorted(run.params["point"] for run in runs) == list(range(POINTS))
        assert {run.state for run in runs} == {RunState.FINISHED}
        check_totals(self.store, [run.run_id for run in runs])


@pytest.fixture
def fleet(tmp_path: Path, server: Server) -> Iterator[Fleet]:
    training = Training(tmp_path / "trace", steps=4, step_seconds=0.4, mark="sigterm")
    with ExitStack() as stack:
        desk = stack.enter_context(desk_in(tmp_path / "desk", server.url))
        yield Fleet(desk, server, stack, training)


def test_workers_are_ended_and_killed_agents_come_back_and_no_run_is_lost(fleet: Fleet) -> None:
    fleet.start(5, "default")
    printed = fleet.desk.resweep("launch", fleet.sweep_id, "--agents", "2", "--", "--grace", "5", "--preemptible").out
    assert len(printed.split()) == 2
    fleet.wait_for(lambda: len(fleet.with_agents()) == 2 and fleet.finished() >= 1, "two agents and a run")

    warm = fleet.with_agents()[0]
    warm.process.send_signal(signal.SIGTERM)
    fleet.wait_for(lambda: warm.process.poll() is not None, "the end of a worker that got SIGTERM")
    assert warm.process.returncode == 0
    fleet.wait_for(lambda: len(fleet.with_agents()) == 2, "an agent in place of the one that left")

    shot = fleet.with_agents()[0]
    shot.process.kill()
    shot.process.wait(10)
    fleet.wait_for(lambda: len(fleet.with_agents()) == 2, "an agent in place of the one whose worker was killed")

    (horse,) = fleet.with_agents()[0].horses()
    os.kill(horse, signal.SIGKILL)
    fleet.check()
    assert "preempted" in {event.kind for event in fleet.store.events(fleet.sweep_id)}


def test_a_fleet_that_speaks_json_on_a_queue_of_its_own(fleet: Fleet) -> None:
    fleet.start(1, "-S", "json", "gpu")
    fleet.wait_for(lambda: "Listening on" in fleet.workers[0].log.read_text(), "a worker")
    done = fleet.desk.resweep("launch", fleet.sweep_id, "--queue", "gpu", "--serializer", "json", "--", "--count", "2")
    assert "has 1 workers" in done.err
    fleet.wait_for(lambda: fleet.finished() == 2, "two runs")
    fleet.wait_for(lambda: not fleet.workers[0].horses(), "the worker to be free again")
    assert fleet.finished() == 2


def test_workers_that_execute_jobs_in_their_own_process_are_refused(fleet: Fleet) -> None:
    fleet.start(1, "-w", "rq.SimpleWorker", "default")
    fleet.desk.resweep("launch", fleet.sweep_id)
    fleet.wait_for(lambda: "sends no heartbeats" in fleet.workers[0].log.read_text(), "a refusal")
    assert fleet.store.runs(fleet.sweep_id) == []
    queue = Queue("default", connection=queue_client(fleet.server.url))
    fleet.wait_for(lambda: queue.failed_job_registry.get_job_count(cleanup=False) == 1, "a job that has failed")
    assert queue.count == 0


def test_nobody_listens(fleet: Fleet) -> None:
    done = fleet.desk.resweep("launch", fleet.sweep_id, "--queue", "nobody")
    assert "nobody takes them: start workers with `rq worker nobody`" in done.err
    done = fleet.desk.resweep("launch", fleet.sweep_id, "--queue", "nobody", "--serializer", "json")
    assert "start workers with `rq worker -S json nobody`" in done.err


def test_a_sweep_that_is_over_gets_no_agents(fleet: Fleet) -> None:
    fleet.desk.resweep("stop", fleet.sweep_id)
    said = fleet.desk.resweep("launch", fleet.sweep_id, code=6).err
    assert f"so agents would get nothing: `resweep resume {fleet.sweep_id}` lets it go on" in said


def test_a_sweep_that_ran_to_its_end_is_not_to_be_resumed(fleet: Fleet) -> None:
    done = fleet.desk.create({"method": "grid", "command": ["true"], "parameters": {"a": {"value": 1}}})
    fleet.desk.agent(done)
    said = fleet.desk.resweep("launch", done, code=6).err
    assert f"is finished, so agents would get nothing: `resweep retry --failed {done}` runs again what failed" in said
