"""A patient store tries again while Redis is away; an impatient one says so at once."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest
from support.stores import SWEEP, Agent, fake_store, make_offer, make_sweep

from resweep_scheduler.store import ClaimOutcome, EndRequest, Hold, RunState, Store, StoreUnavailableError


class Outage:
    """A fake server that is away until somebody has waited for it `pauses` times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pauses: int) -> None:
        self.server = fakeredis.FakeServer(version=(7, 0))
        self.store = fake_store(self.server)
        self.pauses = pauses
        self.waited: list[float] = []
        monkeypatch.setattr("resweep_scheduler.store.base.time.sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        if len(self.waited) >= self.pauses:
            self.server.connected = True

    def begin(self) -> Agent:
        """An agent that owns run0 of three, and then Redis goes away."""
        make_sweep(self.store)
        agent = Agent(self.store)
        agent.take(make_offer(3))
        self.server.connected = False
        return agent


CALLS: dict[str, Callable[[Store, Agent], object]] = {
    "a transition": lambda store, agent: store.end_attempt(EndRequest(agent.run.token, 0)),
    "two transitions in one flight": lambda store, agent: store.end_and_claim(
        EndRequest(agent.run.token, 0), agent.request()
    ),
    "a read of one key": lambda store, agent: store.leases(SWEEP),
    "a read of many keys": lambda store, agent: store.runs(SWEEP),
    "the time": lambda store, agent: store.redis_time(),
}


@pytest.mark.parametrize("call", CALLS)
def test_patient_store_outlasts_an_outage(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The call is tried again, with growing pauses, until Redis is back."""
    outage = Outage(monkeypatch, pauses=4)
    agent = outage.begin()
    assert CALLS[call](outage.store.patient(60), agent)
    assert len(outage.waited) == 4
    assert max(outage.waited) <= 1.0


@pytest.mark.parametrize("call", CALLS)
def test_impatient_store_tries_once(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Without patience the first failure is the answer."""
    outage = Outage(monkeypatch, pauses=1)
    agent = outage.begin()
    with pytest.raises(StoreUnavailableError):
        CALLS[call](outage.store, agent)
    assert outage.waited == []


def test_end_and_claim_in_one_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report and the next run come together, and come again the same when the answer was lost."""
    outage = Outage(monkeypatch, pauses=1)
    agent = outage.begin()
    outage.server.connected = True
    calls = EndRequest(agent.run.token, 0), agent.request()
    ended, claimed = outage.store.end_and_claim(*calls)
    assert (ended.hold, ended.state, claimed.outcome) == (Hold.OWNER, RunState.FINISHED, ClaimOutcome.RUN)
    ended_again, claimed_again = outage.store.end_and_claim(*calls)
    assert (ended_again.hold, ended_again.state) == (Hold.ENDED, RunState.FINISHED)
    assert claimed_again == claimed
