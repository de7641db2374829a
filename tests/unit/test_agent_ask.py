"""Offers of the search, and how agents that wait for one agree on who computes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.stores import SWEEP, Agent, fake_store, make_sweep
from support.waiting import wait_until

from resweep_agent.ask import LARGEST_BATCH, SERVICE_PATIENCE, Asker
from resweep_agent.asking import AskThread, Question
from resweep_agent.exitcodes import AgentError
from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import run_id_for
from resweep_scheduler.store import AskOutcome, ClaimOutcome, Offer, RunState, Store

GRID = {"method": "grid", "parameters": {"a": {"values": [1, 2, 3, 4, 5]}}}
BAYES = {"method": "bayes", "metric": {"name": "m"}, "parameters": {"x": {"min": 0.0, "max": 1.0}}}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def store() -> Store:
    made = fake_store()
    make_sweep(made)
    return made


def asker(stack: ExitStack, config: Mapping[str, object], store: Store | None = None, session: str = "s1") -> Asker:
    made = Asker(store or fake_store(), SWEEP, parse_sweep(config), session=session, wake=lambda: None)
    stack.callback(made.close)
    return made


def offered(ask: Asker) -> Offer:
    assert ask.offer is not None
    return ask.offer


def question(ask: Asker, *agents: str, now: float = 0.0) -> bool:
    """Asks a heavy search as the main loop does, and waits for the answer."""
    assert ask.ask(agents) is False
    ask.send(now)
    answers: list[bool] = []

    def answered() -> bool:
        answers.append(ask.collect(now))
        return not ask.busy

    wait_until(answered, timeout=20, description="an answer")
    return any(answers)


def test_a_grid_is_computed_ahead_and_follows_the_next_index(stack: ExitStack) -> None:
    ask = asker(stack, GRID)
    assert ask.offer is None
    ask.prepare()
    assert [(run.index, run.params) for run in offered(ask).runs] == [(0, {"a": 1})]
    ask.learn(3)
    assert ask.offer is None
    ask.prepare()
    assert [(run.index, run.params) for run in offered(ask).runs] == [(3, {"a": 4})]


def test_offers_get_longer_when_others_are_faster_and_say_when_the_grid_ends(stack: ExitStack) -> None:
    ask = asker(stack, GRID)
    ask.prepare()
    ask.learn(1)
    assert ask.ask(["a"])
    assert [run.index for run in offered(ask).runs] == [1, 2]
    assert not offered(ask).exhausted
    ask.learn(3)
    assert ask.ask(["a"])
    assert [run.index for run in offered(ask).runs] == [3, 4]
    assert offered(ask).exhausted


def test_offers_have_a_largest_size(stack: ExitStack) -> None:
    ask = asker(stack, {"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}})
    for _ in range(20):
        ask.ask(["a"])
    assert len(offered(ask).runs) == LARGEST_BATCH


def test_beyond_the_last_point_an_empty_offer_closes_the_search(stack: ExitStack) -> None:
    ask = asker(stack, GRID)
    ask.learn(5)
    ask.ask(["a"])
    assert ask.offer == Offer(5, (), exhausted=True)


def test_run_ids_follow_from_sweep_and_index_until_one_is_taken(stack: ExitStack) -> None:
    ask = asker(stack, GRID)
    ask.prepare()
    first = offered(ask).runs[0].run_id
    assert first == run_id_for(SWEEP, 0)
    ask.rename(first)
    assert offered(ask).runs[0].run_id == run_id_for(SWEEP, 0, 1)


def test_a_search_with_a_memory_is_never_asked_ahead(stack: ExitStack, store: Store) -> None:
    ask = asker(stack, BAYES, store)
    ask.prepare()
    assert ask.offer is None
    assert question(ask, "a")
    assert ask.offer is None
    assert [(run.index, run.state) for run in store.runs(SWEEP)] == [(0, RunState.PENDING)]


def test_one_agent_suggests_for_all_that_wait_and_wakes_them(stack: ExitStack, store: Store) -> None:
    for name in ("a", "b", "c"):
        assert Agent(store, name, session=name).claim().outcome is ClaimOutcome.ASK
    for name in ("b", "c"):
        store.begin_asking(SWEEP, session=name, agents=[name], hold_ms=1, service=False)
    store.client.delete(store.keys.sweep(SWEEP, "asking"))
    assert question(asker(stack, BAYES, store, "a"), "a")
    assert [run.index for run in store.runs(SWEEP)] == [0, 1, 2]
    assert [store.wait_for_work(SWEEP, 0.01) for _ in range(4)] == [True, True, True, False]
    assert store.client.exists(store.keys.sweep(SWEEP, "asking")) == 0


def test_while_one_agent_computes_the_others_wait(stack: ExitStack, store: Store) -> None:
    assert store.begin_asking(SWEEP, session="other", agents=["b"], hold_ms=60_000).outcome is AskOutcome.ASK
    assert not question(asker(stack, BAYES, store), "a")
    assert store.runs(SWEEP) == []


def test_runs_that_came_meanwhile_are_claimed_without_asking(stack: ExitStack, store: Store) -> None:
    assert question(asker(stack, BAYES, store), "a")
    assert question(asker(stack, BAYES, store, "s2"), "b")
    assert len(store.runs(SWEEP)) == 1


def test_a_run_id_that_is_taken_is_replaced(stack: ExitStack, store: Store) -> None:
    store.init_run(run_id=run_id_for(SWEEP, 0), resume="allow", nonce="n")
    assert question(asker(stack, BAYES, store), "a")
    assert [run.run_id for run in store.runs(SWEEP)] == [run_id_for(SWEEP, 0, 1)]


def test_a_service_is_called_and_not_waited_for_for_long(
    stack: ExitStack, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr("resweep_scheduler.service.queue.hand_over", lambda _store, _sweep, index: calls.append(index))
    store.announce_service([SWEEP], name="svc", ttl_ms=60_000)
    ask = asker(stack, BAYES, store)
    assert not question(ask, "a", now=0.0)
    assert not question(ask, "a", now=SERVICE_PATIENCE - 0.1)
    assert calls == [0]
    assert store.runs(SWEEP) == []
    assert question(ask, "a", now=SERVICE_PATIENCE)
    assert [run.index for run in store.runs(SWEEP)] == [0]


STUDY = Path(__file__).parent.parent / "support" / "study.py"
BY_SOURCE = {
    "method": "custom",
    "metric": {"name": "m"},
    "scheduler": {"engine": "optuna", "source": "study.py", "search_space": "draw_plane"},
}


def test_an_agent_without_the_source_waits_for_others_and_says_so_once(
    stack: ExitStack, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    ask = asker(stack, BY_SOURCE, store)
    for now in (0.0, SERVICE_PATIENCE + 1):
        assert not question(ask, "a", now=now)
    assert store.runs(SWEEP) == []
    assert store.demand(SWEEP, seen_since=0).waiting == 1
    assert [record.getMessage() for record in caplog.records] == [
        'search-left-to-others source=study.py start="resweep scheduler --source study.py"'
    ]


def test_an_agent_without_the_source_never_gets_tired_of_a_service(
    stack: ExitStack, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr("resweep_scheduler.service.queue.hand_over", lambda _store, _sweep, index: calls.append(index))
    store.announce_service([SWEEP], name="svc", ttl_ms=60_000)
    ask = asker(stack, BY_SOURCE, store)
    assert not question(ask, "a", now=0.0)
    assert not question(ask, "a", now=SERVICE_PATIENCE + 1)
    assert calls == [0]
    assert store.runs(SWEEP) == []


def test_an_agent_with_the_source_asks_for_all(stack: ExitStack, store: Store) -> None:
    waiting = asker(stack, BY_SOURCE, store, "s2")
    assert not question(waiting, "b")
    ask = Asker(store, SWEEP, parse_sweep(BY_SOURCE), session="s1", wake=lambda: None, sources=[STUDY])
    stack.callback(ask.close)
    assert question(ask, "a")
    assert [set(run.params) for run in store.runs(SWEEP)] == [{"x", "y"}] * 2


def test_a_source_that_cannot_be_used_ends_the_agent(stack: ExitStack, store: Store) -> None:
    config = {**BY_SOURCE, "scheduler": {**BY_SOURCE["scheduler"], "search_space": "drow"}}  # type: ignore[dict-item]
    ask = Asker(store, SWEEP, parse_sweep(config), session="s1", wake=lambda: None, sources=[STUDY])
    stack.callback(ask.close)
    with pytest.raises(AgentError, match=r"must be a function that .*study.py defines at its top level"):
        question(ask, "a")
    with pytest.raises(AgentError, match="two sources must not have the same name"):
        Asker(store, SWEEP, parse_sweep(config), session="s1", wake=lambda: None, sources=[STUDY, Path("study.py")])


def test_what_cannot_be_searched_ends_the_agent(stack: ExitStack, store: Store) -> None:
    config = parse_sweep(BAYES).model_copy(update={"metric": None})
    ask = Asker(store, SWEEP, config, session="s1", wake=lambda: None)
    stack.callback(ask.close)
    with pytest.raises(AgentError, match="needs a metric"):
        question(ask, "a")


def test_the_thread_reports_what_no_one_foresaw_and_lives_on() -> None:
    woken = threading.Event()

    def answer(asked: Question, clock: object) -> AskOutcome:
        if asked.alone:
            raise ZeroDivisionError("a fault of the search")
        return AskOutcome.CLAIM

    thread = AskThread(answer, woken.set)
    thread.put(Question((), alone=True))
    wait_until(woken.is_set, timeout=5, description="the answer")
    error = thread.take()
    assert isinstance(error, AgentError)
    assert "ZeroDivisionError: a fault of the search" in str(error)
    woken.clear()
    thread.put(Question(()))
    wait_until(woken.is_set, timeout=5, description="the answer")
    assert thread.take() is AskOutcome.CLAIM
    assert thread.take() is None
    assert not thread.busy
    thread.close()
