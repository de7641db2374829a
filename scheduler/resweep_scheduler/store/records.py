"""What the store hands out: records as they stand in Redis, and what happened when somebody asked.

All times are milliseconds since the epoch on the Redis clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from resweep_scheduler.store.checkpoints import Checkpoint
from resweep_scheduler.store.states import RunState, SweepState


@dataclass(frozen=True, slots=True)
class ClaimToken:
    """The right of one attempt to write to its run: every write carries it.

    The nonce is made by the agent before it asks (``<session>.<sequence number>``), so a repeated call is recognised;
    the attempt number is given by Redis.
    """

    run_id: str
    attempt: int
    nonce: str

    def encode(self) -> str:
        """The form of the environment variable RESWEEP_CLAIM."""
        return f"{self.attempt}:{self.nonce}"

    @classmethod
    def decode(cls, run_id: str, text: str) -> ClaimToken:
        """Raises ValueError when ``text`` is not what ``encode`` makes."""
        attempt, separator, nonce = text.partition(":")
        if not separator or not attempt.isdigit() or not nonce:
            raise ValueError(f"a claim is ATTEMPT:NONCE, got {text!r}; leave RESWEEP_CLAIM as the agent set it")
        return cls(run_id, int(attempt), nonce)


@dataclass(frozen=True, slots=True)
class NewRun:
    """One suggestion of the search."""

    run_id: str
    index: int  # position in the search's sequence, from 0
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offer:
    """Suggestions that were computed ahead, used by ``claim`` only when run queue and ready list are empty.

    ``first_index`` must be the sweep's next index, else the offer is not used. ``exhausted`` says that the search has
    nothing after these runs. ``asker`` is the session that took the right to ask, which ends with this offer.
    """

    first_index: int
    runs: tuple[NewRun, ...]
    exhausted: bool = False
    asker: str = ""


class ClaimOutcome(StrEnum):
    """What a claim came to."""

    RUN = "run"  # here is a run
    ASK = "ask"  # run queue and ready list are empty: ask the search
    WAIT = "wait"  # paused, or others run and may be preempted
    DONE = "done"  # the sweep is over
    UNREGISTERED = "unregistered"  # the store does not know this session: register again
    LATE = "late"  # a newer call of this session came first: ask again with a new nonce
    LOST = "lost"  # this very claim got a run, and has lost it meanwhile: ask again with a new nonce
    TAKEN = "taken"  # a run id of the offer belongs to another run: offer another id


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run in the hands of an agent."""

    token: ClaimToken
    index: int
    params: Mapping[str, Any]
    resumed: bool  # True when an earlier attempt existed
    step: int | None  # last logged step of earlier attempts
    checkpoint: Checkpoint | None
    claimed_at: int


@dataclass(frozen=True, slots=True)
class ClaimAnswer:
    """Answer to a claim.

    ``reason`` says why to wait or to go: "paused", "others run", "exhausted", "run_cap", "target", "stopped",
    "canceled"; with TAKEN it is the run id.
    """

    outcome: ClaimOutcome
    run: ClaimedRun | None = None
    next_index: int = 0  # where the search goes on
    reason: str = ""
    ready: int = 0  # suggested runs that wait: an offer is not needed now


class Hold(StrEnum):
    """How an attempt stands to its run."""

    OWNER = "owner"  # it owns the run
    LAPSED = "lapsed"  # its lease ran out (or Redis forgot its claim), nobody took the run: adopt it
    ENDED = "ended"  # this very attempt was reported as ended
    STALE = "stale"  # another attempt owns or ended the run, or a person killed it: end the child at once
    GONE = "gone"  # no such run (removed, or Redis was rolled back): end the child at once


@dataclass(frozen=True, slots=True)
class HeartbeatAnswer:
    hold: Hold
    stop: str = ""  # reason to end the run now ("canceled", "stopped by user", …), empty when it may go on
    preempting: bool = False


@dataclass(frozen=True, slots=True)
class EndAnswer:
    hold: Hold  # OWNER: recorded now; ENDED: was recorded before; else refused
    state: RunState | None = None  # the run's state after the call, None when there is no such run
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WriteAnswer:
    """Answer to rows, summaries, marks, checkpoints and output of an attempt."""

    hold: Hold
    stop: str = ""
    accepted: int = 0  # rows written by this call; repeated ones are not counted
    kept: tuple[str, ...] = ()  # paths of the checkpoints that count now, newest first


class InitOutcome(StrEnum):
    """What ``init`` of the SDK came to (the decision table of resuming)."""

    NEW = "new"
    RESUMED = "resumed"
    OVERWRITTEN = "overwritten"  # resume unset, and the run exists
    MUST_NOT_EXIST = "must_not_exist"  # resume="never", and the run exists
    MUST_EXIST = "must_exist"  # resume="must", and the run does not
    STALE = "stale"  # inside a sweep: the claim is stale
    HELD = "held"  # outside a sweep: an agent owns this run of a sweep now


@dataclass(frozen=True, slots=True)
class Objective:
    """What a sweep is after, as far as logging must know it.

    Attributes:
        metrics: Name and goal ("minimize" or "maximize") of each metric; empty outside sweeps and without one.
        curves: The sweep stops runs early: every row says its value of the metric.
    """

    metrics: tuple[tuple[str, str], ...] = ()
    curves: bool = False


@dataclass(frozen=True, slots=True)
class InitAnswer:
    """Answer to ``init``. ``run`` is the record after the call, None only for MUST_EXIST, HELD and STALE answers."""

    outcome: InitOutcome
    run: Run | None = None
    token: ClaimToken | None = None
    starting_step: int = 0  # last logged step + 1; 0 without rows or when overwritten
    objective: Objective = Objective()
    next_seq: int = 1  # of the next row: above 1 when an earlier process of the same attempt has logged


@dataclass(frozen=True, slots=True)
class RunMeta:
    """What a script says about its run; None leaves what is known."""

    name: str | None = None
    group: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """What the scripts in Redis need to know of a sweep's config. Zero retries, caps and limits mean none."""

    lease_ms: int = 60_000
    heartbeat_ms: int = 10_000
    name: str = ""
    run_cap: int | None = None
    metric_name: str | None = None
    metric_goal: str | None = None  # "minimize" or "maximize"
    metric_target: float | None = None
    metrics: tuple[tuple[str, str], ...] = ()  # name and goal of each, when there are several
    retry_failed: int = 0
    retry_crashed: int = 0
    max_attempts_without_progress: int = 3
    stopping: Mapping[str, Any] | None = None  # the rule of early termination, as lua/shared/stopping.lua reads it


@dataclass(frozen=True, slots=True)
class EndRequest:
    """How an attempt ended: ``exit_code`` None = no status, ``preempted`` = after a notice, ``killed`` = stopped.

    ``launched``: False = its child was never started, so that the attempt says nothing about the script.
    """

    token: ClaimToken
    exit_code: int | None
    signal: int | None = None
    reason: str = ""
    preempted: bool = False
    killed: bool = False
    launched: bool = True


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """One agent (slot) asks for a run.

    ``nonce`` is ``<session>.<sequence number>``; the number grows only after an answer that gave a run (or LATE, LOST),
    so that a call that is delivered twice or late is recognised. ``preemptible``: a lost lease means a lost machine.
    """

    sweep_id: str
    agent: str
    nonce: str
    lease_ms: int
    preemptible: bool = False
    offer: Offer | None = None


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """A piece of what a run printed. ``chunk_id`` is where reading goes on."""

    chunk_id: str
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class LatestValue:
    """The last finite value of a metric in a call of ``log``; ``row`` counts its rows from 1, 0 is the summary."""

    row: int
    value: float


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One value of the sweep's metric, of a run in a sweep that stops runs early."""

    step: int
    value: float
    attempt: int = 0


class Note(NamedTuple):
    """What a pruner noted of a run: at which iteration, in which attempt the value there was logged, and the note."""

    iteration: int
    attempt: int
    value: Any


@dataclass(frozen=True, slots=True)
class RunCurve:
    """A run as Optuna's pruners see it.

    Attributes:
        points: Its values of the metric, in the order of their steps.
        notes: What the pruner keeps of the run, by name.
    """

    run_id: str
    index: int
    state: RunState
    metric: float | None  # best finite value
    points: tuple[CurvePoint, ...] = ()
    notes: Mapping[str, Note] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """What the search needs to know of a run."""

    index: int
    params: Mapping[str, Any]
    state: RunState
    metric: float | None  # best finite value of the sweep's metric
    last: float | None = None  # last finite value of it
    values: tuple[float | None, ...] = ()  # last finite value of each of several metrics
    stopped: bool = False  # early termination ended it


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stands in Redis."""

    run_id: str
    state: RunState
    sweep_id: str | None
    index: int | None
    attempt: int
    agent: str | None
    params: Mapping[str, Any]  # what the sweep chose
    config: Mapping[str, Any]  # params merged over init(config=…)
    summary: Mapping[str, Any]
    step: int | None  # largest logged step
    metric: float | None  # best finite value of the sweep's metric
    stopped: bool  # early termination ended it, or is about to
    values: tuple[float | None, ...]  # last finite value of each of the sweep's metrics; empty before the first
    exit_code: int | None
    signal: int | None  # the signal that ended the child
    reason: str  # why it ended or waits
    initialised: bool  # a script called init once: the run "exists" in the sense of resume=
    checkpoint: Checkpoint | None
    created_at: int
    started_at: int | None  # of the last attempt
    ended_at: int | None
    seconds: float  # run time over all attempts that ended
    name: str
    group: str
    notes: str
    tags: tuple[str, ...]
    stop: str  # a stop was asked for, with this reason


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep as it stands in Redis."""

    sweep_id: str
    scope: str
    state: SweepState
    reason: str  # why it is finished, or will be when its runs end
    name: str
    config_text: str  # as given
    config_json: str  # normalised; resweep_scheduler.config.SweepConfig.from_json reads it
    next_index: int
    created_at: int
    lease_ms: int
    heartbeat_ms: int
    counts: Mapping[RunState, int]  # every state, zeros too
    queue: tuple[str, ...]  # run ids on the run queue, next one first
    metric_name: str | None
    metric_goal: str | None
    metrics: tuple[tuple[str, str], ...] = ()  # name and goal of each, when there are several


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """An agent (one slot of a sweep-agent process) as it stands in Redis."""

    agent: str
    run_id: str | None
    last_seen: int  # ms
    host: str
    pid: int
    waiting: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One transition, from the sweep's events stream."""

    event_id: str  # of the stream, "<ms>-<n>"
    at: int
    kind: str  # see store/keys.py for the list
    run_id: str | None
    attempt: int | None
    agent: str | None
    before: str  # state before
    after: str  # state after
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HistoryRow:
    step: int
    attempt: int
    at: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    run_id: str
    remaining_ms: int  # on the sweep's outage-aware clock
