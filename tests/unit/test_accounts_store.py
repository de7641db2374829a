"""What attempts cost, read from the store: the rows that decide are found, and the parts add up in any life."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checks import check_promises
from support.costs import costs_of, total_cost
from support.stores import (
    LEASE,
    SWEEP,
    Agent,
    Clock,
    begin_run,
    fake_store,
    make_offer,
    make_sweep,
    pass_time,
    settable_clock,
)

from resweep_scheduler.accounts import RunCost, read_run_cost
from resweep_scheduler.store import ClaimOutcome, Hold, RunState, Store, steps
from resweep_scheduler.store.steps import Tail, Window


def log_slowly(agent: Agent, clock: Clock, steps: range, first_seq: int = 1) -> None:
    """A row each second."""
    for seq, step in enumerate(steps, first_seq):
        clock.advance(1)
        agent.log(step, first_seq=seq)


def only_cost(store: Store) -> RunCost:
    return costs_of(store, SWEEP)[0]


@pytest.mark.parametrize("done_again", [0, 3, 4, 5, 12, 13, 33])
def test_the_last_kept_step_is_found_however_many_are_lost(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, done_again: int
) -> None:
    """40 rows, one a second, the next attempt goes on `done_again` steps before the end; pages of 4 and 8 rows."""
    monkeypatch.setattr(steps, "_FIRST_PAGE", 4)
    monkeypatch.setattr(steps, "_PAGE", 8)
    agent = begin_run(store, runs=1)
    log_slowly(agent, clock, range(40))
    clock.advance(5)
    agent.end(1, preempted=True)
    clock.advance(20)
    other = Agent(store, "b")
    other.take()
    clock.advance(2)
    other.log(40 - done_again)
    first, second = only_cost(store).attempts
    assert (first.spent, first.useful, first.lost) == (45_000, (40 - done_again) * 1000, (5 + done_again) * 1000)
    assert (first.lost_steps, second.waited, second.open) == (done_again, 20_000, 2_000)


def test_a_run_that_began_again_lost_all(store: Store, clock: Clock) -> None:
    agent = begin_run(store, runs=1)
    log_slowly(agent, clock, range(30))
    agent.end(1, preempted=True)
    again = Agent(store, "b")
    again.take()
    log_slowly(again, clock, range(40))
    again.end(0)
    cost = only_cost(store)
    assert (cost.lost, cost.useful, cost.attempts[0].lost_steps) == (30_000, 40_000, 30)
    assert cost.goodput == pytest.approx(40 / 70)


def test_rows_that_came_late_belong_to_their_attempt(store: Store, clock: Clock) -> None:
    """A batch that arrives after the end counts no longer than the attempt."""
    agent = begin_run(store, runs=1)
    clock.advance(10)
    agent.end(1)
    clock.advance(3)
    assert agent.log(0).hold is Hold.ENDED
    cost = only_cost(store)
    assert (cost.useful, cost.lost) == (10_000, 0)


def test_rows_in_the_millisecond_of_a_claim_are_told_apart(store: Store, clock: Clock) -> None:
    agent = begin_run(store, runs=1)
    start = clock.ms
    clock.advance(10)
    agent.log(0, 1)
    agent.end(1, preempted=True)
    other = Agent(store, "b")
    other.take()
    other.log(1)
    windows = [Window("run0", 1, start, clock.ms), Window("run0", 2, clock.ms)]
    assert store.first_steps(windows) == [0, 1]
    assert store.tails(windows, [1, None]) == [Tail(start + 10_000, 1), Tail(start + 10_000, 0)]


def test_a_lost_lease_is_lost_time_since_the_checkpoint(store: Store, clock: Clock) -> None:
    """Saved after 30 s, silent from then on: the 60 s of the lease are lost."""
    agent = begin_run(store, runs=1, preemptible=True)
    log_slowly(agent, clock, range(30))
    store.commit_checkpoint(agent.run.token, path="/c", step=29)
    agent.heartbeat()
    pass_time(store, clock, LEASE)
    assert store.run("run0").state is RunState.PREEMPTED
    cost = only_cost(store)
    assert (cost.useful, cost.lost, cost.attempts[0].lost_steps) == (30_000, 60_000, 0)


def test_trimmed_events_are_unknown_time(store: Store, clock: Clock) -> None:
    """Somebody trims the stream: the record still knows 30 s of two attempts."""
    agent = begin_run(store, runs=1)
    clock.advance(10)
    agent.end(1, preempted=True)
    agent.take()
    clock.advance(20)
    agent.end(0)
    store.client.xtrim(store.keys.sweep(SWEEP, "events"), maxlen=0, approximate=False)
    cost = only_cost(store)
    assert (cost.spent, cost.unknown, cost.missing, cost.attempts) == (30_000, 30_000, 2, ())


def test_a_run_outside_a_sweep_has_no_events(store: Store) -> None:
    store.init_run(run_id="alone", resume="allow", nonce="n.1")
    cost = read_run_cost(store, store.run("alone"), [], now=store.redis_time())
    assert (cost.attempts, cost.missing, cost.goodput) == ((), 1, None)


ENDS: list[dict[str, Any]] = [
    {"exit_code": 0},
    {"exit_code": 1},
    {"exit_code": None, "signal": 9},
    {"exit_code": 1, "preempted": True},
    {"exit_code": None, "signal": 15, "killed": True},
]
DEEDS = st.one_of(
    st.tuples(st.just("work"), st.integers(1, 5)),
    st.tuples(st.just("save"), st.booleans()),
    st.tuples(st.just("mark"), st.just(0)),
    st.tuples(st.just("end"), st.sampled_from(ENDS)),
    st.tuples(st.just("vanish"), st.booleans()),
    st.tuples(st.just("wait"), st.integers(0, 100)),
    st.tuples(st.just("retry"), st.just(0)),
)


class Machine:
    """One agent, what its script does, and what of it counts: an account of its own, kept while it happens.

    Attributes:
        spent: Seconds in attempts that are over.
        step: The next one of the script.
        saved: The step after the last checkpoint.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.agent = Agent(store, "a", preemptible=True)
        self.owns = False
        self.began = self.spent = 0
        self.step = self.seq = 0
        self.saved: dict[str, int] = {}

    def do(self, deed: str, detail: Any) -> None:
        if not self.owns:
            self.clock.advance(1)
            if self.agent.claim(make_offer(1, first=len(self.saved))).outcome is not ClaimOutcome.RUN:
                return
            self.owns, self.began, self.seq = True, self.clock.ms, 0
            self.step = self.saved.setdefault(self.agent.run.token.run_id, 0)
            self.agent.heartbeat()
        getattr(self, f"do_{deed}")(detail)

    def do_work(self, number: int) -> None:
        for _ in range(number):
            self.clock.advance(1)
            self.seq += 1
            self.agent.log(self.step, first_seq=self.seq)
            self.step += 1
        self.agent.heartbeat()

    def do_save(self, numbered: bool) -> None:
        run = self.agent.run.token
        self.store.commit_checkpoint(
            run, path=f"/{self.step}", step=self.step - 1 if numbered else None, after=self.seq
        )
        self.saved[run.run_id] = self.step

    def do_mark(self, _: int) -> None:
        self.agent.mark("notice: SIGTERM")

    def do_end(self, end: dict[str, Any]) -> None:
        self.agent.end(**end)
        self._over()

    def do_vanish(self, comes_back: bool) -> None:
        self.agent.heartbeat()
        pass_time(self.store, self.clock, LEASE)
        assert not self.store.run(self.agent.run.token.run_id).state.is_owned
        if not comes_back or self.agent.adopt().hold is not Hold.OWNER:
            self._over()

    def do_wait(self, seconds: int) -> None:
        pass_time(self.store, self.clock, min(seconds, LEASE / 2))
        self.agent.heartbeat()

    def do_retry(self, _: int) -> None:
        runs = [run.run_id for run in self.store.runs(SWEEP) if run.state.is_terminal]
        self.store.retry_runs(SWEEP, runs[:1])

    def _over(self) -> None:
        self.owns, self.spent = False, self.spent + self.clock.ms - self.began


@given(deeds=st.lists(DEEDS, min_size=1, max_size=15))
@settings(max_examples=40)
def test_in_any_life_the_parts_add_up_to_the_time_that_was_spent(deeds: list[tuple[str, Any]]) -> None:
    """Work, checkpoints, marks, ends of all kinds, lost leases, adoptions, retries, in any order."""
    with settable_clock() as clock:
        store = fake_store()
        make_sweep(store, retry_failed=1)
        machine = Machine(store, clock)
        for deed, detail in deeds:
            machine.do(deed, detail)
        check_promises(store, SWEEP, complete=False)
        cost = total_cost(store, SWEEP)
        assert cost.spent == machine.spent + (clock.ms - machine.began if machine.owns else 0)
        assert cost.spent == cost.useful + cost.lost + cost.open + cost.unknown
        assert cost.goodput is None or 0 <= cost.goodput <= 1
        for run, one in zip(store.runs(SWEEP), costs_of(store, SWEEP), strict=True):
            over = [part for part in one.attempts if part.attempt.is_over]
            assert round(run.seconds * 1000) == sum(part.spent or 0 for part in over)
            assert (one.missing, one.unrecorded) == (0, 0)
            assert run.state is not RunState.FINISHED or one.attempts[-1].lost == 0
