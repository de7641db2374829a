"""Heartbeats, step by step, on a store without a server."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import pytest
from support.stores import SWEEP, Agent, Clock, make_offer, make_sweep, pass_time

from resweep_agent.heartbeat import LAST_OUTPUT, LEAVING_POLL, Beat, Heart
from resweep_agent.link import Link
from resweep_agent.output import OutputStream, Piece, Terminal
from resweep_scheduler.store import Hold, RunState, Store, StoreUnavailableError

INTERVAL = 10.0


@dataclass
class Body:
    """An agent of the store with a heart that is stepped by hand."""

    agent: Agent
    heart: Heart
    beats: list[Beat] = field(default_factory=list)


@pytest.fixture
def body(store: Store) -> Body:
    make_sweep(store)
    agent = Agent(store)
    beats: list[Beat] = []
    heart = Heart(
        store,
        sweep_id=SWEEP,
        session=agent.session,
        lease_ms=60_000,
        interval=INTERVAL,
        block=0.1,
        post=beats.append,
        link=Link(),
    )
    return Body(agent, heart, beats)


def take(body: Body) -> None:
    body.agent.take_unconfirmed(make_offer(1))
    body.heart.keep("a", body.agent.run, None)


def test_the_first_heartbeat_is_due_at_once_and_the_next_after_the_interval(store: Store, body: Body) -> None:
    take(body)
    with mock.patch.object(store, "heartbeat", wraps=store.heartbeat) as heartbeat:
        assert body.heart.step(100.0) == 110.0
        assert body.heart.step(105.0) == 110.0
        assert body.heart.step(110.0) == 120.0
    assert heartbeat.call_count == 2
    assert body.beats == []


def test_nothing_is_due_when_nothing_runs(body: Body) -> None:
    assert body.heart.step(100.0) is None
    take(body)
    body.heart.drop(body.agent.run.token, send_output=False)
    assert body.heart.step(100.0) is None


def test_a_poke_makes_every_run_due(store: Store, body: Body) -> None:
    take(body)
    body.heart.step(100.0)
    store.stop_run(body.agent.run.token.run_id, reason="enough")
    body.heart.hurry()
    body.heart.step(101.0)
    assert body.beats == [Beat(body.agent.run.token, Hold.OWNER, "enough")]


def test_a_run_whose_lease_ran_out_is_adopted(store: Store, clock: Clock, body: Body) -> None:
    take(body)
    body.heart.step(0.0)
    pass_time(store, clock, 100.0)
    assert store.run("run0").state is RunState.CRASHED
    body.heart.step(100.0)
    assert store.run("run0").state is RunState.RUNNING
    assert body.beats == []


def test_a_run_that_somebody_else_took_is_told_to_the_main_thread(store: Store, body: Body) -> None:
    body.agent.preemptible = True
    take(body)
    body.heart.step(0.0)
    Agent(store, session="newer").take()
    body.heart.step(INTERVAL)
    assert body.beats == [Beat(body.agent.run.token, Hold.STALE, "")]


def test_a_run_that_was_removed_is_told_to_the_main_thread(store: Store, body: Body) -> None:
    take(body)
    store.client.delete(store.keys.run("run0"))
    body.heart.step(0.0)
    assert [beat.hold for beat in body.beats] == [Hold.GONE]


def test_an_end_that_was_just_reported_is_no_news(body: Body) -> None:
    take(body)
    body.agent.end(0)
    body.heart.step(0.0)
    assert body.beats == []


def test_an_outage_is_said_once_and_its_end_once(store: Store, body: Body, caplog: pytest.LogCaptureFixture) -> None:
    take(body)
    away = StoreUnavailableError("redis://h/0 cannot be reached")
    with caplog.at_level(logging.WARNING):
        with mock.patch.object(store, "heartbeat", side_effect=away):
            pauses = [(body.heart.step(100.0) or 0.0) - 100.0 for _ in range(12)]
        body.heart.step(107.0)
        body.heart.step(117.0)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["redis-away", "redis-back"]
    assert all(0.0 < pause <= 2.0 for pause in pauses)


def test_after_an_outage_every_lease_is_looked_at(store: Store, body: Body) -> None:
    take(body)
    body.agent.take_unconfirmed(make_offer(1, first=1))
    body.heart.keep("a", body.agent.run, None)
    body.heart.step(100.0)
    with mock.patch.object(store, "heartbeat", side_effect=StoreUnavailableError("away")):
        body.heart.hurry()
        body.heart.step(101.0)
    with mock.patch.object(store, "heartbeat", wraps=store.heartbeat) as heartbeat:
        body.heart.step(102.0)
    assert {call.kwargs["token"].run_id for call in heartbeat.call_args_list} == {"run0", "run1"}


@pytest.mark.parametrize("last_words", [False, True])
def test_output_of_a_run_that_is_over_is_sent_again_when_its_reply_was_lost(
    store: Store, body: Body, last_words: bool
) -> None:
    """Nobody but the list of leaving runs knows this output: it must stay there until it arrived."""
    body.agent.take_unconfirmed(make_offer(1))
    output = OutputStream(-1, Path("unused"), mock.create_autospec(Terminal), "")
    output.put_back(Piece(1, "the end\n"))
    output.closed.set()
    body.heart.keep("a", body.agent.run, output)
    token = body.agent.run.token
    body.agent.end(0)
    body.heart.drop(token, send_output=True)
    real = store.append_output
    lost = [StoreUnavailableError("lost")]

    def append_output(*arguments: object, **more: object) -> object:
        if lost:
            raise lost.pop()
        return real(*arguments, **more)  # type: ignore[arg-type]

    with mock.patch.object(store, "append_output", side_effect=append_output):
        if last_words:
            body.heart.close()
        else:
            body.heart.step(100.0)
            body.heart.step(101.0)
    assert [chunk.text for chunk in store.output(token.run_id)] == ["the end\n"]


def test_ended_runs_whose_output_does_not_end_hold_up_no_heartbeat(
    store: Store, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that reads what children print may be held up by a terminal, while one run after the other ends."""
    take(body)
    running = body.agent.run.token
    begun = time.monotonic()
    outputs = []
    for number in range(1, 6):
        body.agent.take_unconfirmed(make_offer(1, first=number))
        output = OutputStream(-1, Path("unused"), mock.create_autospec(Terminal), "")
        output.put_back(Piece(1, f"of run {number}\n"))
        monkeypatch.setattr(output.closed, "wait", mock.Mock(side_effect=AssertionError("it waits for an output")))
        outputs.append(output)
        body.heart.keep("a", body.agent.run, output)
        body.agent.end(0)
        body.heart.drop(body.agent.run.token, send_output=True)
    with mock.patch.object(store, "heartbeat", wraps=store.heartbeat) as heartbeat:
        now = begun
        for _ in range(3):
            assert body.heart.step(now) == pytest.approx(now + LEAVING_POLL)
            now += INTERVAL / 10
    assert [call.kwargs["token"] for call in heartbeat.call_args_list] == [running]
    assert not [number for number in range(1, 6) if list(store.output(f"run{number}"))]

    outputs[2].closed.set()
    body.heart.step(begun + LAST_OUTPUT / 2)
    assert [chunk.text for chunk in store.output("run3")] == ["of run 3\n"], "it need not wait for the others"
    late = time.monotonic() + LAST_OUTPUT
    for left in (3, 2, 1, 0):
        assert body.heart.step(late) == (late if left else begun + INTERVAL)
    assert [chunk.text for chunk in store.output("run5")] == ["of run 5\n"], "what there is of it is sent"
