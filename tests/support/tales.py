"""Events made by hand: the life of a run, told event after event. Times are seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resweep_scheduler.accounts import Life, Logged, RunCost, account_run, lives_of
from resweep_scheduler.store import Event

STATES = {"suggested": "pending", "claimed": "running", "adopted": "running", "retried": "preempted"}
NOTES = ("checkpoint", "stop", "target")


class Tale:
    """Events of one run, told one after the other."""

    def __init__(self, run_id: str = "r", *, state: str = "") -> None:
        self.run_id = run_id
        self.state = state
        self.events: list[Event] = []

    def tell(self, at: float, kind: str, attempt: int | None = None, agent: str = "box", **data: Any) -> Tale:
        """One more event, at a second."""
        after = self.state if kind in NOTES else STATES.get(kind, kind)
        ms = round(at * 1000)
        event = Event(f"{ms}-{len(self.events)}", ms, kind, self.run_id, attempt, agent, self.state, after, data)
        self.events.append(event)
        self.state = after
        return self

    @property
    def life(self) -> Life:
        return lives_of(self.events)[self.run_id]

    def cost(
        self,
        *,
        now: float = 1000,
        firsts: Sequence[int | None] | None = None,
        logged: Sequence[Logged] | None = None,
        attempts: int = 0,
        busy: float = 0,
    ) -> RunCost:
        number = len(self.life.attempts)
        return account_run(
            self.life,
            firsts or [None] * number,
            logged or [Logged()] * number,
            now=round(now * 1000),
            attempts=attempts,
            busy=round(busy * 1000),
        )
