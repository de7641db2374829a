"""When to stop because runs keep failing: one bad machine must not burn a whole sweep.

Failures are runs that ended as failed or crashed, so deaths by a signal that nobody asked for count. Preemptions never
do, in either direction. A run that a person stopped breaks a row of failures, as in W&B.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from resweep_scheduler.store.states import RunState

FIRST_SECONDS = 60.0
MOST_FAILURES_IN_FIRST_SECONDS = 3
MOST_INITIAL_FAILURES = 5
SWITCH = "WANDB_AGENT_DISABLE_FLAPPING"
INITIAL = "WANDB_AGENT_MAX_INITIAL_FAILURES"


@dataclass(frozen=True, slots=True)
class FlappingLimits:
    """How many failures are too many; 0 means that there is no limit."""

    in_first_seconds: int = MOST_FAILURES_IN_FIRST_SECONDS
    initial: int = MOST_INITIAL_FAILURES
    consecutive: int = 0

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, consecutive: int) -> FlappingLimits:
        """Read W&B's two variables.

        Raises:
            ValueError: A variable has a value that it cannot have; the message says which and why.
        """
        switch = environ.get(SWITCH, "").strip().lower()
        if switch not in ("", "0", "1", "true", "false"):
            raise ValueError(f"{SWITCH} must be true or false, got {switch!r}; unset it to keep the guards")
        if switch in ("1", "true"):
            return cls(0, 0, consecutive)
        text = environ.get(INITIAL, "").strip() or str(MOST_INITIAL_FAILURES)
        if not text.isdecimal():
            raise ValueError(f"{INITIAL} must be a whole number, 0 or more, got {text!r}; unset it for 5")
        return cls(MOST_FAILURES_IN_FIRST_SECONDS, int(text), consecutive)


class FlappingGuard:
    """Counts how runs end.

    Args:
        limits: How many failures are too many.
        started: When the agent started, on the clock of `record`'s `now`.
    """

    def __init__(self, limits: FlappingLimits, started: float) -> None:
        self._limits = limits
        self._started = started
        self._failures = 0
        self._successes = 0
        self._in_a_row = 0

    def record(self, state: RunState, now: float) -> str | None:
        """Take in the end of a run; return why the agent must stop, or None.

        Args:
            state: What the run is after its attempt.
            now: The agent's clock, in seconds.
        """
        if state is RunState.KILLED:
            self._in_a_row = 0
        if state is RunState.FINISHED:
            self._successes += 1
            self._in_a_row = 0
        if state not in (RunState.FAILED, RunState.CRASHED):
            return None
        self._failures += 1
        self._in_a_row += 1
        return self._verdict(now)

    def _verdict(self, now: float) -> str | None:
        limits = self._limits
        if limits.consecutive and self._in_a_row >= limits.consecutive:
            return f"{self._in_a_row} runs in a row failed (--max-consecutive-failed-runs {limits.consecutive})"
        early = now - self._started < FIRST_SECONDS
        if early and limits.in_first_seconds and self._failures >= limits.in_first_seconds:
            return f"{self._failures} runs failed in the first {FIRST_SECONDS:g} seconds of this agent"
        if limits.initial and self._successes == 0 and self._failures >= limits.initial:
            return f"the first {self._failures} runs of this agent failed"
        return None
