"""The store against a model in plain Python: agents work, die and return, calls come twice or late, time passes.

`HYPOTHESIS_PROFILE=thorough pytest tests/unit/test_store_model.py` runs many and long examples.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support.checks import check_promises
from support.model import Model
from support.stores import (
    HYPERBAND,
    LEASE,
    MEDIAN,
    SWEEP,
    Agent,
    be_heard,
    fake_store,
    make_offer,
    make_sweep,
    settable_clock,
)

from resweep_scheduler.store import (
    AgentReplacedError,
    ClaimOutcome,
    ClaimRequest,
    ClaimToken,
    EndRequest,
    Hold,
    IllegalTransitionError,
    RunState,
    SweepCommand,
)

NAMES = ("a", "b", "c")
POINTS = 6
LEASE_MS = round(LEASE * 1000)
ENDS: list[dict[str, Any]] = [
    {"exit_code": 0},
    {"exit_code": 1},
    {"exit_code": None, "signal": 9},
    {"exit_code": 1, "preempted": True},
    {"exit_code": None, "signal": 15, "preempted": True},
    {"exit_code": None, "signal": 15, "killed": True},
    {"exit_code": None, "preempted": True, "launched": False},
    {"exit_code": 127, "launched": False},
]
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

names = st.sampled_from(NAMES)
values = st.sampled_from([None, -2.5, 0.0, 1.0, 1.5, 7.0])
seldom = st.sampled_from([False] * 7 + [True])
some = st.integers(0, 10**6)
"""Chooses one of things that are known only when the rule runs."""


class StoreMachine(RuleBasedStateMachine):
    """Every rule makes one call, on the store and on the model; the answers must be equal, and so must the states."""

    stopping = HYPERBAND

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.clock = self._stack.enter_context(settable_clock())
        self.store = fake_store()
        make_sweep(self.store, retry_failed=1, retry_crashed=1, max_attempts_without_progress=2, stopping=self.stopping)
        self.model = Model(lambda: self.clock.ms, LEASE_MS, limit=2, retries=(1, 1), stopping=self.stopping)
        self.sessions = 0
        self.agents: dict[str, Agent] = {}
        self.requests: list[ClaimRequest] = []
        self.ends: list[EndRequest] = []
        self.tokens: list[tuple[str, ClaimToken, int]] = []  # agent, token, when it was claimed
        self.seqs: dict[ClaimToken, int] = {}
        for name in NAMES:
            self._start(name)

    def teardown(self) -> None:
        try:
            check_promises(self.store, SWEEP, complete=False)
        finally:
            self._stack.close()

    def _start(self, name: str) -> None:
        self.sessions += 1
        session = f"s{self.sessions}"
        self.agents[name] = Agent(self.store, name, session=session, preemptible=name == "c")
        assert self.model.register(name, session)

    def _token(self, choice: int) -> tuple[str, ClaimToken, int]:
        """Mostly one of the last tokens, of any agent."""
        return self.tokens[-1 - choice % min(len(self.tokens), 8)]

    # Agents.

    @rule(name=names, number=st.integers(0, 3), shift=st.sampled_from([0, 0, 0, -1, 1]))
    def claim(self, name: str, number: int, shift: int) -> None:
        """A free agent asks for a run, and brings `number` suggestions, perhaps for another index."""
        first = max(0, min(self.model.next_index + shift, POINTS))
        number = min(number, POINTS - first)
        offer = make_offer(number, first=first, exhausted=first + number == POINTS)
        request = self.agents[name].request(offer if number or first == POINTS else None)
        outcome = self._claim(request)
        if outcome in (ClaimOutcome.RUN, ClaimOutcome.LATE, ClaimOutcome.LOST):
            self.agents[name].seq += 1

    @precondition(lambda self: self.requests)
    @rule(choice=some)
    def repeat_a_claim(self, choice: int) -> None:
        """A claim arrives once more: the last one, or one of long ago."""
        self._claim(self.requests[-1 - choice % len(self.requests)])

    def _claim(self, request: ClaimRequest) -> ClaimOutcome:
        answer = self.store.claim(request)
        found = answer.run.token.run_id if answer.run else answer.reason
        assert (answer.outcome, found) == self.model.claim(request)
        if request not in self.requests:
            self.requests.append(request)
        if answer.run is not None and all(answer.run.token != token for _, token, _ in self.tokens):
            assert answer.run.token.attempt == self.model.runs[found].attempt
            assert answer.run.resumed == (answer.run.token.attempt > 1)
            assert answer.run.step == self.model.runs[found].step
            self.tokens.append((request.agent, answer.run.token, answer.run.claimed_at))
        return answer.outcome

    @precondition(lambda self: self.tokens)
    @rule(choice=some)
    def heartbeat(self, choice: int) -> None:
        agent, token, _ = self._token(choice)
        answer = self.store.heartbeat(SWEEP, agent=agent, token=token, lease_ms=LEASE_MS)
        assert answer.hold is self.model.heartbeat(token)

    @precondition(lambda self: self.tokens)
    @rule(choice=some)
    def mark(self, choice: int) -> None:
        _, token, _ = self._token(choice)
        assert self.store.mark_preempting(token, reason="script").hold is self.model.mark(token)

    @precondition(lambda self: self.tokens)
    @rule(choice=some, new=st.sampled_from([1, 1, 1, 0]), step=st.integers(0, 3), value=values, final=seldom)
    def log(self, choice: int, new: int, step: int, value: float | None, final: bool) -> None:
        """A new row, or an old one once more."""
        _, token, _ = self._token(choice)
        seq = max(1, self.seqs.get(token, 0) + new)
        row = (step, "{}") if value is None else (step, "{}", value)
        answer = self.store.log(token, first_seq=seq, rows=[row], final=final)
        assert answer.hold is self.model.log(token, step, seq, value, final=final)
        self.seqs[token] = seq

    @precondition(lambda self: self.tokens)
    @rule(choice=some, iteration=st.integers(0, 2))
    def prune(self, choice: int, iteration: int) -> None:
        """An agent's pruner finds a run weak, perhaps too late."""
        _, token, _ = self._token(choice)
        answer = self.store.prune_run(token, iteration=iteration, reason="early_terminate", data={})
        assert answer.hold is self.model.prune(token, iteration)

    @precondition(lambda self: self.tokens)
    @rule(choice=some, end=st.sampled_from(ENDS))
    def end(self, choice: int, end: dict[str, Any]) -> None:
        self._end(EndRequest(self._token(choice)[1], **end))

    @precondition(lambda self: self.ends)
    @rule(choice=some)
    def repeat_an_end(self, choice: int) -> None:
        self._end(self.ends[-1 - choice % len(self.ends)])

    def _end(self, request: EndRequest) -> None:
        answer = self.store.end_attempt(request)
        assert (answer.hold, answer.state) == self.model.end(request)
        self.ends.append(request)

    @precondition(lambda self: self.tokens)
    @rule(choice=some)
    def adopt(self, choice: int) -> None:
        agent, token, claimed_at = self._token(choice)
        answer = self.store.adopt(SWEEP, agent=agent, token=token, claimed_at=claimed_at, lease_ms=LEASE_MS)
        assert answer.hold is self.model.adopt(agent, token)

    @rule(name=names)
    def restart(self, name: str) -> None:
        """The process of an agent is gone, a new one has its name."""
        self._start(name)

    @rule(name=names, choice=some)
    def register_late(self, name: str, choice: int) -> None:
        """A registration of a process that was replaced arrives."""
        record = self.model.agents.get(name)
        if record is not None and record.past:
            session = record.past[choice % len(record.past)]
            with pytest.raises(AgentReplacedError):
                self.store.register(SWEEP, agent=name, session=session, host="h", pid=2)
            assert not self.model.register(name, session)

    @rule(name=names)
    def leave(self, name: str) -> None:
        self.agents[name].leave()
        self.model.leave(name, self.agents[name].session)

    # People.

    @rule(command=st.sampled_from([*SweepCommand, SweepCommand.RESUME, SweepCommand.RESUME]))
    def command(self, command: SweepCommand) -> None:
        allowed = self.model.command(command)
        if allowed:
            assert self.store.command_sweep(SWEEP, command) is self.model.state
        else:
            with pytest.raises(IllegalTransitionError):
                self.store.command_sweep(SWEEP, command)

    @precondition(lambda self: self.model.runs)
    @rule(index=some)
    def stop_run(self, index: int) -> None:
        run_id = f"run{index % len(self.model.runs)}"
        self.model.stop_run(run_id)
        assert self.store.stop_run(run_id, reason="stopped by user") is self.model.runs[run_id].state

    @precondition(lambda self: self.model.runs)
    @rule(index=some)
    def retry(self, index: int) -> None:
        run_id = f"run{index % len(self.model.runs)}"
        before = self.model.runs[run_id].state
        self.model.retry(run_id)
        retried = self.model.runs[run_id].state is not before
        assert self.store.retry_runs(SWEEP, [run_id]) == ({run_id: before} if retried else {})

    # Time.

    @rule(seconds=st.sampled_from([0.001, 1, 10, 19.999, 20, 45, 600, -5, -600]))
    def pass_time(self, seconds: float) -> None:
        """Time passes, in which nobody is heard; or the server's clock is set."""
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([20, 40, 60]))
    def be_silent(self, seconds: int) -> None:
        """All agents are silent, while somebody else is heard: leases run out."""
        for _ in range(0, seconds, 20):
            self.clock.advance(20)
            be_heard(self.store)
            self.model.be_heard()
            self.model.reap()

    @invariant()
    def store_is_as_the_model(self) -> None:
        """Every run is in one state and in the place of that state, in order; the sweep and its counters agree."""
        key = self.store.keys.sweep
        pipe: Any = self.store.client.pipeline(transaction=False)
        pipe.hgetall(key(SWEEP)).lrange(key(SWEEP, "queue"), 0, -1).lrange(key(SWEEP, "ready"), 0, -1)
        pipe.zrange(key(SWEEP, "leases"), 0, -1)
        for run_id in self.model.runs:
            pipe.hmget(self.store.keys.run(run_id), "state", "attempt", "step", "pruned", "stop")
        sweep, queue, ready, leases, *runs = pipe.execute()
        assert (sweep["state"], sweep["closed"], sweep["next_index"]) == (
            self.model.state,
            self.model.closed,
            str(self.model.next_index),
        )
        assert (queue, ready, sorted(leases)) == (self.model.queue, self.model.ready, sorted(self.model.leases))
        for run, (state, attempt, step, pruned, stop) in zip(self.model.runs.values(), runs, strict=True):
            assert (run.run_id, state, attempt) == (run.run_id, run.state, str(run.attempt))
            assert step == (None if run.step is None else str(run.step))
            assert (pruned == "1", bool(stop)) == (run.pruned, bool(run.stop))
        for state in RunState:
            number = sum(run.state is state for run in self.model.runs.values())
            assert int(sweep.get(f"n:{state}", 0)) == number


class StoppingMachine(StoreMachine):
    """Agents have runs from the beginning, and log more often, so that runs are stopped early."""

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            self.claim(name=name, number=2, shift=0)

    @precondition(lambda self: self.tokens)
    @rule(choice=some, rows=st.lists(st.tuples(st.integers(0, 3), values), min_size=1, max_size=4))
    def log_rows(self, choice: int, rows: list[tuple[int, float | None]]) -> None:
        for step, value in rows:
            self.log(choice=self._owner(choice), new=1, step=step, value=value, final=False)

    def _owner(self, choice: int) -> int:
        """The choice that makes `_token` find somebody who owns a run, if there is one."""
        owners = [
            place for place, (_, token, _) in enumerate(self.tokens[:-9:-1]) if self.model.hold(token) is Hold.OWNER
        ]
        return owners[choice % len(owners)] if owners else choice

    @precondition(lambda self: self.tokens)
    @rule(choice=some, rows=st.lists(st.tuples(st.integers(0, 3), values), min_size=1, max_size=4))
    def log_rows_and_finish(self, choice: int, rows: list[tuple[int, float | None]]) -> None:
        """Of one run, so that others can be compared with it."""
        token = self._token(self._owner(choice))[1]
        self.log_rows(choice=choice, rows=rows)
        self._end(EndRequest(token, 0))

    @precondition(lambda self: any(run.pruned for run in self.model.runs.values()))
    @rule(name=names)
    def kill_and_retry_what_was_stopped(self, name: str) -> None:
        """An agent ends the run, a person wants it to go on, and somebody takes it."""
        run = next(run for run in self.model.runs.values() if run.pruned)
        if run.state is not RunState.KILLED:
            self._end(EndRequest(ClaimToken(run.run_id, run.attempt, run.nonce), None, killed=True))
        self.retry(index=int(run.run_id.removeprefix("run")))
        self.claim(name=name, number=0, shift=0)


class MedianMachine(StoppingMachine):
    """The same with another rule of early termination."""

    stopping = MEDIAN


MACHINE_SETTINGS = settings(
    max_examples=2000 if THOROUGH else 80,
    stateful_step_count=150 if THOROUGH else 50,
    deadline=None,
    derandomize=not THOROUGH,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestStoreModel = StoreMachine.TestCase
TestStoreModel.settings = MACHINE_SETTINGS
TestStopping = StoppingMachine.TestCase
TestStopping.settings = settings(MACHINE_SETTINGS, max_examples=1000 if THOROUGH else 30)
TestStoppingByMedian = MedianMachine.TestCase
TestStoppingByMedian.settings = TestStopping.settings
