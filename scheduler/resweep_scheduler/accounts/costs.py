"""What the attempts of one run cost: the rules of `resweep_scheduler.accounts`, as arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resweep_scheduler.accounts.attempts import Attempt, Life, Wait

_OVER = frozenset({"finished", "failed", "crashed", "killed"})
"""States in which no later attempt is to come, unless somebody retries the run."""


@dataclass(frozen=True, slots=True)
class Logged:
    """What the history says of one attempt.

    Attributes:
        kept_at: When its last step before the restart step arrived (its last step of all where there is none); None
            when there is none.
        lost: How many of its steps are not before the restart step.
    """

    kept_at: int | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class AttemptCost:
    """One attempt and its parts, in ms; ``spent`` = useful + lost + open + unknown.

    Attributes:
        spent: None when start or end of the attempt are not known; the parts are 0 then.
        kept_until: The moment up to which its work is kept; None when nobody knows.
        lost_steps: Logged steps that are to be done again; None when nobody knows.
        waited: On the run queue, before it; None for one that did not come from there.
    """

    attempt: Attempt
    spent: int | None
    useful: int = 0
    lost: int = 0
    open: int = 0
    unknown: int = 0
    kept_until: int | None = None
    lost_steps: int | None = None
    waited: int | None = None


@dataclass(frozen=True, slots=True)
class RunCost:
    """A run's attempts and their sums, in ms.

    Attributes:
        queued: Stays on the run queue, from when to when; one that goes on ends now.
        missing: How many attempts are known by the run's record alone, because their events are gone.
        unrecorded: Time that the record counted for attempts whose events are gone; part of `unknown`.
    """

    run_id: str
    attempts: tuple[AttemptCost, ...] = ()
    queued: tuple[tuple[int, int], ...] = ()
    missing: int = 0
    unrecorded: int = 0

    @property
    def waits(self) -> tuple[int, ...]:
        """How long each stay on the run queue lasted."""
        return tuple(end - start for start, end in self.queued)

    @property
    def spent(self) -> int:
        return self.useful + self.lost + self.open + self.unknown

    @property
    def useful(self) -> int:
        return sum(cost.useful for cost in self.attempts)

    @property
    def lost(self) -> int:
        return sum(cost.lost for cost in self.attempts)

    @property
    def open(self) -> int:
        return sum(cost.open for cost in self.attempts)

    @property
    def unknown(self) -> int:
        return sum(cost.unknown for cost in self.attempts) + self.unrecorded

    @property
    def goodput(self) -> float | None:
        return goodput(self.useful, self.lost)


def goodput(useful: int, lost: int) -> float | None:
    """The share of useful time; None when nothing is known."""
    return useful / (useful + lost) if useful + lost else None


def restart_steps(life: Life, firsts: Sequence[int | None]) -> list[int | None]:
    """For each attempt the step from which its work was done again, or is to be; None: nobody knows, or there is none.

    Args:
        firsts: For each attempt the first step that it logged; None when it logged nothing.
    """
    found: list[int | None] = []
    expected: int | None = None
    for place, attempt in enumerate(life.attempts):
        if attempt.checkpoints:
            step = attempt.checkpoints[-1].step
            expected = None if step is None else step + 1
        told = [first for first in firsts[place + 1 :] if first is not None]
        found.append(min(told) if told else None if _stays(life, place) else expected)
    return found


def _stays(life: Life, place: int) -> bool:
    """No later attempt will do again what this one did."""
    return place == len(life.attempts) - 1 and life.state in _OVER


def account_run(
    life: Life,
    firsts: Sequence[int | None],
    logged: Sequence[Logged],
    *,
    now: int,
    attempts: int = 0,
    busy: int = 0,
) -> RunCost:
    """Adds up the life of one run.

    Args:
        firsts: As for `restart_steps`.
        logged: What the history says of each attempt, by those restart steps.
        now: Where running attempts and waits end, ms.
        attempts: The number of the last one, by the run's record.
        busy: Time of attempts that ended, by the run's record, ms.
    """
    restarts = restart_steps(life, firsts)
    saves = any(attempt.checkpoints for attempt in life.attempts)
    costs = []
    for place, attempt in enumerate(life.attempts):
        stays = _stays(life, place)
        kept = _kept_until(attempt, restarts[place], logged[place], stays=stays, saves=saves)
        all_stay = stays or attempt.ended == "finished"
        steps = 0 if all_stay else None if restarts[place] is None else logged[place].lost
        costs.append(_cost(attempt, kept, steps, life.wait_before(attempt.number), now))
    missing = max(0, attempts - len({attempt.number for attempt in life.attempts}))
    recorded = sum(cost.spent for cost in costs if cost.spent is not None and cost.attempt.is_over)
    cut = missing > 0 or any(cost.spent is None for cost in costs)
    return RunCost(
        run_id=life.run_id,
        attempts=tuple(costs),
        queued=tuple((wait.start, wait.start + wait.lasted(now)) for wait in life.waits),
        missing=missing,
        unrecorded=max(0, busy - recorded) if cut else 0,
    )


def _kept_until(attempt: Attempt, restart: int | None, logged: Logged, *, stays: bool, saves: bool) -> int | None:
    """When the last thing happened that is kept; the start when nothing is, None when nobody knows."""
    if attempt.start is None:
        return None
    checkpoints = attempt.checkpoints
    if attempt.ended == "finished":
        return attempt.end
    if restart is not None:
        checkpoints = [mark for mark in checkpoints if mark.step is None or mark.step < restart]
    elif not stays and not saves:
        # While it runs, what it has not saved is open.
        return None if attempt.is_over else attempt.start
    kept = [mark.at for mark in checkpoints]
    if (restart is not None or stays) and attempt.is_over and logged.kept_at is not None:
        kept.append(logged.kept_at)
    return max(kept, default=attempt.start)


def _cost(attempt: Attempt, kept: int | None, steps: int | None, wait: Wait | None, now: int) -> AttemptCost:
    spent = attempt.spent(now)
    waited = None if wait is None else wait.lasted(now)
    if spent is None or attempt.start is None:
        return AttemptCost(attempt, None, lost_steps=None, waited=waited)
    if kept is None:
        return AttemptCost(attempt, spent, unknown=spent, lost_steps=steps, waited=waited)
    useful = min(spent, max(0, kept - attempt.start))
    rest = spent - useful
    lost, still_open = (rest, 0) if attempt.is_over else (0, rest)
    return AttemptCost(
        attempt=attempt,
        spent=spent,
        useful=useful,
        lost=lost,
        open=still_open,
        kept_until=attempt.start + useful,
        lost_steps=steps if attempt.is_over else None,
        waited=waited,
    )
