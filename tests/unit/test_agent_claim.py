"""What the answers to claims lead to."""

from __future__ import annotations

import pytest

from resweep_agent.claim import FOLLOWS, Claims, Next
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_scheduler.store import ClaimAnswer, ClaimOutcome


def claims() -> Claims:
    return Claims(sweep_id="s", agent="a", session="abcd", lease_ms=60_000, preemptible=True)


def test_every_outcome_leads_somewhere() -> None:
    assert set(FOLLOWS) == set(ClaimOutcome)


@pytest.mark.parametrize("outcome", sorted(set(ClaimOutcome) - {ClaimOutcome.UNREGISTERED}))
def test_the_number_grows_only_when_a_run_was_given_or_the_call_came_too_late(outcome: ClaimOutcome) -> None:
    mine = claims()
    assert mine.request(None).nonce == "abcd.1"
    mine.settle(ClaimAnswer(outcome))
    grows = outcome in (ClaimOutcome.RUN, ClaimOutcome.LATE, ClaimOutcome.LOST)
    assert mine.request(None).nonce == ("abcd.2" if grows else "abcd.1")


def test_a_call_without_an_answer_is_repeated_with_its_nonce() -> None:
    mine = claims()
    first = mine.request(None)
    assert mine.unanswered
    assert mine.request(None).nonce == first.nonce
    mine.settle(ClaimAnswer(ClaimOutcome.WAIT))
    assert not mine.unanswered


def test_an_agent_that_was_replaced_ends_instead_of_fighting_for_its_name() -> None:
    mine = claims()
    unknown = ClaimAnswer(ClaimOutcome.UNREGISTERED)
    for _ in range(2):
        assert mine.settle(unknown) is Next.REGISTER
        mine.registered()
    with pytest.raises(AgentError, match="a newer agent is called 'a'") as caught:
        mine.settle(unknown)
    assert caught.value.exit_code is ExitCode.ILLEGAL_STATE


def test_a_registration_that_was_refused_does_not_count() -> None:
    """A Redis out of memory answers a claim, and takes in nobody."""
    mine = claims()
    for _ in range(5):
        assert mine.settle(ClaimAnswer(ClaimOutcome.UNREGISTERED)) is Next.REGISTER


def test_a_registration_that_helped_is_forgotten() -> None:
    mine = claims()
    for _ in range(5):
        assert mine.settle(ClaimAnswer(ClaimOutcome.UNREGISTERED)) is Next.REGISTER
        mine.registered()
        assert mine.settle(ClaimAnswer(ClaimOutcome.WAIT)) is Next.WAIT


def test_slots_of_one_process_never_share_a_nonce() -> None:
    slots = [
        Claims(sweep_id="s", agent="a", session="abcd", lease_ms=60_000, preemptible=True, slot=slot, slots=3)
        for slot in range(3)
    ]
    nonces = []
    for _ in range(4):
        for slot in slots:
            nonces.append(slot.request(None).nonce)
            slot.settle(ClaimAnswer(ClaimOutcome.LOST))
    assert nonces == [f"abcd.{number}" for number in range(1, 13)]
