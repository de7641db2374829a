"""The states of runs and sweeps, and which may follow which.

The scripts in lua/ enforce these rules inside Redis; the tables here say them in one place, and a test checks that the
scripts and the tables agree.
"""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """What a run is. ``successors`` says what may come next."""

    PENDING = "pending"  # suggested by the search, not yet claimed
    RUNNING = "running"  # one attempt owns it
    PREEMPTING = "preempting"  # owned, and its machine is about to go: any end but exit 0 puts it on the run queue
    PREEMPTED = "preempted"  # on the run queue, waits for an agent
    FINISHED = "finished"  # exited 0
    FAILED = "failed"  # exited with another status, or never made progress
    CRASHED = "crashed"  # ended without a status
    KILLED = "killed"  # stopped by a person or by early termination

    @property
    def successors(self) -> frozenset[RunState]:
        """The states that may follow this one."""
        return _RUN_SUCCESSORS[self]

    @property
    def is_terminal(self) -> bool:
        """True for states in which a run stays unless somebody retries it."""
        return self in _TERMINAL

    @property
    def is_owned(self) -> bool:
        """True while an attempt holds a lease on the run."""
        return self in (RunState.RUNNING, RunState.PREEMPTING)


_TERMINAL = frozenset({RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.KILLED})
_ENDS = _TERMINAL | {RunState.PREEMPTED}

# An owner that was given up for dead may come back and adopt its run while nobody else took it (promise 5); that is the
# way from preempted, crashed and failed (preempted too often without progress) back to running or preempting and, when
# it comes back to report its end, to any end.
_RUN_SUCCESSORS: dict[RunState, frozenset[RunState]] = {
    RunState.PENDING: frozenset({RunState.RUNNING, RunState.KILLED}),
    RunState.RUNNING: _ENDS | {RunState.PREEMPTING},
    RunState.PREEMPTING: _ENDS - {RunState.CRASHED},
    RunState.PREEMPTED: frozenset({RunState.RUNNING, RunState.PREEMPTING}) | _TERMINAL,
    RunState.FINISHED: frozenset(),
    RunState.FAILED: frozenset({RunState.PREEMPTED, RunState.RUNNING, RunState.PREEMPTING})
    | (_TERMINAL - {RunState.FAILED}),
    RunState.CRASHED: frozenset({RunState.PREEMPTED, RunState.RUNNING}) | (_TERMINAL - {RunState.CRASHED}),
    RunState.KILLED: frozenset({RunState.PREEMPTED}),
}


class SweepState(StrEnum):
    """What a sweep is."""

    PENDING = "pending"  # no run claimed yet
    RUNNING = "running"  # agents get runs
    PAUSED = "paused"  # agents wait, running runs go on
    FINISHED = "finished"  # exhausted, capped, target reached or stopped; running runs may end
    CANCELED = "canceled"  # running runs are killed

    @property
    def is_over(self) -> bool:
        """True when agents are sent home."""
        return self in (SweepState.FINISHED, SweepState.CANCELED)


class SweepCommand(StrEnum):
    """What a person may ask of a sweep (W&B's ``wandb sweep --pause`` and so on)."""

    PAUSE = "pause"
    RESUME = "resume"
    STOP = "stop"  # no new runs, running ones may end
    CANCEL = "cancel"  # running ones are killed
