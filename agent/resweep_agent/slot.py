"""One slot of an agent: the place of one run at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from resweep_agent.claim import Claims
from resweep_agent.link import Backoff
from resweep_agent.watch import Attempt
from resweep_scheduler.store.records import ClaimedRun, EndRequest


@dataclass(slots=True, eq=False)
class Slot:
    """Free, or busy with an attempt, or with the report of its end.

    Attributes:
        number: From 0.
        agent: Its agent id.
        run: What it holds; None when it is free.
        attempt: The running attempt.
        end: The report that Redis has not acknowledged yet.
        retry_at: No call to Redis for this slot before this time.
    """

    number: int
    agent: str
    claims: Claims
    run: ClaimedRun | None = None
    attempt: Attempt | None = None
    end: EndRequest | None = None
    retry_at: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def free(self) -> bool:
        """True when it holds no run."""
        return self.run is None

    def clear(self) -> None:
        """It holds nothing any more."""
        self.run = self.attempt = self.end = None

    def failed(self, now: float) -> None:
        """Redis did not answer a call for this slot."""
        self.retry_at = now + self.backoff.next_pause()

    def worked(self) -> None:
        """Redis answered."""
        self.retry_at = 0.0
        self.backoff.reset()
