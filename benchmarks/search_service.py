"""Time that a claim waits for a search that learns: agents on their own, and with `resweep scheduler` running.

A sweep with Bayesian search has had so many runs; four agents hold one run each. In turn each ends its run and claims
the next; the time goes from the call that reports the end to the run that comes back, whatever is asked in between. The
baseline is the same on a grid sweep of as many runs, whose points cost nothing, measured in turn.

Between two claims passes one and a half times what the search needs for a suggestion (at least 0.25 s): no service
helps agents that claim faster than a search computes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import harness
from harness import Figure, Report, Server, Spread, StoreAgent

from resweep_agent.ask import Asker
from resweep_scheduler.config import SweepConfig
from resweep_scheduler.store import ClaimedRun, ClaimOutcome, EndRequest, NewRun, Offer, Store

AGENTS = 4
TARGET_MS = 2.0
START_TIMEOUT = 30.0
BAYES = {
    "program": "train.py",
    "method": "bayes",
    "seed": 3,
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {f"x{number}": {"min": 0.0, "max": 1.0} for number in range(5)},
}
GRID = {
    "program": "train.py",
    "method": "grid",
    "metric": {"name": "loss", "goal": "minimize"},
    "parameters": {f"x{number}": {"values": list(range(10))} for number in range(5)},
}


class Crew:
    """Agents of one sweep, which ask as `sweep-agent` does."""

    def __init__(self, server: Server, config: Mapping[str, object]) -> None:
        path = harness.create_sweep(server, config)
        self.sweep_id = path.rpartition("/")[2]
        self.store: Store = server.store()
        self._woken = threading.Event()
        self.asker = Asker(
            self.store,
            self.sweep_id,
            SweepConfig.from_json(self.store.sweep(self.sweep_id).config_json),
            session="bench",
            wake=self._woken.set,
        )
        self.agents = [StoreAgent(self.store, self.sweep_id, f"agent-{number}") for number in range(AGENTS)]
        self.held: list[ClaimedRun] = []

    def have_run(self, count: int) -> None:
        """Bring that many runs through their lives, without the search."""
        agent = self.agents[0]
        for first in range(0, count, 50):
            many = min(50, count - first)
            self.store.add_runs(self.sweep_id, self._random_offer(first, many))
            for _ in range(many):
                run = agent.claim().run
                if run is None:
                    raise RuntimeError("a run that was just added must be claimed")
                self.log(run)
                self.store.end_attempt(EndRequest(run.token, exit_code=0))

    def _random_offer(self, first: int, count: int) -> Offer:
        offer = harness.offer_for(self.sweep_id, first, count)
        runs = tuple(
            NewRun(run.run_id, run.index, {f"x{n}": (run.index * (n + 7) % 1009) / 1009 for n in range(5)})
            for run in offer.runs
        )
        return Offer(first, runs)

    def log(self, run: ClaimedRun) -> None:
        loss = sum((float(str(value)) - 0.4) ** 2 for value in run.params.values())
        self.store.log(run.token, first_seq=1, rows=[(0, json.dumps({"loss": loss}))], metric=loss)

    def take(self, agent: StoreAgent) -> ClaimedRun:
        """Claim, and ask whoever must be asked, until there is a run."""
        while True:
            answer = agent.claim(self.asker.offer)
            self.asker.learn(answer.next_index, answer.ready)
            if answer.run is not None:
                self.asker.prepare()
                return answer.run
            if answer.outcome is not ClaimOutcome.ASK:
                raise RuntimeError(f"the sweep must have runs, got {answer}")
            if self.asker.ask([agent.name]):
                continue
            self._woken.clear()
            self.asker.send(time.monotonic())
            self._woken.wait()
            if not self.asker.collect(time.monotonic()):
                self.store.wait_for_work(self.sweep_id, 1.0)

    def begin(self) -> None:
        """Each agent holds a run."""
        self.held = [self.take(agent) for agent in self.agents]

    def turn_ms(self, number: int) -> float:
        """How long the next agent is without a run."""
        place = number % AGENTS
        run = self.held[place]
        self.log(run)
        started = time.perf_counter()
        self.store.end_attempt(EndRequest(run.token, exit_code=0))
        self.held[place] = self.take(self.agents[place])
        return (time.perf_counter() - started) * 1000


@contextmanager
def scheduler(server: Server, folder: Path, crew: Crew) -> Iterator[None]:
    """`resweep scheduler`, which has seen the sweep."""
    with (folder / "scheduler.log").open("ab") as log:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("resweep")), "scheduler"],
            env={**os.environ, "RESWEEP_URL": server.url}, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while not crew.store.client.exists(crew.store.keys.sweep(crew.sweep_id, "service")):
            if time.monotonic() > deadline:
                raise RuntimeError(f"no scheduler in {START_TIMEOUT:g} s:\n{(folder / 'scheduler.log').read_text()}")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def at_size(server: Server, folder: Path, runs: int, turns: int) -> list[Figure]:
    """Both figures at one size."""
    bayes, grid = Crew(server, BAYES), Crew(server, GRID)
    for crew in (bayes, grid):
        crew.have_run(runs)
        crew.begin()
    harness.say(f"search_service: {runs} runs, agents on their own")
    alone = [(bayes.turn_ms(number), grid.turn_ms(number)) for number in range(turns)]
    pause = max(0.25, 1.5 * sorted(ours for ours, _ in alone)[turns // 2] / 1000)
    harness.say(f"search_service: {runs} runs, with a scheduler, {pause:.2f} s between claims")
    served = []
    with scheduler(server, folder, bayes):
        for number in range(turns + AGENTS):
            time.sleep(pause)
            served.append((bayes.turn_ms(number), grid.turn_ms(number)))
    served = served[AGENTS:]  # the scheduler has read the runs and knows how many to keep ready
    for crew in (bayes, grid):
        crew.asker.close()
    return [_figure(f"{runs:,} runs, agents alone", alone), _figure(f"{runs:,} runs, scheduler", served, TARGET_MS)]


def _figure(name: str, pairs: list[tuple[float, float]], target: float | None = None) -> Figure:
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    above = harness.paired_difference(ours, theirs)
    spread = Spread.of(ours)
    return Figure(
        name, "ms", spread, "grid sweep", Spread.of(theirs), f"{above:+.2f} ms",
        f"under {target:g} ms" if target else "", spread.median < target if target else None,
    )  # fmt: skip


def measure(quick: bool) -> Report:
    report = Report("A claim of a sweep whose search learns: from the end of a run to the next one")
    sizes = ((100, 10),) if quick else ((100, 24), (1_000, 12), (10_000, 8))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resweep-search-")))
        server = stack.enter_context(harness.private_server("everysec"))
        for runs, turns in sizes:
            report.figures += at_size(server, folder, runs, turns)
    report.remarks.append(f"{AGENTS} agents, 5 parameters, AOF everysec; the run's end and the claim are two calls")
    return report


if __name__ == "__main__":
    harness.main(measure, __doc__)
