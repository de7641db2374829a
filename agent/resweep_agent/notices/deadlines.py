"""From a time of day in a notice to a deadline on the monotonic clock, which no change of the time of day moves."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from resweep_agent.notices.metadata import OddAnswerError


def deadline_at(end: float, now: float) -> float:
    """The deadline for what happens at `end` when it is `now`, both seconds since the epoch; the past is at once."""
    return time.monotonic() + max(0.0, end - now)


def iso_time(text: str) -> float:
    """Read `2026-01-01T00:02:00Z`; without a zone it is UTC.

    Raises:
        OddAnswerError: It is no such time.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise OddAnswerError(f"a time is written like 2026-01-01T00:02:00Z, got {text[:80]!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def http_time(text: str) -> float:
    """Read `Mon, 19 Sep 2016 18:29:47 GMT`.

    Raises:
        OddAnswerError: It is no such time.
    """
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        raise OddAnswerError(f"a time is written like Mon, 19 Sep 2016 18:29:47 GMT, got {text[:80]!r}") from None
