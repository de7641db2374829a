"""A sweep over the training script, its agents, and words to wait for what happens to it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from resweep_scheduler.store import Event, Run, Store
from resweep_scheduler.store.states import RunState, SweepState
from support.agents import Agents, agents_of
from support.checks import Replay, check_promises
from support.training import Trace, Training, check_totals, make_sweep
from support.waiting import wait_until

Found = TypeVar("Found")

PATIENCE = 60.0
"""Seconds in which whatever is waited for happens, also on a busy machine."""


def let_pass(seconds: float) -> None:
    """For faults that are a length of time: an outage, a freeze, a cut. Nothing else waits without a condition."""
    threading.Event().wait(seconds)


@dataclass(slots=True)
class Scene:
    """What a fault test plays with.

    Attributes:
        store: Reads what became of the sweep; patient, so that a server may be away meanwhile.
        lease: In seconds.
    """

    store: Store
    sweep_id: str
    training: Training
    agents: Agents
    lease: float

    def runs(self) -> list[Run]:
        return self.store.runs(self.sweep_id)

    def only_run(self) -> Run:
        (run,) = self.runs()
        return run

    def events(self, kind: str) -> list[Event]:
        return [event for event in self.store.events(self.sweep_id) if event.kind == kind]

    def wait_for_runs(self, state: RunState, *, count: int = 1) -> list[Run]:
        """Until `count` runs are in a state at the same time."""
        return self._wait_for_many(
            lambda: [run for run in self.runs() if run.state is state], count, f"runs that are {state}"
        )

    def wait_for_event(self, kind: str, *, count: int = 1) -> list[Event]:
        """Until an event of a kind has happened `count` times."""
        return self._wait_for_many(lambda: self.events(kind), count, f"events {kind}")

    def wait_at_gate(self, *, count: int = 1, attempt: int | None = None) -> list[Trace]:
        """Until `count` children, of a certain attempt if given, stand at the gate and their last step is stored."""
        last = (self.training.gate_step or 0) - 1

        def there() -> list[Trace]:
            return [
                trace
                for trace in self.training.at_gate()
                if attempt in (None, trace.attempt) and self._is_stored(trace.run_id, last)
            ]

        return self._wait_for_many(there, count, f"children at the gate, with step {last} stored")

    def _is_stored(self, run_id: str, last: int) -> bool:
        run = self.store.run(run_id)
        saved = run.checkpoint.step if run.checkpoint is not None else None
        steps = [run.step, saved] if self.training.saves else [run.step]
        return last < 0 or all(step is not None and step >= last for step in steps)

    def wait_for_end(self, *, timeout: float = 2 * PATIENCE) -> None:
        """Until the sweep is finished and its agents have gone home."""
        self.wait_for(
            lambda: self.store.sweep(self.sweep_id).state is SweepState.FINISHED,
            description="the end of the sweep",
            timeout=timeout,
        )
        for agent in self.agents.all:
            agent.wait(timeout)

    def check(self, *, complete: bool = True, rolled_back: bool = False, every_step: bool = True) -> Replay:
        """The promises, and that every run went on from its right checkpoint."""
        steps = range(self.training.steps) if every_step else None
        replay = check_promises(self.store, self.sweep_id, complete=complete, steps=steps, rolled_back=rolled_back)
        check_totals(self.store, [run.run_id for run in self.runs()])
        return replay

    def wait_for(self, happened: Callable[[], object], *, description: str, timeout: float = PATIENCE) -> None:
        """Until something is so; the error tells the whole story of the sweep."""
        try:
            wait_until(happened, timeout=timeout, interval=0.05, description=description)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    def _wait_for_many(self, find: Callable[[], list[Found]], count: int, what: str) -> list[Found]:
        self.wait_for(lambda: len(find()) >= count, description=f"{count} {what}")
        return find()

    def report(self) -> str:
        """What it takes to understand a failed test."""
        lines = []
        for event in self.store.events(self.sweep_id)[-60:]:
            who = f"{event.run_id or ''} {event.attempt or ''} {event.agent or ''}"
            lines.append(f"{event.at} {event.kind} {who} {dict(event.data)}")
        for agent in self.agents.all:
            lines += [f"-- {agent.log.name}, {'runs' if agent.running else 'ended'}:", agent.printed()[-3000:]]
        return "\n".join(lines)


@contextmanager
def play(
    directory: Path,
    url: str,
    training: Training,
    *,
    points: int = 1,
    lease: float = 3.0,
    agent_url: str | None = None,
    start: Sequence[Sequence[str]] = (),
    **settings: Any,
) -> Iterator[Scene]:
    """A sweep on a server, and agents that are started for it.

    Args:
        directory: The agents' working directory is made there.
        agent_url: How agents reach the server, when it is not `url`.
        start: For each agent that is started at once its name and its options.
        settings: More words for `support.training.make_sweep`.
    """
    store, sweep_id = make_sweep(url, points=points, lease=lease, **settings)
    with ExitStack() as stack:
        stack.callback(store.client.close)
        agents = stack.enter_context(
            agents_of(directory / "work", sweep_id, url=agent_url or url, environment=training.environment())
        )
        scene = Scene(store.patient(PATIENCE), sweep_id, training, agents, lease)
        for name, *options in start:
            agents.start(name, *options)
        yield scene
