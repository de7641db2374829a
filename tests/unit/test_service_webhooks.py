"""Webhooks: each event is delivered at least once, to whom it is for, and nowhere else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from support.stores import SWEEP, Agent, Clock, make_offer, make_sweep

from resweep_scheduler.config import ConfigError, parse_sweep
from resweep_scheduler.service.webhooks import (
    FIRST_PAUSE_MS,
    GIVE_UP_AFTER,
    deliver_due,
    note_events,
    post_json,
    targets_of,
)
from resweep_scheduler.store import Store

GRID: dict[str, object] = {"method": "grid", "parameters": {"a": {"values": [1, 2]}}}
HOOKS = [{"url": "https://example.org/all"}, {"url": "http://example.org/bad", "events": ["failed", "preempting"]}]
TARGETS = targets_of(parse_sweep({**GRID, "webhooks": HOOKS}), None)


class Receiver:
    """Notes what is posted; fails while it is told to."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, str | None]] = []
        self.bodies: list[dict[str, Any]] = []
        self.fails = False

    def __call__(self, url: str, body: dict[str, Any]) -> None:
        if self.fails:
            raise TimeoutError("https://example.org/all?token=secret did not answer")
        self.got.append((url.rpartition("/")[2], body["event"], body["run"]))
        self.bodies.append(body)


class Post:
    """The deliveries of one sweep."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.receiver = Receiver()

    def note(self) -> int | None:
        return note_events(self.store, SWEEP, TARGETS, now_ms=self.clock.ms)

    def deliver(self) -> int:
        return deliver_due(self.store, SWEEP, TARGETS, now_ms=lambda: self.clock.ms, post=self.receiver)


@pytest.fixture
def post(store: Store, clock: Clock) -> Post:
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2, exhausted=True))
    agent = Agent(store)
    agent.take()
    agent.mark()
    agent.end(0)
    agent.take()
    agent.end(3)
    return Post(store, clock)


def test_each_receiver_gets_the_events_that_it_asks_for_in_order(post: Post) -> None:
    assert post.note()
    assert post.deliver() == 7
    assert [got for got in post.receiver.got if got[0] == "all"] == [
        ("all", "sweep", None),
        ("all", "sweep", None),
        ("all", "finished", "run0"),
        ("all", "failed", "run1"),
        ("all", "sweep", None),
    ]
    assert [got for got in post.receiver.got if got[0] == "bad"] == [
        ("bad", "preempting", "run0"),
        ("bad", "failed", "run1"),
    ]
    assert not post.note()
    assert post.deliver() == 0


def test_a_notice_to_an_agent_is_no_news_of_the_sweep(post: Post) -> None:
    post.note()
    post.deliver()
    Agent(post.store, "other")
    post.store.note_notice(SWEEP, agent="other", session="session-other", number=1, source="aws")
    assert not post.note()
    assert post.deliver() == 0


def test_what_is_posted_names_the_event_and_holds_no_parameters(post: Post) -> None:
    post.note()
    post.deliver()
    body = next(body for body in post.receiver.bodies if body["event"] == "failed")
    assert body == {
        "id": body["id"], "event": "failed", "at": post.clock.ms, "entity": "local", "project": "uncategorized",
        "sweep": SWEEP, "run": "run1", "attempt": 1, "agent": "a", "before": "running", "after": "failed",
        "reason": "", "exit_code": 3,
    }  # fmt: skip
    assert body["id"].startswith(f"{SWEEP}/")
    assert json.dumps(body)


def test_a_receiver_that_is_down_gets_everything_later_and_its_address_is_not_logged(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    post.receiver.fails = True
    post.note()
    assert post.deliver() == 0
    assert "webhook-failed" in caplog.text
    assert "secret" not in caplog.text
    post.receiver.fails = False
    assert post.deliver() == 0  # not yet
    post.clock.advance(FIRST_PAUSE_MS / 1000)
    assert post.note()
    assert post.deliver() == 7


def test_a_receiver_that_is_gone_is_given_up(post: Post) -> None:
    post.receiver.fails = True
    post.note()
    for _ in range(GIVE_UP_AFTER):
        post.deliver()
        post.clock.advance(3600)
    assert post.store.deliveries(SWEEP)[1] == []


def test_a_service_that_dies_between_noting_and_delivering_loses_nothing(post: Post) -> None:
    assert post.note()
    another = Post(post.store, post.clock)
    assert another.note()
    assert another.deliver() == 7


def test_two_services_that_note_at_once_note_once(post: Post) -> None:
    cursor, _ = post.store.deliveries(SWEEP)
    assert post.note()
    assert not post.store.note_deliveries(SWEEP, before=cursor, after="1-0", deliveries=["1-0/0"])
    assert post.deliver() == 7


def test_a_service_with_an_address_of_its_own_begins_with_what_happens_now(post: Post) -> None:
    targets = targets_of(parse_sweep(GRID), "http://example.org/env")
    assert not note_events(post.store, SWEEP, targets, now_ms=post.clock.ms)
    post.store.retry_runs(SWEEP, ["run1"])
    agent = Agent(post.store, "b", session="b")
    agent.take()
    agent.end(0)
    assert note_events(post.store, SWEEP, targets, now_ms=post.clock.ms)
    assert deliver_due(post.store, SWEEP, targets, now_ms=lambda: post.clock.ms, post=post.receiver) >= 1
    assert ("env", "finished", "run1") in post.receiver.got
    assert ("env", "finished", "run0") not in post.receiver.got


def test_deliveries_to_receivers_that_the_config_no_longer_has_are_dropped(post: Post) -> None:
    post.note()
    assert deliver_due(post.store, SWEEP, {}, now_ms=lambda: post.clock.ms, post=post.receiver) == 0
    assert post.store.deliveries(SWEEP)[1] == []


def test_a_service_that_knows_no_address_leaves_the_deliveries_of_another_one_alone(post: Post) -> None:
    targets = targets_of(parse_sweep(GRID), "http://example.org/env")
    note_events(post.store, SWEEP, targets, now_ms=post.clock.ms)
    post.store.retry_runs(SWEEP, ["run1"])
    agent = Agent(post.store, "b", session="b")
    agent.take()
    agent.end(0)
    note_events(post.store, SWEEP, targets, now_ms=post.clock.ms)
    assert post.note() is None
    assert post.deliver() == 0
    assert deliver_due(post.store, SWEEP, targets, now_ms=lambda: post.clock.ms, post=post.receiver) >= 1


@pytest.mark.parametrize("url", ["ftp://example.org", "file:///etc/passwd", "https://", "example.org", 3])
def test_only_http_is_called(url: object) -> None:
    with pytest.raises(ConfigError, match="http"):
        parse_sweep({**GRID, "webhooks": [{"url": url}]})
    if isinstance(url, str) and not url.startswith("http"):
        with pytest.raises(ValueError, match="http"):
            post_json(url, {"id": "x"})


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        requests: list[tuple[str, str, dict[str, Any]]] = self.server.requests  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        requests.append((self.path, self.headers["Idempotency-Key"], body))
        self.send_response(302 if self.path == "/moved" else 204)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_json_is_posted_and_redirects_are_not_followed(web: HTTPServer) -> None:
    address = f"http://127.0.0.1:{web.server_port}"
    post_json(f"{address}/hook", {"id": "s/1-0", "event": "failed"})
    with pytest.raises(OSError, match="302"):
        post_json(f"{address}/moved", {"id": "s/2-0"})
    assert [(path, key) for path, key, _ in web.requests] == [  # type: ignore[attr-defined]
        ("/hook", "s/1-0"),
        ("/moved", "s/2-0"),
    ]
