"""Everything at once: agents killed, preempted and frozen, scripts and Redis killed, while two hundred runs are made.

RESWEEP_STORM_SECONDS sets how long the storm lasts, RESWEEP_STORM_SEED repeats its choices (the seed is printed; what
they meet still depends on the machine).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support import processes
from support.agents import AgentProcess, thaw
from support.scene import Scene, let_pass, play
from support.servers import Server
from support.training import Training

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store.states import RunState

SECONDS = float(os.environ.get("RESWEEP_STORM_SECONDS", "60"))
SEED = int(os.environ.get("RESWEEP_STORM_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
RUNS = 200
AGENTS = 8
LEASE = 3.0
CALM = 1200.0
"""Seconds after the storm in which everything comes to its end, also on a busy machine."""

KINDS = {"kill agent": 5, "kill script": 6, "kill server": 2, "preempt agent": 2, "freeze agent": 1}
"""What may happen, and how often compared with the others."""


@dataclass
class Storm:
    """Strikes at random, and puts back what it struck, so that there is always somebody to do the work."""

    scene: Scene
    server: Server
    choose: random.Random
    crew: list[AgentProcess] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    frozen: list[tuple[float, list[int]]] = field(default_factory=list)
    started: int = 0

    def man(self, place: int, *, name: str | None = None) -> None:
        """Start an agent, under a new name if none is given."""
        self.started += 1
        agent = self.scene.agents.start(name or f"agent-{self.started}", "--preemptible", "--grace", "1")
        if place == len(self.crew):
            self.crew.append(agent)
        else:
            self.crew[place] = agent

    def relieve(self, place: int) -> None:
        """Replace an agent that has ended: by one of the same name, which voids its lease at once, or of another."""
        agent = self.crew[place]
        status = agent.wait()
        self.exits[status] += 1
        printed = agent.printed()
        # SIGTERM itself ends an agent that is still being loaded, and holds nothing yet.
        expected = [ExitCode.OK, ExitCode.PREEMPTED, -signal.SIGKILL, -signal.SIGTERM]
        if "agent-started" not in printed:
            # Nor does one that waited in vain: on a busy machine the server may be away for longer than a start waits.
            expected.append(ExitCode.REDIS_LOST)
        assert status in expected, f"an agent ended with {status}:\n{printed[-3000:]}"
        self.man(place, name=agent.name if self.choose.random() < 0.5 else None)

    def strike(self) -> None:
        """One fault."""
        kind = self.choose.choices(list(KINDS), weights=list(KINDS.values()))[0]
        place = self.choose.randrange(AGENTS)
        self.strikes[kind] += 1
        if kind == "kill agent":
            self.crew[place].kill()
        elif kind == "preempt agent":
            self.crew[place].send(signal.SIGTERM)
        elif kind == "kill server":
            self.server.kill()
            let_pass(self.choose.uniform(0.0, LEASE / 2))
            self.server.start()
        elif kind == "freeze agent":
            until = time.monotonic() + self.choose.uniform(0.0, 2 * LEASE)
            self.frozen.append((until, self.crew[place].freeze()))
        else:
            self.kill_a_script()

    def kill_a_script(self) -> None:
        """One of those that run, if any does."""
        agents = [agent.pid for agent in self.crew]
        scripts = [
            p.pid for p in processes.descendants().values() if p.parent in agents and "training_script" in p.command
        ]
        for pid in self.choose.sample(sorted(scripts), min(1, len(scripts))):
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)

    def thaw_until(self, now: float) -> None:
        """Let those go on whose time has come."""
        for entry in [entry for entry in self.frozen if entry[0] <= now]:
            self.frozen.remove(entry)
            thaw(entry[1])

    def rage(self, seconds: float) -> None:
        """Strike until the time is over, or an agent has gone home because there is no more to do."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self.exits[ExitCode.OK]:
            let_pass(self.choose.uniform(0.1, 0.7))
            self.strike()
            self.thaw_until(time.monotonic())
            for place, agent in enumerate(self.crew):
                if not agent.running:
                    self.relieve(place)


def test_two_hundred_runs_survive_a_storm(tmp_path: Path, server: Server) -> None:
    print(f"RESWEEP_STORM_SEED={SEED} RESWEEP_STORM_SECONDS={SECONDS:g}")
    training = Training(tmp_path / "trace", steps=6, step_seconds=0.1, mark="start")
    retry = {"crashed": 50, "failed": 50}
    with play(tmp_path, server.url, training, points=RUNS, lease=LEASE, retry=retry) as scene:
        scene.agents.environment["WANDB_AGENT_DISABLE_FLAPPING"] = "true"
        storm = Storm(scene, server, random.Random(SEED))
        for place in range(AGENTS):
            storm.man(place)
        storm.rage(SECONDS)
        storm.thaw_until(float("inf"))
        for place, agent in enumerate(storm.crew):
            if not agent.running:
                storm.relieve(place)
        scene.wait_for_end(timeout=CALM)

        replay = scene.check()
        attempts = [len(life.attempts) for life in replay.lives.values()]
        print(f"{dict(storm.strikes)}; {sum(attempts)} attempts of {RUNS} runs, {max(attempts)} of one at most")
        assert [(run.index, run.state) for run in scene.runs()] == [(index, RunState.FINISHED) for index in range(RUNS)]
        assert sorted(run.params["point"] for run in scene.runs()) == list(range(RUNS))
