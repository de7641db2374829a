"""How long a run waits when its machine goes: with a warning (SIGTERM to the agent) and without one (kill -9).

A sweep of one run, two agents on one server with the embedded server's settings: the first executes the run, the
second waits for work. The script ends as soon as it is told to; a real one takes the time that its checkpoint needs,
which comes on top. Measured are

* SIGTERM to the agent until the run is on the run queue (the time of the event in Redis, which counts in ms);
* SIGTERM until the first line of the script runs again under the other agent, against the same by hand: SIGTERM to a
  bare script, wait for its end, start it again;
* kill -9 of the agent until the first line of the script runs elsewhere, against the lease, which counts from the
  last heartbeat: nothing can safely be started elsewhere much earlier.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import harness
from harness import Figure, Report, Server, Spread

from resweep_scheduler.store import Store

SCRIPT = """import time; first = time.time_ns()
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
with open(os.environ["STARTS"], "a") as starts:
    print(first, file=starts)
if os.environ.get("RESWEEP_ATTEMPT", os.environ.get("TRY")) == "1":
    while True:
        signal.pause()
"""
TIMEOUT = 120.0  # seconds for anything that is waited for
Waited = Callable[[], bool]


class Trial:
    """One sweep of one run in a folder of its own, with the processes that work on it."""

    def __init__(self, server: Server, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resweep-preempt-")))
        self.store: Store = server.store()
        self._server = server
        self._stack = stack
        self._starts = self.folder / "starts"
        self.script = self.folder / "train.py"
        self.script.write_text(SCRIPT)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RESWEEP_")}
        self.environment["STARTS"] = str(self._starts)

    def create(self, *, lease: float, heartbeat: float) -> None:
        """The sweep."""
        config: dict[str, object] = {
            "program": str(self.script),
            "command": [sys.executable, "${program}"],
            "method": "random",
            "run_cap": 1,
            "parameters": {"lr": {"min": 0.0, "max": 1.0}},
            "lease": {"duration": lease, "heartbeat": heartbeat},
        }
        self.path = harness.create_sweep(self._server, config)
        self.sweep_id = self.path.rpartition("/")[2]

    def agent(
        self, name: str, options: Sequence[str] = ("--preemptible",), *, prefix: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """One `sweep-agent` on a machine that may be taken away; ``prefix`` stands before its command."""
        words = [sys.executable, "-m", "resweep_agent.cli", self.path, "--url", self._server.url, "--name", name]
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        process = subprocess.Popen(
            [*prefix, *words, *options, "--dir", str(self.folder / name)],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self._stack.callback(_end, process)
        return process

    def wait_until_idle(self, name: str) -> None:
        """Until the agent has nothing to do, and waits."""
        self.wait(
            lambda: any(agent.agent == name and agent.waiting for agent in self.store.agents(self.sweep_id)),
            f"the agent {name} to wait",
        )

    def pair(
        self, options: Sequence[str] = ("--preemptible",), *, prefix: Sequence[str] = ()
    ) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """The agent that executes the run, started with ``options`` and ``prefix``, and the one that waits."""
        busy = self.agent("busy", options, prefix=prefix)
        self.wait(lambda: len(self.starts_ns()) == 1, "the run to start")
        idle = self.agent("idle")
        self.wait_until_idle("idle")
        time.sleep(0.3)  # so that the waiting agent is in the middle of its wait, not still on its way to it
        return busy, idle

    def script_alone(self, number: int) -> subprocess.Popen[bytes]:
        """The script without any agent, for the ``number``-th time."""
        process = subprocess.Popen(
            [sys.executable, str(self.script)],
            env=self.environment | {"TRY": str(number)},
            stdin=subprocess.DEVNULL,
        )
        self._stack.callback(_end, process)
        self.wait(lambda: len(self.starts_ns()) == number, "the script to start")
        return process

    def starts_ns(self) -> list[int]:
        """When the script's first line ran, each time."""
        if not self._starts.exists():
            return []
        return [int(line) for line in self._starts.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def queued_ms(self) -> int:
        """When the run came to the run queue, ms since the epoch."""
        return next(event.at for event in self.store.events(self.sweep_id) if event.kind == "preempted")

    def wait(self, done: Waited, what: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not done():
            if time.monotonic() > deadline:
                logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in self.folder.glob("*.log"))
                raise RuntimeError(f"waited {TIMEOUT:.0f} s for {what}; the agents say:\n{logs}")
            time.sleep(0.002)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def warned(server: Server) -> tuple[float, float]:
    """Milliseconds from SIGTERM to the queue, and to the script's start under the other agent."""
    with ExitStack() as stack:
        trial = Trial(server, stack)
        trial.create(lease=60, heartbeat=10)
        busy, _ = trial.pair()
        told = time.time_ns()
        busy.send_signal(signal.SIGTERM)
        trial.wait(lambda: len(trial.starts_ns()) == 2, "the run to start elsewhere")
        return trial.queued_ms() - told / 1e6, (trial.starts_ns()[1] - told) / 1e6


def by_hand(server: Server) -> float:
    """Milliseconds from SIGTERM to a bare script until it runs again."""
    with ExitStack() as stack:
        trial = Trial(server, stack)
        first = trial.script_alone(1)
        time.sleep(0.1)  # the script has a handler for the signal by then
        told = time.time_ns()
        first.send_signal(signal.SIGTERM)
        first.wait()
        trial.script_alone(2)
        return (trial.starts_ns()[1] - told) / 1e6


def unwarned(server: Server, lease: float) -> float:
    """Milliseconds from kill -9 of the agent until the script runs under the other one."""
    with ExitStack() as stack:
        trial = Trial(server, stack)
        trial.create(lease=lease, heartbeat=lease / 6)
        busy, _ = trial.pair()
        killed = time.time_ns()
        busy.kill()
        trial.wait(lambda: len(trial.starts_ns()) == 2, "the run to start elsewhere")
        return (trial.starts_ns()[1] - killed) / 1e6


def measure(quick: bool) -> Report:
    """Trials in turn."""
    rounds, lease = (2, 3.0) if quick else (10, 6.0)
    queued, elsewhere, alone, lost = [], [], [], []
    with harness.private_server("always") as server:
        for number in range(rounds):
            harness.say(f"preemption: round {number + 1} of {rounds}")
            to_queue, to_start = warned(server)
            queued.append(to_queue)
            elsewhere.append(to_start)
            alone.append(by_hand(server))
            lost.append(unwarned(server, lease))
    hand = Spread.of(alone)
    above = Spread.of(elsewhere).median - hand.median
    ratio = Spread.of(lost).median / (lease * 1000)
    return Report(
        "Preemption: how long a run waits",
        [
            Figure("SIGTERM to run-on-the-queue", "ms", Spread.of(queued)),
            Figure(
                "SIGTERM to started-elsewhere",
                "ms",
                Spread.of(elsewhere),
                "bare script, ended and started by hand",
                hand,
                f"{above:+.1f} ms",
            ),
            Figure(
                "kill -9 to started-elsewhere",
                "ms",
                Spread.of(lost),
                "the lease",
                Spread.of([lease * 1000]),
                f"x {ratio:.2f}",
            ),
        ],
        [f"kill -9: a lease of {lease:g} s with heartbeats every {lease / 6:g} s; the defaults are 60 s and 10 s"],
    )


if __name__ == "__main__":
    harness.main(measure, __doc__)
