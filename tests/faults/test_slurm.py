"""SLURM for real: agents as preemptible jobs of a private cluster, submitted by `resweep slurm --submit`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import processes
from support.agents import agent_command, resweep_command, wait_for_death
from support.checks import check_promises
from support.scene import PATIENCE, Scene, play
from support.servers import Server
from support.slurm import Slurm, slurm_cluster
from support.training import Training
from support.waiting import wait_until

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import create_sweep
from resweep_scheduler.store import RunState, SweepState

LEASE = 120.0
"""Seconds: longer than any of these tests. What comes back in them does not wait for a lease."""


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[Slurm]:
    with slurm_cluster(short_tmp) as cluster:
        yield cluster


def submit(cluster: Slurm, folder: Path, url: str, sweep_id: str, *words: str, **environment: str) -> str:
    """`resweep slurm --submit`, one agent to a node of 2 cores; returns the job's number."""
    done = subprocess.run(
        [*resweep_command(), "slurm", sweep_id, "--submit", "--one-machine", "--cpus-per-task", "2", *words],
        cwd=folder, env={**os.environ, **cluster.environment, "RESWEEP_URL": url, **environment}, capture_output=True,
        text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Play:
    """A sweep over the training script, whose agents are jobs."""

    def __init__(self, scene: Scene, cluster: Slurm, url: str) -> None:
        self.scene = scene
        self.cluster = cluster
        self.url = url

    def submit(self, *words: str) -> str:
        return submit(
            self.cluster, self.scene.agents.directory, self.url, self.scene.sweep_id, *words,
            **self.scene.agents.environment,
        )  # fmt: skip

    def printed(self, job: str) -> str:
        """What the agents of a job printed, in all their starts."""
        logs = sorted(self.scene.agents.directory.glob(f"slurm-{job}_*.out"))
        return "".join(log.read_text() for log in logs)

    def check(self, *, attempts: list[int]) -> None:
        """The promises; each run is finished, in so many attempts, and each went on at its step."""
        self.scene.check()
        runs = self.scene.runs()
        assert [(run.state, run.attempt) for run in runs] == [(RunState.FINISHED, number) for number in attempts]
        before = (self.scene.training.gate_step or 0) - 1
        for run in runs:
            assert run.config["resumed_from"] == (before if run.attempt > 1 else -1)


@contextmanager
def play_on(cluster: Slurm, folder: Path, url: str, training: Training, *, points: int) -> Iterator[Play]:
    with play(folder, url, training, points=points, lease=LEASE, heartbeat=1.0) as scene:
        play_ = Play(scene, cluster, url)
        try:
            yield play_
        except AssertionError as error:
            logs = [f"-- {log.name}\n{log.read_text()[-3000:]}" for log in scene.agents.directory.glob("*.out")]
            raise AssertionError("\n".join([str(error), *map(str, cluster.jobs()), *logs])) from None


def test_agents_that_are_preempted_come_back_and_every_run_goes_on_at_its_step(
    tmp_path: Path, server: Server, cluster: Slurm
) -> None:
    training = Training(tmp_path / "trace", steps=6, gate_step=3, mark="sigterm")
    with play_on(cluster, tmp_path, server.url, training, points=3) as play:
        job = play.submit("--agents", "2", "--partition", "low")
        names = {f"slurm-{job}_1", f"slurm-{job}_2"}
        play.scene.wait_at_gate(count=2)
        assert {agent.agent for agent in play.scene.store.agents(play.scene.sweep_id)} == names

        urgent = cluster.occupy(*cluster.nodes)
        preempted = play.scene.wait_for_event("preempted", count=2)
        assert {event.agent for event in preempted} == names
        # The third point may be suggested already: agents that ask at the same time offer more than they take.
        assert [run.state for run in play.scene.runs() if run.attempt] == [RunState.PREEMPTED] * 2
        cluster.wait_for_jobs(urgent, "RUNNING")
        assert [one.state for one in cluster.jobs(job)] == ["PENDING"] * 2

        cluster.cancel(urgent)
        play.scene.wait_at_gate(count=2, attempt=2)
        assert {event.agent for event in play.scene.events("claimed")} == names
        assert [cluster.restarts(f"{job}_{task}") for task in (1, 2)] == [1, 1]
        training.open_gate()
        play.scene.wait_for_end()
        cluster.wait_for_end(job)
        play.check(attempts=[2, 2, 1])
        assert "job-requeued" not in play.printed(job)


def test_an_agent_whose_time_is_over_requeues_itself(tmp_path: Path, server: Server, cluster: Slurm) -> None:
    training = Training(tmp_path / "trace", steps=6, gate_step=3, mark="sigterm")
    with play_on(cluster, tmp_path, server.url, training, points=1) as play:
        job = play.submit("--time", "30", "--lead", "100")
        (first,) = play.scene.wait_at_gate()
        # SLURM's clock for limits ticks every 30 s, and its limits are minutes: nobody waits for a whole one.
        cluster.limit(f"{job}_1", 2)
        (event,) = play.scene.wait_for_event("preempted")
        assert event.data["reason"] == "notice: SIGUSR1"
        cluster.wait_for_jobs(f"{job}_1", "PENDING")
        cluster.limit(f"{job}_1", 30)
        play.scene.wait_at_gate(attempt=2)
        assert play.printed(job).count("job-requeued") == 1
        assert cluster.restarts(f"{job}_1") == 1
        assert not processes.alive(first.pid)
        training.open_gate()
        play.scene.wait_for_end()
        cluster.wait_for_end(job)
        play.check(attempts=[2])
        assert {event.agent for event in play.scene.events("claimed")} == {f"slurm-{job}_1"}
        assert play.printed(job).count("job-requeued") == 1


def test_an_agent_that_knows_the_end_of_its_job_needs_no_signal(tmp_path: Path, server: Server, cluster: Slurm) -> None:
    """In a job of a minute the notice comes after half of it, and the agent requeues the job."""
    training = Training(tmp_path / "trace", steps=6, gate_step=3, mark="sigterm")
    with play_on(cluster, tmp_path, server.url, training, points=1) as play:
        agent = f"exec {agent_command()[0]} {play.scene.sweep_id} --dir {tmp_path}/runs --slurm-requeue"
        environment = {**play.scene.agents.environment, "RESWEEP_URL": server.url, "RESWEEP_NOTICE": "slurm"}
        job = cluster.submit(f"#!/bin/bash\n{agent}\n", "--time=1", "--requeue", environment=environment)
        play.scene.wait_at_gate()
        (notice,) = play.scene.wait_for_event("notice")
        assert (notice.data["source"], notice.data["detail"]) == ("slurm", "time limit")
        assert 0 < notice.data["lead_ms"] <= 31_000
        (event,) = play.scene.wait_for_event("preempted")
        assert event.data["reason"] == "notice: slurm time limit"
        cluster.wait_for_jobs(job, "PENDING")
        cluster.limit(job, 30)
        training.open_gate()
        play.scene.wait_for_end()
        assert cluster.restarts(job) == 1
        cluster.wait_for_end(job)
        play.check(attempts=[2])


def test_an_agent_that_is_warned_of_a_preemption_is_requeued_once(
    tmp_path: Path, server: Server, short_tmp: Path
) -> None:
    """SLURM would requeue the job at the end of its grace time; the agent does it at the warning."""
    training = Training(tmp_path / "trace", steps=6, gate_step=3, mark="sigterm")
    with (
        slurm_cluster(short_tmp, nodes=1, grace=20) as cluster,
        play_on(cluster, tmp_path, server.url, training, points=1) as play,
    ):
        job = play.submit()
        play.scene.wait_at_gate()
        urgent = cluster.occupy("n1")
        (event,) = play.scene.wait_for_event("preempted")
        assert event.data["reason"] == "notice: SIGUSR1"
        cluster.wait_for_jobs(urgent, "RUNNING")
        cluster.cancel(urgent)
        training.open_gate()
        play.scene.wait_for_end()
        assert cluster.restarts(f"{job}_1") == 1
        cluster.wait_for_end(job)
        play.check(attempts=[2])


@pytest.mark.parametrize("deaf", [False, True], ids=["alive", "frozen"])
def test_the_job_of_a_lost_node_starts_again_while_its_old_process_lives(
    tmp_path: Path, server: Server, cluster: Slurm, deaf: bool
) -> None:
    """The old attempt is ended by its agent; and where that is frozen, whatever its script does is refused."""
    training = Training(tmp_path / "trace", steps=6, gate_step=3)
    with play_on(cluster, tmp_path, server.url, training, points=1) as play:
        job = play.submit()
        (old,) = play.scene.wait_at_gate()
        if deaf:
            os.kill(old.agent_pid, signal.SIGSTOP)
        node = cluster.running(f"{job}_1")[0].node
        cluster.lose(node)
        play.scene.wait_at_gate(attempt=2)
        assert cluster.running(f"{job}_1")[0].node != node
        if deaf:
            assert processes.alive(old.pid)
            training.open_gate()
            play.scene.wait_for(lambda: len(training.done()) == 2, description="both to have made their last steps")
            os.kill(old.agent_pid, signal.SIGCONT)
        wait_for_death([old.pid, old.agent_pid], timeout=PATIENCE)
        training.open_gate()
        play.scene.wait_for_end()
        cluster.wait_for_end(job)
        play.check(attempts=[2])
        assert {event.agent for event in play.scene.events("claimed")} == {f"slurm-{job}_1"}
        (released,) = play.scene.events("preempted")
        (finished,) = play.scene.events("finished")
        assert (released.attempt, finished.attempt) == (1, 2)


def test_the_runs_of_a_canceled_job_go_back_on_the_run_queue(tmp_path: Path, server: Server, cluster: Slurm) -> None:
    training = Training(tmp_path / "trace", steps=6, gate_step=3, mark="sigterm")
    with play_on(cluster, tmp_path, server.url, training, points=2) as play:
        job = play.submit("--agents", "2")
        play.scene.wait_at_gate(count=2)
        cluster.cancel(f"{job}_1")
        (event,) = play.scene.wait_for_event("preempted")
        assert event.agent == f"slurm-{job}_1"
        cluster.wait_for_end(f"{job}_1")
        training.open_gate()
        play.scene.wait_for_end()
        cluster.wait_for_end(job)
        play.check(attempts=[2 if run.run_id == event.run_id else 1 for run in play.scene.runs()])
        assert play.scene.events("claimed")[-1].agent == f"slurm-{job}_2"


STEPS = """\
#!/bin/bash
srun --nodes=1 --ntasks=1 --exact {agent} &
srun --nodes=1 --ntasks=1 --exact {agent} &
wait
"""


@pytest.mark.parametrize("kind", ["array", "steps", "tasks"])
def test_agents_that_share_a_node_or_a_job_have_names_of_their_own(
    tmp_path: Path, server: Server, cluster: Slurm, kind: str
) -> None:
    """Two tasks of an array on one node; two steps of one job, on two nodes; two tasks of one step."""
    training = Training(tmp_path / "trace", steps=2, gate_step=1)
    with play_on(cluster, tmp_path, server.url, training, points=2) as play:
        environment = {**play.scene.agents.environment, "RESWEEP_URL": server.url}
        agent = f"{agent_command()[0]} {play.scene.sweep_id} --dir {tmp_path}/runs"
        if kind == "array":
            job = play.submit("--agents", "2", "--cpus-per-task", "1", "--sbatch=--nodelist=n1")
            names = {f"slurm-{job}_1", f"slurm-{job}_2"}
        elif kind == "steps":
            job = cluster.submit(STEPS.format(agent=agent), "--nodes=2", environment=environment)
            names = {f"slurm-{job}", f"slurm-{job}.s1"}
        else:
            script = f"#!/bin/bash\nexec srun {agent}\n"
            job = cluster.submit(script, "--ntasks=2", environment=environment)
            names = {f"slurm-{job}.p0", f"slurm-{job}.p1"}
        play.scene.wait_at_gate(count=2)
        assert {event.agent for event in play.scene.events("claimed")} == names
        training.open_gate()
        play.scene.wait_for_end()
        cluster.wait_for_end(job)
        play.check(attempts=[1, 1])


SCRIPT = """\
import os, signal, sys, time

point, catches = sys.argv[1:]
if catches == "yes":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
path = f"progress-{point}"
done = len(open(path).readlines()) if os.path.exists(path) else 0
for step in range(done, 4):
    while step == 2 and not os.path.exists("gate"):
        time.sleep(0.05)
    with open(path, "a") as progress:
        print(step, os.getpid(), file=progress)
"""
"""A script that knows nothing of resweep, and keeps its progress in a file."""


@pytest.mark.parametrize("catches", ["yes", "no"])
def test_a_script_that_knows_nothing_is_preempted_and_resumed_elsewhere(
    tmp_path: Path, server: Server, cluster: Slurm, catches: str
) -> None:
    """Whether it catches SIGTERM or dies from it. The node stays taken: another agent takes the run over."""
    (tmp_path / "train.py").write_text(SCRIPT)
    settings = {
        "program": "train.py",
        "command": [sys.executable, "${program}", "${point}", catches],
        "method": "grid",
        "parameters": {"point": {"values": [0, 1]}},
        "lease": {"duration": LEASE},
    }
    store, sweep_id = create_sweep(server.url, parse_sweep(settings), config_text="")
    job = submit(cluster, tmp_path, server.url, sweep_id, "--agents", "2")

    def lines(point: int) -> list[str]:
        path = tmp_path / f"progress-{point}"
        return path.read_text().splitlines() if path.exists() else []

    def wait_for(happened: Callable[[], object], what: str) -> None:
        wait_until(happened, timeout=PATIENCE, interval=0.1, description=what)

    wait_for(lambda: [len(lines(point)) for point in (0, 1)] == [2, 2], "two runs at their second step")
    cluster.occupy("n1")
    wait_for(lambda: store.sweep(sweep_id).queue, "a run on the run queue")
    (tmp_path / "gate").touch()
    wait_for(lambda: store.sweep(sweep_id).state is SweepState.FINISHED, "the end of the sweep")
    check_promises(store, sweep_id)
    assert [(run.state, run.attempt) for run in store.runs(sweep_id)] in (
        [(RunState.FINISHED, 2), (RunState.FINISHED, 1)],
        [(RunState.FINISHED, 1), (RunState.FINISHED, 2)],
    )
    for point in (0, 1):
        assert [line.split()[0] for line in lines(point)] == ["0", "1", "2", "3"]
    cluster.cancel(job)
