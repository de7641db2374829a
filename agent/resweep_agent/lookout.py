"""What the sources of notices have said, and how it is passed on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from resweep_agent.logs import event
from resweep_agent.notices import Notice
from resweep_agent.parts import Parts
from resweep_scheduler.store import ClaimToken, Store, StoreError

_log = logging.getLogger(__name__)

MARK_PATIENCE = 1.0
"""Seconds for which the children's signal waits until Redis has the mark."""
LATE_MARK = 10.0
"""Seconds for which a mark that Redis does not take at once is tried again, beside what else is done."""
REPORT_MARGIN = 2.0
"""Seconds for the reports before the machine goes; a tenth of what is left when that is less."""


class Lookout:
    """Hears what the sources say, and tells the log and Redis of it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._hints: set[str] = set()
        self._number = 0
        self._ends: set[Notice] = set()
        self._knows_machine = False

    def news(self) -> list[Notice]:
        """What was not said before. After the first notice that is no hint only those count that know a deadline.

        On a cloud the signal comes first, and the provider's word a moment later: then the machine has less time than
        the signal gave the children.
        """
        said = [notice for source in self._parts.sources if (notice := source.poll()) is not None]
        hints = [notice for notice in said if notice.hint and str(notice) not in self._hints and not self._ends]
        self._hints |= {str(notice) for notice in hints}
        ends: list[Notice] = []
        for notice in said:
            if notice.hint or notice in self._ends or (self._ends and notice.deadline is None):
                continue
            ends.append(notice)
            self._ends.add(notice)
        return [*hints, *ends]

    def finds_preemptible(self) -> bool:
        """True once: when a source has found out that this machine may be taken away."""
        if self._knows_machine or not any(source.preemptible for source in self._parts.sources):
            return False
        self._knows_machine = True
        event(_log, logging.INFO, "machine-preemptible", next="runs whose agent vanishes go back to the run queue")
        return True

    def announce(self, notice: Notice, tokens: Sequence[ClaimToken], now: float) -> None:
        """Mark the attempts in Redis, and note the notice there; return after `MARK_PATIENCE` at most.

        What is not acknowledged by then is tried again meanwhile; the report of each end says the same again.
        """
        parts = self._parts
        lead = None if notice.deadline is None else max(0.0, notice.deadline - now)
        event(
            _log,
            logging.WARNING,
            "hint" if notice.hint else "notice",
            source=notice.source,
            detail=notice.detail or None,
            lead=None if lead is None else round(lead, 1),
            grace=None if notice.hint else parts.policy.grace,
        )
        self._number += 1
        number, lead_ms = self._number, None if lead is None else round(lead * 1000)

        def send(store: Store) -> None:
            for token in tokens:
                store.mark_preempting(token, reason=f"notice: {notice}", source=notice.source, lead_ms=lead_ms)
            store.note_notice(
                parts.sweep_id,
                agent=parts.identity.name,
                session=parts.identity.session,
                number=number,
                source=notice.source,
                detail=notice.detail,
                hint=notice.hint,
                lead_ms=lead_ms,
            )

        def try_to_send() -> None:
            try:
                send(parts.store.patient(LATE_MARK))
            except StoreError as error:
                event(_log, logging.WARNING, "mark-failed", error=error, next="the report of the end says it")

        thread = threading.Thread(target=try_to_send, name="resweep-mark", daemon=True)
        thread.start()
        thread.join(MARK_PATIENCE)


def time_to_kill(notice: Notice, grace: float, now: float) -> float:
    """When children that are told at `now` are killed: after the grace, and before the machine goes."""
    if notice.deadline is None:
        return now + grace
    left = max(0.0, notice.deadline - now)
    return now + min(grace, left - min(REPORT_MARGIN, left / 10))
