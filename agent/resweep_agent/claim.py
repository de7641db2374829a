"""The claims of one slot: which call is sent, and what its answer means."""

from __future__ import annotations

from enum import Enum, auto

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_scheduler.store.records import ClaimAnswer, ClaimOutcome, ClaimRequest, Offer

REGISTRATIONS = 2
"""A session that the store does not know after so many registrations in a row was replaced by a newer one."""


class Next(Enum):
    """What a slot does after the answer to its claim."""

    LAUNCH = auto()  # a run was handed out
    ASK = auto()  # compute an offer, claim again
    REGISTER = auto()  # introduce the slot, claim again
    AGAIN = auto()  # claim again at once
    RENAME = auto()  # offer other run ids, claim again
    WAIT = auto()  # nothing now
    DONE = auto()  # the sweep is over


FOLLOWS = {
    ClaimOutcome.RUN: Next.LAUNCH,
    ClaimOutcome.ASK: Next.ASK,
    ClaimOutcome.WAIT: Next.WAIT,
    ClaimOutcome.DONE: Next.DONE,
    ClaimOutcome.UNREGISTERED: Next.REGISTER,
    ClaimOutcome.LATE: Next.AGAIN,
    ClaimOutcome.LOST: Next.AGAIN,
    ClaimOutcome.TAKEN: Next.RENAME,
}


class Claims:
    """Makes the claims of one slot.

    A call that got no answer may have been executed: it is repeated with the same nonce until it is answered, which
    then gives the same run. No two claims of a process share a nonce: the slot `slot` (from 0) of `slots` takes every
    `slots`-th number.

    Attributes:
        preemptible: Whether a run whose agent vanishes goes to the run queue.
    """

    def __init__(
        self,
        *,
        sweep_id: str,
        agent: str,
        session: str,
        lease_ms: int,
        preemptible: bool,
        slot: int = 0,
        slots: int = 1,
    ) -> None:
        self._sweep_id = sweep_id
        self._agent = agent
        self._session = session
        self._lease_ms = lease_ms
        self.preemptible = preemptible
        self._number = slot + 1
        self._stride = slots
        self._registrations = 0
        self.unanswered = False

    def request(self, offer: Offer | None) -> ClaimRequest:
        """The next call. Until `settle` it counts as unanswered."""
        self.unanswered = True
        return ClaimRequest(
            sweep_id=self._sweep_id,
            agent=self._agent,
            nonce=f"{self._session}.{self._number}",
            lease_ms=self._lease_ms,
            preemptible=self.preemptible,
            offer=offer,
        )

    def settle(self, answer: ClaimAnswer) -> Next:
        """Take in the answer.

        Raises:
            AgentError: Another agent of the same name took this one's place.
        """
        self.unanswered = False
        if answer.outcome is ClaimOutcome.UNREGISTERED:
            if self._registrations >= REGISTRATIONS:
                raise AgentError(
                    f"a newer agent is called {self._agent!r}, so this one ends; give each agent its own --name",
                    ExitCode.ILLEGAL_STATE,
                )
            return FOLLOWS[answer.outcome]
        self._registrations = 0
        if answer.outcome in (ClaimOutcome.RUN, ClaimOutcome.LATE, ClaimOutcome.LOST):
            self._number += self._stride
        return FOLLOWS[answer.outcome]

    def registered(self) -> None:
        """The store took in the slot; only such registrations count, not those that a full Redis refused."""
        self._registrations += 1
