"""Who computes suggestions, and what a search knows of earlier runs without reading all of them each time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.stores import SWEEP, Agent, Clock, fake_store, make_offer, make_sweep, undocumented_keys

from resweep_scheduler.store import AskOutcome, Offer, SearchRecord, Store, UnknownSweepError
from resweep_scheduler.store.search_history import FULL_READ, LATE_ROWS, SearchHistory

HOLD = 3_000


def ask(store: Store, session: str, *agents: str, alone: bool = False, service: bool = False) -> AskOutcome:
    return store.begin_asking(SWEEP, session=session, agents=agents, hold_ms=HOLD, alone=alone, service=service).outcome


def test_one_session_computes_until_its_time_is_over(store: Store, clock: Clock) -> None:
    make_sweep(store)
    assert ask(store, "a", "a") is AskOutcome.ASK
    assert ask(store, "b", "b") is AskOutcome.WAIT
    assert ask(store, "a", "a") is AskOutcome.ASK
    clock.advance(HOLD / 1000 + 0.1)
    assert ask(store, "b", "b") is AskOutcome.ASK
    assert undocumented_keys(store) == []


def test_who_computes_hears_how_many_wait_and_those_who_went_away_do_not_count(store: Store, clock: Clock) -> None:
    make_sweep(store)
    for name in ("a", "b", "c"):
        ask(store, name, name)
    assert store.begin_asking(SWEEP, session="a", hold_ms=HOLD).wanted == 3
    clock.advance(9)
    ask(store, "b", "b")
    clock.advance(2)
    assert store.begin_asking(SWEEP, session="b", hold_ms=HOLD).wanted == 1


def test_the_offer_ends_the_asking_of_its_session_only(store: Store) -> None:
    make_sweep(store)
    ask(store, "a", "a")
    store.add_runs(SWEEP, Offer(0, (), asker="b"))
    assert ask(store, "c", "c") is AskOutcome.WAIT
    store.add_runs(SWEEP, Offer(0, (), asker="a"))
    assert ask(store, "c", "c") is AskOutcome.ASK


def test_an_offer_that_came_too_late_ends_the_asking_too(store: Store) -> None:
    make_sweep(store)
    ask(store, "a", "a")
    store.add_runs(SWEEP, make_offer(1))
    agent = Agent(store)
    agent.take()
    assert store.add_runs(SWEEP, Offer(0, make_offer(1, prefix="late").runs, asker="a")) == 1
    assert [run.run_id for run in store.runs(SWEEP)] == ["run0"]
    assert ask(store, "c", "c") is AskOutcome.ASK


def test_where_runs_are_ready_or_the_search_is_over_nobody_asks(store: Store) -> None:
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(1, exhausted=True))
    assert ask(store, "a", "a") is AskOutcome.CLAIM
    Agent(store).take()
    assert ask(store, "a", "a") is AskOutcome.CLAIM


def test_a_service_is_called_once_a_second_and_takes_over_what_was_handed_to_it(store: Store, clock: Clock) -> None:
    make_sweep(store)
    store.announce_service([SWEEP], name="service", ttl_ms=60_000)
    assert ask(store, "a", "a") is AskOutcome.HAND_OVER
    assert ask(store, "b", "b") is AskOutcome.WAIT
    clock.advance(1.1)
    assert ask(store, "b", "b") is AskOutcome.HAND_OVER
    assert ask(store, "service", service=True) is AskOutcome.ASK
    assert ask(store, "second-service", service=True) is AskOutcome.WAIT
    assert undocumented_keys(store) == []


def test_who_is_tired_of_a_service_asks_alone(store: Store) -> None:
    make_sweep(store)
    store.announce_service([SWEEP], name="service", ttl_ms=60_000)
    assert ask(store, "a", "a") is AskOutcome.HAND_OVER
    assert ask(store, "b", "b", alone=True) is AskOutcome.ASK
    store.withdraw_service([SWEEP])
    store.client.delete(store.keys.sweep(SWEEP, "asking"))
    assert ask(store, "a", "a") is AskOutcome.ASK


def test_who_only_waits_counts_and_calls_a_service_and_never_has_the_right(store: Store) -> None:
    def wait() -> AskOutcome:
        return store.begin_asking(SWEEP, session="w", agents=["w"], hold_ms=1000, only_wait=True).outcome

    make_sweep(store)
    assert wait() is AskOutcome.WAIT
    assert ask(store, "a", "a") is AskOutcome.ASK
    assert wait() is AskOutcome.WAIT
    assert store.demand(SWEEP, seen_since=0).waiting == 2
    store.add_runs(SWEEP, replace(make_offer(1), asker="a"))
    assert wait() is AskOutcome.CLAIM
    Agent(store).take()
    store.announce_service([SWEEP], name="svc", ttl_ms=60_000)
    assert store.service(SWEEP) == "svc"
    assert wait() is AskOutcome.HAND_OVER
    assert ask(store, "svc", service=True) is AskOutcome.ASK


def test_an_unknown_sweep_is_said(store: Store) -> None:
    with pytest.raises(UnknownSweepError):
        ask(store, "a", "a")


# The history.


def test_the_history_is_what_a_full_reading_gives_whatever_happens(store: Store, clock: Clock) -> None:
    make_sweep(store, metric_name="m", metric_goal="minimize")
    history = SearchHistory(store, SWEEP, clock=lambda: clock.ms / 1000)
    agents = [Agent(store, name, session=name) for name in "abcd"]
    busy: dict[str, Agent] = {}
    choose = random.Random(4)
    for _ in range(120):
        agent = choose.choice(agents)
        act = choose.choice(["claim", "log", "end", "preempt", "retry", "remove", "late"])
        if act == "claim" and agent.name not in busy:
            agent.take(make_offer(1, first=store.sweep(SWEEP).next_index))
            busy[agent.name] = agent
        elif act == "log" and agent.name in busy:
            agent.store.log(agent.run.token, first_seq=1, rows=[(0, "{}")], metric=choose.uniform(0, 1))
        elif act in ("end", "preempt") and agent.name in busy:
            busy.pop(agent.name).end(choose.choice([0, 1]), preempted=act == "preempt")
        elif act == "late" and agent.name not in busy and agent._run is not None:
            store.log(agent.run.token, first_seq=2, rows=[(1, "{}")], metric=-1.0)
        elif act in ("retry", "remove"):
            known = [run.run_id for run in store.runs(SWEEP) if run.state.is_terminal]
            for run_id in known[:1]:
                store.retry_runs(SWEEP, [run_id]) if act == "retry" else store.remove_runs([run_id])
        clock.advance(choose.uniform(0, 3))
        assert history.refresh() == store.search_runs(SWEEP)


def test_what_did_not_change_is_not_read_again(store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    make_sweep(store)
    history = SearchHistory(store, SWEEP, clock=lambda: clock.ms / 1000)
    agent = Agent(store)
    for index in range(5):
        agent.take(make_offer(1, first=index))
        agent.end(0)
    history.refresh()
    clock.advance(LATE_ROWS + 1)
    history.refresh()
    agent.take(make_offer(1, first=5))
    read: list[list[str]] = []
    real = store.search_records

    def note(sweep_id: str, run_ids: Sequence[str]) -> dict[str, SearchRecord]:
        read.append(list(run_ids))
        return real(sweep_id, run_ids)

    monkeypatch.setattr(store, "search_records", note)
    before = history.refresh()
    assert read == [["run5"]]
    assert all(old is new for old, new in zip(before, history.refresh(), strict=True))
    clock.advance(FULL_READ)
    history.refresh()
    assert len(read[-1]) == 6


def test_after_a_rollback_everything_is_read_again(store: Store) -> None:
    make_sweep(store)
    history = SearchHistory(store, SWEEP)
    store.add_runs(SWEEP, make_offer(2))
    assert [record.index for record in history.refresh()] == [0, 1]
    older = fake_store()
    make_sweep(older)
    older.add_runs(SWEEP, make_offer(1))
    history._store = older
    assert [record.index for record in history.refresh()] == [0]
