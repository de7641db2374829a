"""Sweeps whose search learns, the processes that ask it, and their sudden ends at a certain step of a suggestion."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import create_sweep
from resweep_scheduler.store import Store
from resweep_scheduler.store.states import RunState, SweepState
from support.agents import AgentProcess, Agents, agents_of, thaw
from support.checks import Replay, check_promises
from support.waiting import wait_until

PROGRAM = Path(__file__).with_name("searching_script.py")
STUDY = Path(__file__).with_name("study.py")
DYING = Path(__file__).with_name("dying.py")
PATIENCE = 90.0
"""Seconds in which whatever is waited for happens, also on a busy machine."""
LEASE = 4.0


@dataclass
class Search:
    """A sweep that learns, and who works for it.

    Attributes:
        store: Reads what became of it; patient, so that a server may be away meanwhile.
        folder: Where everything runs.
    """

    store: Store
    sweep_id: str
    runs: int
    folder: Path
    agents: Agents
    services: list[AgentProcess] = field(default_factory=list)

    def start_service(self, *options: str, dies: tuple[str, int] | None = None) -> AgentProcess:
        """Start `resweep scheduler`; `dies` as of `dying`."""
        number = len(self.services)
        words = [str(Path(sys.executable).with_name("resweep")), "scheduler", "--url", self.store.url, *options]
        service = AgentProcess(
            f"service-{number}",
            [*(self.dying(f"service-{number}", *dies) if dies else ()), *words],
            environment=dict(os.environ),
            directory=self.folder,
            log=self.folder / f"service-{number}.log",
        )
        self.services.append(service)
        return service

    def wait_for_service(self) -> None:
        """Until agents can see that a service looks after the sweep."""
        key = self.store.keys.sweep(self.sweep_id, "service")
        self.wait_for(lambda: self.store.client.exists(key), "a service")

    def start_agent(self, name: str, *options: str, dies: tuple[str, int] | None = None) -> AgentProcess:
        return self.agents.start(name, *options, prefix=self.dying(name, *dies) if dies else ())

    def dying(self, name: str, step: str, occurrence: int) -> list[str]:
        """The words before a command that let it be killed when it has done a step for the `occurrence`-th time."""
        return [sys.executable, str(DYING), step, str(occurrence)]

    def forget_who_waits(self) -> None:
        """As when ten seconds have passed: until then the next agent asks for a killed one, too.

        What is suggested for two at once cannot know the result of the first.
        """
        self.store.client.delete(self.store.keys.sweep(self.sweep_id, "askers"))

    def finished(self) -> int:
        return self.store.sweep(self.sweep_id).counts[RunState.FINISHED]

    def wait_for(self, happened: object, description: str, *, timeout: float = PATIENCE) -> None:
        assert callable(happened)
        try:
            wait_until(happened, timeout=timeout, interval=0.05, description=description)
        except AssertionError as error:
            logs = "\n".join(
                f"-- {one.log.name}\n{one.printed()[-3000:]}" for one in (*self.agents.all, *self.services)
            )
            raise AssertionError(f"{error}\n{logs}") from None

    def wait_for_end(self) -> None:
        self.wait_for(
            lambda: self.store.sweep(self.sweep_id).state is SweepState.FINISHED, "the end of the sweep",
            timeout=2 * PATIENCE,
        )  # fmt: skip

    def check(self) -> Replay:
        """Every point was suggested once, in order, and run to its end."""
        replay = check_promises(self.store, self.sweep_id)
        suggested = [event.data["index"] for event in self.store.events(self.sweep_id) if event.kind == "suggested"]
        assert suggested == list(range(self.runs))
        assert [(run.index, run.state) for run in self.store.runs(self.sweep_id)] == [
            (index, RunState.FINISHED) for index in range(self.runs)
        ]
        return replay

    def points(self) -> list[dict[str, object]]:
        """The parameters of all runs, by index."""
        return [dict(run.params) for run in self.store.runs(self.sweep_id)]


@contextmanager
def search_on(
    directory: Path, url: str, *, runs: int, startup: int = 3, seconds: float = 0.0, seed: int = 7,
    webhooks: list[dict[str, object]] | None = None, scheduler: Mapping[str, object] | None = None,
) -> Iterator[Search]:  # fmt: skip
    """A sweep of `runs` runs, `startup` of which are drawn at random; nobody works for it at the end of the block.

    With `scheduler` (W&B's, with functions of STUDY) the search is that of a user's file.
    """
    settings: dict[str, object] = {
        "program": str(PROGRAM),
        "method": "bayes",
        "seed": seed,
        "run_cap": runs,
        "metric": {"name": "score", "goal": "maximize"},
        "parameters": {"x": {"min": 0.0, "max": 1.0}, "y": {"min": 0.0, "max": 1.0}},
        "search": {"sampler": "tpe", "options": {"n_startup_trials": startup}},
        "command": ["${env}", "${interpreter}", "${program}"],
        "lease": {"duration": LEASE, "heartbeat": LEASE / 6},
        "preemption": {"max_attempts_without_progress": 0},
        "retry": {"crashed": 50, "failed": 50},
    }
    if webhooks:
        settings["webhooks"] = webhooks
    if scheduler:
        del settings["search"]
        settings |= {"method": "custom", "scheduler": dict(scheduler)}
    store, sweep_id = create_sweep(
        url, parse_sweep(settings), config_text=json.dumps(settings), sweep_id=f"s{os.urandom(4).hex()}"
    )
    environment = {"SEARCHING_SECONDS": str(seconds)}
    directory.mkdir(exist_ok=True)
    with agents_of(directory / "work", sweep_id, url=url, environment=environment) as agents:
        search = Search(store.patient(PATIENCE), sweep_id, runs, directory, agents)
        try:
            yield search
        finally:
            for service in search.services:
                if service.running:
                    thaw(service.tree())
                    service.kill()
            store.client.close()
