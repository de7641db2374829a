"""The store without a server: fakeredis under a clock that the test sets, and what tests of the store begin with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, cast
from unittest import mock

import fakeredis
from fakeredis import _helpers
from fakeredis._socket import _base
from fakeredis.commands_mixins import server_mixin
from fakeredis.model import _stream
from redis import Redis

from resweep_scheduler.store import (
    ClaimAnswer,
    ClaimedRun,
    ClaimOutcome,
    ClaimRequest,
    ClaimToken,
    EndAnswer,
    EndRequest,
    HeartbeatAnswer,
    NewRun,
    Offer,
    Run,
    Scope,
    Store,
    SweepSettings,
    WriteAnswer,
    keys,
    open_store,
)
from support.waiting import wait_until

LEASE = 60.0
"""Seconds; the lease of a sweep by default."""

SWEEP = "sweep1"

HYPERBAND = {"type": "hyperband", "sign": 1, "bands": [1, 2, 4], "eta": 3.0, "strict": False}
MEDIAN = {"type": "median", "sign": 1, "percentile": 50.0, "n_startup_runs": 1, "min_iter": 1, "interval": 1}
"""Rules of early termination, as a sweep's settings have them."""


class Clock:
    """The Redis clock of a test, in ms; it stands still unless it is told to move."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def advance(self, seconds: float) -> None:
        """Moves the clock, back too."""
        self.ms += round(seconds * 1000)

    # What the patched modules of fakeredis call, in the place of the module `time`.

    def time(self) -> float:
        return self.ms / 1000 + 1e-5  # a little later, so that no rounding falls into the millisecond before

    def monotonic(self) -> float:
        return time.monotonic()


@contextmanager
def settable_clock() -> Iterator[Clock]:
    """TIME, stream ids and expiry of fakeredis follow the clock in this block."""
    clock = Clock()
    with ExitStack() as stack:
        for module in (server_mixin, _stream, _helpers, _base):
            stack.enter_context(mock.patch.object(module, "time", clock))
        yield clock


def fake_store(server: fakeredis.FakeServer | None = None) -> Store:
    """A store on a fake server of its own, or on `server`."""
    client = fakeredis.FakeRedis(server=server or fakeredis.FakeServer(version=(7, 0)), decode_responses=True)
    return Store(cast(Redis, client), Scope())


def make_sweep(store: Store, sweep_id: str = SWEEP, *, lease: float = LEASE, **settings: Any) -> str:
    """Creates a sweep; `settings` are those of SweepSettings."""
    store.create_sweep(
        sweep_id=sweep_id,
        nonce=f"nonce-of-{sweep_id}",
        config_text="method: grid\n",
        config_json="{}",
        settings=SweepSettings(lease_ms=round(lease * 1000), **settings),
    )
    return sweep_id


def make_offer(number: int, *, first: int = 0, exhausted: bool = False, prefix: str = "run") -> Offer:
    """`number` suggestions from index `first` on; the run of index 3 is called run3 and has the parameters {"x": 3}."""
    runs = tuple(NewRun(f"{prefix}{index}", index, {"x": index}) for index in range(first, first + number))
    return Offer(first, runs, exhausted)


def be_heard(store: Store, sweep_id: str = SWEEP) -> None:
    """A heartbeat of somebody who owns nothing: the lease clock is wound, and leases that ran out are found."""
    nobody = ClaimToken("no-such-run", 1, "nobody.1")
    store.heartbeat(sweep_id, agent="nobody", token=nobody, lease_ms=round(LEASE * 1000))


def pass_time(store: Store, clock: Clock, seconds: float, sweep_id: str = SWEEP) -> None:
    """Time passes while somebody is heard every 10 s, so that all of it counts for leases."""
    while seconds > 0:
        clock.advance(min(seconds, 10))
        be_heard(store, sweep_id)
        seconds -= 10


class Agent:
    """One slot of an agent: registered, and keeping the rule of sequence numbers as a real one does.

    Attributes:
        run: What it was handed out last, whatever became of it.
    """

    def __init__(
        self,
        store: Store,
        name: str = "a",
        *,
        sweep_id: str = SWEEP,
        session: str | None = None,
        lease: float = LEASE,
        preemptible: bool = False,
        register: bool = True,
    ) -> None:
        self.store = store
        self.name = name
        self.sweep_id = sweep_id
        self.session = session or f"session-{name}"
        self.lease_ms = round(lease * 1000)
        self.preemptible = preemptible
        self.seq = 1
        self._run: ClaimedRun | None = None
        if register:
            self.register()

    @property
    def run(self) -> ClaimedRun:
        assert self._run is not None, f"agent {self.name} was never given a run"
        return self._run

    def register(self) -> list[str]:
        return self.store.register(self.sweep_id, agent=self.name, session=self.session, host="host", pid=1)

    def leave(self) -> None:
        self.store.leave(self.sweep_id, agent=self.name, session=self.session)

    def request(self, offer: Offer | None = None, *, seq: int | None = None) -> ClaimRequest:
        """What its next claim sends, or what the claim number `seq` did."""
        nonce = f"{self.session}.{seq or self.seq}"
        return ClaimRequest(self.sweep_id, self.name, nonce, self.lease_ms, self.preemptible, offer)

    def claim(self, offer: Offer | None = None) -> ClaimAnswer:
        answer = self.store.claim(self.request(offer))
        if answer.outcome in (ClaimOutcome.RUN, ClaimOutcome.LATE, ClaimOutcome.LOST):
            self.seq += 1
        if answer.run is not None:
            self._run = answer.run
        return answer

    def take(self, offer: Offer | None = None) -> ClaimedRun:
        """Claims, gets a run, and says by a heartbeat that its child is launched."""
        run = self.take_unconfirmed(offer)
        self.heartbeat()
        return run

    def take_unconfirmed(self, offer: Offer | None = None) -> ClaimedRun:
        """Claims and gets a run; no heartbeat follows."""
        answer = self.claim(offer)
        assert answer.outcome is ClaimOutcome.RUN, f"agent {self.name} should get a run, got {answer}"
        return self.run

    def heartbeat(self) -> HeartbeatAnswer:
        token = self.run.token
        return self.store.heartbeat(self.sweep_id, agent=self.name, token=token, lease_ms=self.lease_ms)

    def mark(self, reason: str = "script") -> WriteAnswer:
        return self.store.mark_preempting(self.run.token, reason=reason)

    def adopt(self) -> HeartbeatAnswer:
        run = self.run
        return self.store.adopt(
            self.sweep_id, agent=self.name, token=run.token, claimed_at=run.claimed_at, lease_ms=self.lease_ms
        )

    def log(self, *steps: int, first_seq: int = 1, **more: Any) -> WriteAnswer:
        """Logs one row for each step."""
        rows = [(step, f'{{"loss": {step}}}') for step in steps]
        return self.store.log(self.run.token, first_seq=first_seq, rows=rows, **more)

    def log_values(self, *values: float | None, first_step: int = 0, first_seq: int = 1) -> WriteAnswer:
        """Logs a row for each value of the metric, None for a row without one, as a script with the SDK does."""
        rows = [
            (step, "{}") if value is None else (step, f'{{"loss": {value!r}}}', value)
            for step, value in enumerate(values, first_step)
        ]
        return self.store.log(self.run.token, first_seq=first_seq, rows=rows)

    def end(self, exit_code: int | None = 0, **more: Any) -> EndAnswer:
        """Reports the end; `more` are fields of EndRequest."""
        return self.store.end_attempt(EndRequest(self.run.token, exit_code, **more))


def begin_run(
    store: Store, *, runs: int = 3, exhausted: bool = False, preemptible: bool = False, **settings: Any
) -> Agent:
    """An agent that owns run0 of a sweep whose other `runs` are ready; `settings` are those of SweepSettings."""
    make_sweep(store, **settings)
    store.add_runs(SWEEP, make_offer(runs, exhausted=exhausted))
    agent = Agent(store, preemptible=preemptible)
    agent.take()
    return agent


def begin_last_run(store: Store, **settings: Any) -> Agent:
    """An agent that owns run0, the only run of a sweep whose search has no more."""
    return begin_run(store, runs=1, exhausted=True, **settings)


def lose_lease(store: Store, clock: Clock) -> Run:
    """Nobody hears of the owner of run0 until its lease has run out; returns the run after that."""
    pass_time(store, clock, LEASE)
    return store.run("run0")


def begin_and_lapse(store: Store, clock: Clock) -> Agent:
    """An agent whose lease on run0 ran out while the run was preempting; two runs are ready, and nobody took it."""
    agent = begin_run(store)
    agent.mark()
    lose_lease(store, clock)
    return agent


def work_through(
    url: str, scope: Scope, sweep_id: str, name: str, *, agents: int, points: int
) -> list[tuple[str, int]]:
    """Runs a whole sweep of `points` runs, beside other processes that do the same, and returns its claims.

    All begin when there are as many `agents`. Every third point is preempted in its first attempt.
    """
    store = open_store(url, scope)
    agent = Agent(store, name, sweep_id=sweep_id)
    wait_until(lambda: len(store.agents(sweep_id)) == agents, timeout=60, description="all agents to be there")
    claims: list[tuple[str, int]] = []
    offer = None
    while True:
        answer = agent.claim(offer)
        offer = None
        match answer.outcome:
            case ClaimOutcome.RUN:
                token = agent.run.token
                claims.append((token.run_id, token.attempt))
                agent.log(0)
                preempted = agent.run.index % 3 == 0 and token.attempt == 1
                agent.end(1 if preempted else 0, preempted=preempted)
            case ClaimOutcome.DONE:
                store.client.close()
                return claims
            case ClaimOutcome.ASK:
                first = answer.next_index
                number = min(2, points - first)
                offer = make_offer(number, first=first, exhausted=first + number == points)
            case ClaimOutcome.WAIT:
                store.wait_for_work(sweep_id, 1)
            case other:
                raise AssertionError(f"nobody disturbs agent {name}, but its claim was answered {other}")


# What changes with every call though nothing happened: the lease clock is wound.
_CLOCK_FIELDS = ("tick", "clock")


def dump(store: Store, *, tokens: bool = True) -> dict[str, Any]:
    """All that Redis holds, by key; what is equal before and after a call was not changed by it.

    Args:
        tokens: Wake-up tokens too, which carry nothing: a call that is repeated may wake somebody twice.
    """
    client: Any = store.client
    keys = [key for key in client.scan_iter() if tokens or not (key.endswith(":wake") or ":poke:" in key)]
    return {key: _content(client, key) for key in sorted(keys)}


def _content(client: Any, key: str) -> Any:
    match client.type(key):
        case "hash":
            fields: Mapping[str, str] = client.hgetall(key)
            return {name: _parsed(value) for name, value in fields.items() if name not in _CLOCK_FIELDS}
        case "list":
            return client.lrange(key, 0, -1)
        case "zset":
            return client.zrange(key, 0, -1, withscores=True)
        case "stream":
            return client.xrange(key)
        case "set":
            return client.smembers(key)
        case _:
            return _parsed(client.get(key))


def _parsed(text: str) -> Any:
    """JSON objects as such: Lua writes their fields in any order."""
    return json.loads(text) if text.startswith("{") else text


# The list of keys.


def undocumented_keys(store: Store) -> list[str]:
    """Keys that the list in keys.py does not name, have another type, or live on though it says that they expire."""
    client: Any = store.client
    return [key for key in client.scan_iter() if not _is_documented(client, key)]


def _is_documented(client: Any, key: str) -> bool:
    found = client.type(key), client.pttl(key) >= 0
    return any(pattern.fullmatch(key) and found == (kind, expires) for pattern, kind, expires in documented_keys())


@cache
def documented_keys() -> tuple[tuple[re.Pattern[str], str, bool], ...]:
    """Pattern, type, and whether it expires, of every key that the head of keys.py lists."""
    listed = re.findall(r"^    (\S+) +(hash|list|zset|stream|string) +(.*)$", keys.__doc__ or "", re.MULTILINE)
    patterns = [(re.escape(name), kind, text.endswith("(expires)")) for name, kind, text in listed]
    return (
        (re.compile(re.escape(keys.SWEEP_INDEX)), "hash", False),
        *(
            (re.compile(r"resweep:\{[^}]+\}:" + re.sub(r"<\w+>", "[^:]+", name)), kind, expires)
            for name, kind, expires in patterns
        ),
    )
