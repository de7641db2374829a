"""How long a run waits when SLURM preempts its agent: a private cluster, agents as jobs, a job of high priority.

A sweep of one run, two agents as tasks of an array that `resweep slurm` submits: the first executes the run, the second
waits for work on another node. A job of high priority then takes the first one's node. The script ends as soon as it is
told to; a real one takes the time that its checkpoint needs, which comes on top. Measured are, from the signal that
SLURM sends (when the script has it),

* until the run is on the run queue (the time of the event in Redis, which counts in ms);
* until the first line of the script runs again under the other agent, against the same with SLURM alone: a job that
  executes the bare script, is preempted, and is started again by SLURM, on another node that is idle.

SLURM keeps a requeued job back for as long as its credential lives (cred_expire), and looks at its queue once a second:
that is what the baseline waits for. SLURM's default is 120 s; the cluster has the shortest, 5 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import harness
from harness import Figure, Report, Server, Spread

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.slurm import Slurm, slurm_cluster
from support.waiting import wait_until

SCRIPT = """import time; first = time.time_ns()
import os, signal, sys

def told(*_):
    say("told", time.time_ns())
    sys.exit(1)

def say(what, when):
    with open(os.environ["TIMES"], "a") as times:
        print(what, when, file=times)

signal.signal(signal.SIGTERM, told)
again = os.path.exists(os.environ["TIMES"])
say("started", first)
while not again:
    signal.pause()
"""
TIMEOUT = 120.0  # seconds for anything that is waited for


class Trial:
    """A script in a folder of its own, which writes down when it starts and when it is told to end."""

    def __init__(self, folder: Path, cluster: Slurm) -> None:
        self.folder = folder
        self.cluster = cluster
        self.script = folder / "train.py"
        self.script.write_text(SCRIPT)
        self.environment = {"TIMES": str(folder / "times")}

    def times_ns(self, what: str) -> list[int]:
        """When it started, or was told to end, each time."""
        path = self.folder / "times"
        words = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [int(when) for name, when in words if name == what]

    def preempt(self, job: str) -> None:
        """Take the node of a job, and wait until its script runs again."""
        urgent = self.cluster.occupy(self.cluster.running(job)[0].node)
        self.wait(lambda: len(self.times_ns("started")) == 2, "the second start")
        self.cluster.cancel(urgent)

    @staticmethod
    def wait(done: Callable[[], object], what: str) -> None:
        wait_until(done, timeout=TIMEOUT, interval=0.005, description=what)


@contextmanager
def trial(cluster: Slurm) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory(prefix="resweep-slurm-") as folder:
        yield Trial(Path(folder), cluster)


def with_agents(cluster: Slurm, server: Server) -> tuple[float, float]:
    """Milliseconds from the signal to the run queue, and to the script's start under the other agent."""
    with trial(cluster) as one:
        config: dict[str, object] = {
            "program": str(one.script),
            "command": [sys.executable, "${program}"],
            "method": "random",
            "run_cap": 1,
            "parameters": {"lr": {"min": 0.0, "max": 1.0}},
        }
        path = harness.create_sweep(server, config)
        store, sweep_id = server.store(), path.rpartition("/")[2]
        program = Path(sys.executable).with_name("resweep")
        job = subprocess.run(
            [program, "slurm", path, "--submit", "--one-machine", "--agents", "2", "--cpus-per-task", "2"],
            env={**os.environ, **cluster.environment, **one.environment, "RESWEEP_URL": server.url},
            cwd=one.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            check=True,
        ).stdout.strip()  # fmt: skip
        one.wait(lambda: one.times_ns("started"), "the run to start")
        one.wait(lambda: any(agent.waiting for agent in store.agents(sweep_id)), "the second agent to wait")
        busy = next(event.agent for event in store.events(sweep_id) if event.kind == "claimed")
        assert busy is not None
        one.preempt(busy.removeprefix("slurm-"))
        cluster.wait_for_end(job)
        told = one.times_ns("told")[0] / 1e6
        queued = next(event.at for event in store.events(sweep_id) if event.kind == "preempted")
        return queued - told, one.times_ns("started")[1] / 1e6 - told


def by_slurm_alone(cluster: Slurm) -> float:
    """Milliseconds from the signal to a bare script until SLURM has started it again."""
    with trial(cluster) as one:
        text = f"#!/bin/sh\nexec {sys.executable} {one.script}\n"
        job = cluster.submit(text, "--cpus-per-task=2", "--output=/dev/null", environment=one.environment)
        one.wait(lambda: one.times_ns("started"), "the script to start")
        one.preempt(job)
        cluster.wait_for_end(job)
        return (one.times_ns("started")[1] - one.times_ns("told")[0]) / 1e6


def measure(quick: bool) -> Report:
    """Trials in turn, on one cluster."""
    rounds = 2 if quick else 10
    queued, elsewhere, alone = [], [], []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="rs-"))
        cluster = stack.enter_context(slurm_cluster(Path(folder), nodes=2))
        server = stack.enter_context(harness.private_server("always"))
        for number in range(rounds):
            harness.say(f"slurm: round {number + 1} of {rounds}")
            to_queue, to_start = with_agents(cluster, server)
            queued.append(to_queue)
            elsewhere.append(to_start)
            alone.append(by_slurm_alone(cluster))
    ours, theirs = Spread.of(elsewhere), Spread.of(alone)
    return Report(
        "SLURM: how long a preempted run waits",
        [
            Figure("SLURM's signal to run-on-the-queue", "ms", Spread.of(queued)),
            Figure(
                "SLURM's signal to started-elsewhere",
                "ms",
                ours,
                "SLURM alone requeues the job",
                theirs,
                f"x {harness.paired_ratio(elsewhere, alone):.3f}",
            ),
        ],
        [
            "an idle agent waits on another node; SLURM alone has an idle node, too",
            "SLURM keeps a requeued job back: 5 s on this cluster, the least that it allows; 120 s by default",
        ],
    )


if __name__ == "__main__":
    harness.main(measure, __doc__)
