"""From the events of a sweep to the attempts and queue waits of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from resweep_scheduler.store.records import Event

ENDS = frozenset({"finished", "failed", "crashed", "killed", "preempted"})
"""Kinds of events that end an attempt."""

RUNS = "running"
CUT_OFF = "unknown"

_FROM_AGENT = "notice: "
"""What agents write before the source in the reason of a mark."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Word that the attempt's machine, or the script itself, is about to go.

    Attributes:
        source: A signal, a cloud, "script"; as the event says it.
        lead_ms: How long before the end of the machine it came; None when the source does not know.
    """

    at: int
    source: str
    lead_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A checkpoint that was committed."""

    at: int
    step: int | None


@dataclass(slots=True)
class Attempt:
    """One execution of a run.

    Attributes:
        start: When it was claimed; None when the event is gone.
        end: None while it is not over, and when the event is gone.
        ended: "finished", "preempted", "failed", "crashed" or "killed": how this attempt ended, whatever became of the
            run; "running"; "unknown" when another attempt followed and no event tells.
        reason: Why, where it is not plain from the exit status.
        notice: The first one of the attempt.
    """

    run_id: str
    number: int
    agent: str
    start: int | None
    end: int | None = None
    ended: str = RUNS
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    notice: Notice | None = None
    checkpoints: list[Mark] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return self.ended != RUNS

    def spent(self, now: int) -> int | None:
        """Milliseconds; None when its start or its end is not known."""
        end = self.end if self.is_over else now
        return None if self.start is None or end is None else max(0, end - self.start)


@dataclass(slots=True)
class Wait:
    """A stay on the run queue, before the attempt ``before`` (None: nobody has taken the run)."""

    start: int
    end: int | None = None
    before: int | None = None

    def lasted(self, now: int) -> int:
        return max(0, (now if self.end is None else self.end) - self.start)


@dataclass(slots=True)
class Life:
    """All that the events tell of one run.

    Attributes:
        state: What the last event left it in.
        whole: The events begin with the run's suggestion: none of its attempts is missing.
    """

    run_id: str
    attempts: list[Attempt] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    state: str = ""
    whole: bool = False

    def attempt(self, number: int | None) -> Attempt | None:
        """The last one of this number: they begin anew when the record of a run was rolled back."""
        return next((attempt for attempt in reversed(self.attempts) if attempt.number == number), None)

    def wait_before(self, number: int) -> Wait | None:
        return next((wait for wait in reversed(self.waits) if wait.before == number), None)


def lives_of(events: Iterable[Event]) -> dict[str, Life]:
    """The lives of the runs that were not removed, in the order in which the events name them.

    Args:
        events: In their order. The first ones may be missing.
    """
    lives: dict[str, Life] = {}
    for event in events:
        if event.run_id is None:
            continue
        if event.kind == "removed":
            lives.pop(event.run_id, None)
            continue
        _play(lives.setdefault(event.run_id, Life(event.run_id)), event)
    return lives


def _play(life: Life, event: Event) -> None:
    if event.kind == "suggested":
        life.whole = True
    elif event.kind == "claimed":
        _begin(life, event, start=event.at)
    elif event.kind == "adopted":
        _go_on(life, event)
    elif event.kind == "preempting":
        attempt = _known(life, event)
        attempt.notice = attempt.notice or notice_of(event)
    elif event.kind == "checkpoint":
        _known(life, event).checkpoints.append(Mark(event.at, _number(event.data.get("step"))))
    elif event.kind in ENDS:
        _end(life, event)
    elif event.kind == "retried":
        life.waits.append(Wait(event.at))
    life.state = event.after


def _begin(life: Life, event: Event, start: int | None) -> Attempt:
    last = life.attempts[-1] if life.attempts else None
    if last is not None and not last.is_over:  # Redis forgot how it ended, or that it did
        last.ended = CUT_OFF
    if life.waits and life.waits[-1].end is None:
        life.waits[-1].end, life.waits[-1].before = event.at, event.attempt
    life.attempts.append(Attempt(life.run_id, event.attempt or 0, event.agent or "", start))
    return life.attempts[-1]


def _known(life: Life, event: Event) -> Attempt:
    """The attempt of an event; one whose claim is not in the events begins nobody knows when."""
    return life.attempt(event.attempt) or _begin(life, event, start=None)


def _go_on(life: Life, event: Event) -> None:
    """The owner came back: neither its attempt had ended, nor had the run waited."""
    attempt = _known(life, event)
    attempt.end, attempt.ended, attempt.reason, attempt.exit_code, attempt.signal = None, RUNS, "", None, None
    if life.waits and life.waits[-1].end in (None, event.at):
        life.waits.pop()


def _end(life: Life, event: Event) -> None:
    waiting = life.waits[-1] if life.waits and life.waits[-1].end is None else None
    attempt = life.attempt(event.attempt)
    if event.before in ("pending", "preempted") and event.kind == "killed" and (attempt is None or attempt.is_over):
        if waiting is not None:  # nobody owned it
            waiting.end = event.at
        return
    attempt = attempt or _begin(life, event, start=None)
    outcome = event.data.get("outcome")
    attempt.end, attempt.ended = event.at, outcome if outcome in ENDS else event.kind
    attempt.reason = str(event.data.get("reason") or "")
    attempt.exit_code, attempt.signal = _number(event.data.get("exit_code")), _number(event.data.get("signal"))
    if waiting is not None:  # the owner of a lapsed lease told its end after all
        life.waits.remove(waiting)
    if event.after == "preempted":
        life.waits.append(Wait(event.at))


def notice_of(event: Event) -> Notice:
    """What an event ``preempting`` says: ``source`` and ``lead`` (ms) where it has them, else the reason."""
    data: Mapping[str, Any] = event.data
    source = data.get("source") or str(data.get("reason") or "").removeprefix(_FROM_AGENT)
    return Notice(event.at, str(source or "unknown"), _number(data.get("lead")))


def _number(value: object) -> int | None:
    return round(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
