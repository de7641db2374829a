"""A small model of the store in plain Python, written from the design: what the scripts are compared with.

It knows nothing of keys, scripts and events. Each method does what one transition must do, and returns what its answer
must say. The clock is the caller's, in ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resweep_scheduler.store import (
    ClaimOutcome,
    ClaimRequest,
    ClaimToken,
    EndRequest,
    Hold,
    RunState,
    SweepCommand,
    SweepState,
)
from support.stopping import Curve, hyperband_stops, percentile_stops

TERMINAL = (RunState.FINISHED, RunState.FAILED, RunState.CRASHED, RunState.KILLED)
OWNED = (RunState.RUNNING, RunState.PREEMPTING)
HELD_BACK = ("target", "stopped")
Counts = tuple[int, int, int, int]


@dataclass
class ModelRun:
    run_id: str
    state: RunState = RunState.PENDING
    attempt: int = 0
    nonce: str = ""
    agent: str = ""
    confirmed: bool = False
    preemptible: bool = False
    stop: str = ""
    lapsed: bool = False  # its lease ran out, nobody took it since
    was_preempting: bool = False
    step: int | None = None
    claim_step: int | None = None
    rows: set[tuple[int, int]] = field(default_factory=set)  # (attempt, sequence number)
    seq: int = 0
    fruitless: int = 0
    unlucky: int = 0
    failures_retried: int = 0
    crashes_retried: int = 0
    before_lapse: Counts | None = None
    curve: Curve = field(default_factory=Curve)
    pruned: bool = False
    spared: bool = False  # a person retried it after an early stop
    over: bool = False  # its script is through, the process is not

    @property
    def counts(self) -> Counts:
        return self.fruitless, self.unlucky, self.failures_retried, self.crashes_retried

    def restore_counts(self) -> None:
        if self.before_lapse is not None:
            self.fruitless, self.unlucky, self.failures_retried, self.crashes_retried = self.before_lapse
            self.before_lapse = None


@dataclass
class ModelAgent:
    session: str
    past: list[str] = field(default_factory=list)
    seq: int = 0
    claimed: str = ""
    attempt: int = 0
    run: str = ""


@dataclass
class Model:
    """One sweep.

    Attributes:
        now: The Redis clock.
        lease_ms: The lease of all agents.
        limit: Attempts without progress after which a run fails.
        retries: How often the policy retries failures, and crashes.
        stopping: The rule of early termination.
    """

    now: Callable[[], int]
    lease_ms: int
    limit: int
    retries: tuple[int, int]
    stopping: Mapping[str, Any]
    state: SweepState = SweepState.PENDING
    reason: str = ""
    closed: str = ""
    next_index: int = 0
    runs: dict[str, ModelRun] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    ready: list[str] = field(default_factory=list)
    leases: dict[str, int] = field(default_factory=dict)
    agents: dict[str, ModelAgent] = field(default_factory=dict)
    heard_at: int | None = None
    heard_time: int = 0  # the time in which somebody was heard

    # The lease clock.

    def be_heard(self) -> None:
        now = self.now()
        gap = now - (self.heard_at if self.heard_at is not None else now)
        self.heard_time += max(0, min(gap, self.lease_ms // 3))
        self.heard_at = now

    def reap(self) -> None:
        due = sorted((deadline, run_id) for run_id, deadline in self.leases.items() if deadline <= self.heard_time)
        for _, run_id in due:
            self.finish(self.runs[run_id], lost=True)

    # Agents.

    def register(self, agent: str, session: str) -> bool:
        """False when a newer session has taken the name."""
        old = self.agents.get(agent)
        if old is None:
            self.agents[agent] = ModelAgent(session)
            return True
        if session in old.past:
            return False
        if session != old.session:
            self.agents[agent] = ModelAgent(session, [old.session, *old.past][:8])
            run = self.runs.get(old.run)
            if run is not None and run.state in OWNED and run.agent == agent and session_of(run.nonce) == old.session:
                self.finish(run, lost=True)
                run.nonce, run.lapsed, run.was_preempting, run.before_lapse = "", False, False, None
        return True

    def leave(self, agent: str, session: str) -> None:
        if agent in self.agents and self.agents[agent].session == session:
            del self.agents[agent]

    def claim(self, request: ClaimRequest) -> tuple[ClaimOutcome, str]:
        """The outcome, and the id of the run or the reason."""
        session, number = request.nonce.split(".")
        agent, seq = self.agents.get(request.agent), int(number)
        if agent is None or agent.session != session:
            return ClaimOutcome.UNREGISTERED, ""
        if seq < agent.seq:
            return ClaimOutcome.LATE, ""
        if seq == agent.seq and agent.claimed:
            held = self.hold(ClaimToken(agent.claimed, agent.attempt, request.nonce)) is Hold.OWNER
            return (ClaimOutcome.RUN, agent.claimed) if held else (ClaimOutcome.LOST, "")
        self.be_heard()
        self.reap()
        self.settle()
        agent.seq, agent.claimed, agent.run = seq, "", ""
        return self._new_claim(agent, request)

    def _new_claim(self, agent: ModelAgent, request: ClaimRequest) -> tuple[ClaimOutcome, str]:
        if self.state in (SweepState.FINISHED, SweepState.CANCELED):
            return ClaimOutcome.DONE, self.reason
        if self.state is SweepState.PAUSED:
            return ClaimOutcome.WAIT, "paused"
        found = self._find(request)
        if found is None:
            return self._idle()
        self._hand_out(found, agent, request)
        return ClaimOutcome.RUN, found.run_id

    def _find(self, request: ClaimRequest) -> ModelRun | None:
        if self.queue:
            return self.runs[self.queue.pop(0)]
        if self.closed in HELD_BACK:
            return None
        if not self.ready and request.offer is not None:
            runs = [run.run_id for run in request.offer.runs]
            self.add(request.offer.first_index, runs, exhausted=request.offer.exhausted)
        return self.runs[self.ready.pop(0)] if self.ready else None

    def _idle(self) -> tuple[ClaimOutcome, str]:
        if not self.closed:
            return ClaimOutcome.ASK, ""
        self.settle()
        if self.state is SweepState.FINISHED:
            return ClaimOutcome.DONE, self.reason
        return ClaimOutcome.WAIT, "others run"

    def _hand_out(self, run: ModelRun, agent: ModelAgent, request: ClaimRequest) -> None:
        run.attempt += 1
        run.state, run.nonce, run.agent = RunState.RUNNING, request.nonce, request.agent
        run.confirmed, run.preemptible, run.claim_step = False, request.preemptible, run.step
        run.lapsed, run.was_preempting, run.stop, run.before_lapse, run.seq = False, False, "", None, 0
        run.pruned = run.over = False
        self.leases[run.run_id] = self.heard_time + request.lease_ms
        agent.claimed, agent.attempt, agent.run = run.run_id, run.attempt, run.run_id
        if self.state is SweepState.PENDING:
            self.set_state(SweepState.RUNNING)

    def add(self, first_index: int, run_ids: Sequence[str], *, exhausted: bool) -> None:
        if self.closed or first_index != self.next_index:
            return
        for run_id in run_ids:
            self.runs[run_id] = ModelRun(run_id)
            self.ready.append(run_id)
        self.next_index += len(run_ids)
        if exhausted:
            self.closed = "exhausted"

    # Attempts.

    def hold(self, token: ClaimToken) -> Hold:
        run = self.runs.get(token.run_id)
        if run is None:
            return Hold.GONE
        if (run.attempt, run.nonce) != (token.attempt, token.nonce):
            return Hold.STALE
        if run.state in OWNED:
            return Hold.OWNER
        if not run.lapsed:
            return Hold.ENDED
        return Hold.STALE if run.state is RunState.KILLED else Hold.LAPSED

    def heartbeat(self, token: ClaimToken) -> Hold:
        hold = self.hold(token)
        self.be_heard()
        if hold is Hold.OWNER:
            self.leases[token.run_id] = self.heard_time + self.lease_ms
            self.runs[token.run_id].confirmed = True
            if "bands" in self.stopping:
                self.judge(self.runs[token.run_id])
        self.reap()
        return hold

    def mark(self, token: ClaimToken) -> Hold:
        hold, run = self.hold(token), self.runs.get(token.run_id)
        if hold is Hold.OWNER and run is not None and run.state is RunState.RUNNING:
            run.state, run.confirmed = RunState.PREEMPTING, True
        return hold

    def log(self, token: ClaimToken, step: int, seq: int, value: float | None = None, *, final: bool = False) -> Hold:
        hold, run = self.hold(token), self.runs.get(token.run_id)
        if run is None or hold not in (Hold.OWNER, Hold.ENDED):
            return hold
        run.confirmed = run.confirmed or hold is Hold.OWNER
        run.over = run.over or (final and hold is Hold.OWNER)
        if seq > run.seq:
            run.seq = seq
            run.rows.add((run.attempt, seq))
            run.step = step if run.step is None else max(run.step, step)
            if run.curve.add(step, run.attempt, value) and hold is Hold.OWNER:
                self.judge(run)
        return hold

    def judge(self, run: ModelRun) -> None:
        """Early termination looks at a run."""
        if run.state is not RunState.RUNNING or run.stop or run.over or run.spared:
            return
        own, runs = run.curve.values, self.runs.values()
        if "bands" in self.stopping:
            weak = hyperband_stops(self.stopping, own, [other.curve.values for other in runs])
        else:
            finished = [other.curve.values for other in runs if other.state is RunState.FINISHED]
            weak = percentile_stops(self.stopping, own, finished, number_finished=len(finished))
        if weak:
            run.stop, run.pruned = "early_terminate", True

    def prune(self, token: ClaimToken, iteration: int) -> Hold:
        """Early termination was decided by an agent."""
        hold, run = self.hold(token), self.runs.get(token.run_id)
        if run is None or hold is not Hold.OWNER or run.state is not RunState.RUNNING:
            return hold
        if not (run.stop or run.over or run.spared) and len(run.curve.values) >= iteration:
            run.stop, run.pruned = "early_terminate", True
        return hold

    def end(self, request: EndRequest) -> tuple[Hold, RunState | None]:
        hold, run = self.hold(request.token), self.runs.get(request.token.run_id)
        if run is None or hold not in (Hold.OWNER, Hold.LAPSED):
            return hold, run.state if run else None
        if hold is Hold.LAPSED:
            run.restore_counts()
        run.confirmed = run.confirmed or request.launched
        self.finish(run, request)
        return Hold.OWNER, run.state

    def adopt(self, agent: str, token: ClaimToken) -> Hold:
        hold, run, record = self.hold(token), self.runs.get(token.run_id), self.agents.get(agent)
        if run is None or hold is not Hold.LAPSED:
            return hold
        if record is not None and session_of(token.nonce) in record.past:
            return Hold.STALE
        self.be_heard()
        run.restore_counts()
        run.state = RunState.PREEMPTING if run.was_preempting else RunState.RUNNING
        run.lapsed, run.was_preempting, run.confirmed, run.agent = False, False, True, agent
        self.leases[run.run_id] = self.heard_time + self.lease_ms
        if run.run_id in self.queue:
            self.queue.remove(run.run_id)
        if record is not None:
            record.run = run.run_id
        self.reopen()
        if self.state is SweepState.CANCELED:
            run.stop = "canceled"
        return Hold.OWNER

    def finish(self, run: ModelRun, request: EndRequest | None = None, *, lost: bool = False) -> None:
        """The attempt of a run ends: reported by its agent, or lost."""
        before = run.state
        if lost:
            run.before_lapse = run.counts
        run.state = self._retried(run, self._after(run, request), request)
        run.lapsed, run.was_preempting = lost, lost and before is RunState.PREEMPTING
        run.pruned = run.pruned and run.state is RunState.KILLED
        first = lost and not run.confirmed
        if not lost:
            run.stop, run.claim_step, run.confirmed, run.preemptible = "", None, False, False
        self.leases.pop(run.run_id, None)
        if run.state is RunState.PREEMPTED and before is not RunState.PREEMPTED:
            self.queue.insert(0 if first else len(self.queue), run.run_id)
            self.reopen()
        elif run.state is not RunState.PREEMPTED and run.run_id in self.queue:
            self.queue.remove(run.run_id)
        record = self.agents.get(run.agent)
        if record is not None and record.run == run.run_id:
            record.run = ""
        self.settle()

    def _after(self, run: ModelRun, request: EndRequest | None) -> RunState:
        if request is not None and request.killed:
            return RunState.KILLED
        if request is not None and request.exit_code == 0:
            return RunState.FINISHED
        if run.stop:
            return RunState.KILLED
        noticed = request is not None and request.preempted
        if run.state is RunState.PREEMPTING or run.was_preempting or noticed:
            return RunState.PREEMPTED
        if request is None and (run.preemptible or not run.confirmed):
            return RunState.PREEMPTED
        return RunState.FAILED if request is not None and request.exit_code is not None else RunState.CRASHED

    def _retried(self, run: ModelRun, state: RunState, request: EndRequest | None) -> RunState:
        """Runs that never get on fail, failures that may be tried again are."""
        failures, crashes = self.retries
        if state is RunState.PREEMPTED and run.confirmed:
            progressed = run.step is not None and (run.claim_step is None or run.step > run.claim_step)
            by_machine = request is None or request.preempted
            if progressed:
                run.fruitless = run.unlucky = 0
                return state
            if by_machine and run.seq:
                run.unlucky += 1
                return RunState.FAILED if run.unlucky >= 10 * self.limit else state
            run.fruitless += 1
            return RunState.FAILED if run.fruitless >= self.limit else state
        if state is RunState.FAILED and run.failures_retried < failures:
            run.failures_retried += 1
            return RunState.PREEMPTED
        if state is RunState.CRASHED and run.crashes_retried < crashes:
            run.crashes_retried += 1
            return RunState.PREEMPTED
        return state

    # People.

    def stop_run(self, run_id: str) -> None:
        run = self.runs[run_id]
        if run.state in OWNED or (run.lapsed and run.state in (RunState.CRASHED, RunState.FAILED)):
            run.stop = "stopped by user"
        elif run.state not in TERMINAL:
            (self.queue if run.state is RunState.PREEMPTED else self.ready).remove(run_id)
            run.state = RunState.KILLED
            self.settle()

    def retry(self, run_id: str) -> None:
        run = self.runs[run_id]
        if run.state not in TERMINAL or run.state is RunState.FINISHED:
            return
        run.state, run.stop = RunState.PREEMPTED, ""
        run.pruned, run.spared = False, run.spared or run.pruned
        run.fruitless = run.unlucky = run.failures_retried = run.crashes_retried = 0
        self.queue.append(run_id)
        self.reopen()
        if self.state in (SweepState.FINISHED, SweepState.CANCELED):
            self.closed = self.closed or "stopped"
            self.set_state(SweepState.RUNNING)

    def command(self, command: SweepCommand) -> bool:
        """False when it is refused."""
        over = self.state in (SweepState.FINISHED, SweepState.CANCELED)
        if command is SweepCommand.PAUSE and not over:
            self.set_state(SweepState.PAUSED)
        elif command is SweepCommand.RESUME:
            self.closed = "" if self.closed in HELD_BACK else self.closed
            self.set_state(SweepState.RUNNING)
            self.settle()
        elif command is SweepCommand.STOP and (not over or self.reason == "stopped"):
            self.closed = self.closed or "stopped"
            self.set_state(SweepState.FINISHED, "stopped")
        elif command is SweepCommand.CANCEL:
            self.set_state(SweepState.CANCELED, "canceled")
            for run_id in self.leases:
                self.runs[run_id].stop = self.runs[run_id].stop or "canceled"
        else:
            return False
        return True

    # The life of the sweep.

    def set_state(self, state: SweepState, reason: str = "") -> None:
        if state is not self.state:
            self.state, self.reason = state, reason

    def settle(self) -> None:
        alive = [run for run in self.runs.values() if run.state not in TERMINAL]
        if self.closed in HELD_BACK:
            alive = [run for run in alive if run.state is not RunState.PENDING]
        if self.closed and not alive and self.state in (SweepState.PENDING, SweepState.RUNNING):
            self.set_state(SweepState.FINISHED, self.closed)

    def reopen(self) -> None:
        if self.state is SweepState.FINISHED and self.reason != "stopped":
            self.set_state(SweepState.RUNNING)


def session_of(nonce: str) -> str:
    return nonce.partition(".")[0]
