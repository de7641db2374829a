"""The end of an agent: nothing stays behind, neither a child nor a run."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from resweep_agent.parts import Parts
from resweep_agent.slot import Slot
from resweep_scheduler.store import EndRequest, StoreError


def give_back(parts: Parts, slots: Sequence[Slot]) -> None:
    """Whatever the reason of the end: no child stays, and no run stays with us if Redis answers."""
    for slot in slots:
        if slot.attempt is not None:
            slot.attempt.kill()
            parts.guard.ended(slot.attempt.run.token)
    with contextlib.suppress(StoreError):
        for slot in slots:
            if slot.claims.unanswered and slot.free:
                slot.run = parts.store.claim(slot.claims.request(None)).run
            if slot.run is not None:
                gave_up = EndRequest(
                    slot.run.token,
                    None,
                    preempted=True,
                    reason="its agent gave up",
                    launched=slot.attempt is not None,
                )
                parts.store.end_attempt(slot.end or gave_up)
            parts.store.leave(parts.sweep_id, agent=slot.agent, session=parts.identity.session)
