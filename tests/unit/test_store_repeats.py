"""Calls that come twice do nothing twice, and calls of a stale attempt change nothing at all (promises 2 and 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, dump, make_offer, make_sweep, pass_time

from resweep_scheduler.store import (
    ClaimToken,
    EndAnswer,
    EndRequest,
    HeartbeatAnswer,
    Hold,
    RunMeta,
    Store,
    SweepCommand,
    WriteAnswer,
)

Call = Callable[[], Any]
Scene = Callable[[Store, Clock], Call]
LEASE_MS = round(LEASE * 1000)


def busy(store: Store, **settings: Any) -> Agent:
    """An agent that owns run0 of a sweep with two more ready."""
    make_sweep(store, **settings)
    store.add_runs(SWEEP, make_offer(3))
    agent = Agent(store)
    agent.take()
    return agent


def lapsed(store: Store, clock: Clock) -> Agent:
    """An agent whose lease on run0 ran out while the run was preempting."""
    agent = busy(store)
    agent.mark()
    pass_time(store, clock, LEASE)
    return agent


# Calls that come twice.

SCENES: dict[str, tuple[str, Scene]] = {}
"""By name: the script that the scene calls, and the scene: it sets the stage, and returns the call."""


def calls(script: str) -> Callable[[Scene], Scene]:
    """Enters a scene that calls `script`."""

    def enter(scene: Scene) -> Scene:
        SCENES[getattr(scene, "__name__", script)] = (script, scene)
        return scene

    return enter


@calls("create_sweep")
def create_sweep(store: Store, clock: Clock) -> Call:
    return lambda: make_sweep(store)


@calls("add_runs")
def add_runs(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    return lambda: store.add_runs(SWEEP, make_offer(3))


@calls("add_runs")
def add_the_last_runs(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    return lambda: store.add_runs(SWEEP, make_offer(3, exhausted=True))


@calls("add_runs")
def add_nothing_and_finish(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    return lambda: store.add_runs(SWEEP, make_offer(0, exhausted=True))


@calls("claim")
def claim_a_ready_run(store: Store, clock: Clock) -> Call:
    request = busy(store).request()
    return lambda: store.claim(request)


@calls("claim")
def claim_from_the_queue(store: Store, clock: Clock) -> Call:
    agent = busy(store)
    agent.end(1, preempted=True)
    request = agent.request()
    return lambda: store.claim(request)


@calls("claim")
def claim_with_an_offer(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    request = Agent(store).request(make_offer(2))
    return lambda: store.claim(request)


@calls("claim")
def claim_that_reaps(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    Agent(store, "dead", lease=1).take(make_offer(1))
    clock.advance(1)
    watcher = Agent(store, "watcher")
    for _ in range(3):
        clock.advance(0.333)
        watcher.claim()
    clock.advance(0.333)
    request = watcher.request()
    return lambda: store.claim(request)


@calls("heartbeat")
def heartbeat(store: Store, clock: Clock) -> Call:
    return busy(store).heartbeat


@calls("mark_preempting")
def mark_preempting(store: Store, clock: Clock) -> Call:
    return busy(store).mark


@calls("log")
def log(store: Store, clock: Clock) -> Call:
    agent = busy(store)
    return lambda: replace(agent.log(0, 1, 2, summary='{"loss": 2}', metric=2.0), accepted=0)


@calls("log")
def log_up_to_the_target(store: Store, clock: Clock) -> Call:
    agent = busy(store, metric_name="loss", metric_goal="minimize", metric_target=0.5)
    return lambda: replace(agent.log(0, metric=0.1), accepted=0)


@calls("commit_checkpoint")
def commit_checkpoint(store: Store, clock: Clock) -> Call:
    token = busy(store).run.token
    return lambda: store.commit_checkpoint(token, path="/tmp/c", step=3, metadata={"epoch": 1})


@calls("update_config")
def update_config(store: Store, clock: Clock) -> Call:
    token = busy(store).run.token
    return lambda: store.update_config(token, config={"a": 1}, meta=RunMeta(tags=("x",), notes="n"))


@calls("init_run")
def init_in_a_sweep(store: Store, clock: Clock) -> Call:
    token = busy(store).run.token
    return lambda: store.init_run(
        run_id="run0", resume="never", nonce=token.nonce, attempt=token.attempt, config={"a": 1}
    )


@calls("init_run")
def init_outside(store: Store, clock: Clock) -> Call:
    return lambda: store.init_run(run_id="alone", resume="never", nonce="script.1", config={"a": 1})


@calls("init_run")
def init_that_overwrites(store: Store, clock: Clock) -> Call:
    store.init_run(run_id="alone", resume="", nonce="script.1", config={"a": 1})
    return lambda: store.init_run(run_id="alone", resume="", nonce="script.2", config={"b": 1})


def _end(agent: Agent, exit_code: int | None, **more: Any) -> Call:
    """The end; the first report is answered OWNER, later ones ENDED, the rest of the answer is the same."""
    return lambda: replace(agent.end(exit_code, **more), hold=Hold.ENDED)


@calls("end_attempt")
def end_with_0(store: Store, clock: Clock) -> Call:
    return _end(busy(store), 0)


@calls("end_attempt")
def end_with_1(store: Store, clock: Clock) -> Call:
    return _end(busy(store), 1, reason="exit code 1")


@calls("end_attempt")
def end_that_is_retried(store: Store, clock: Clock) -> Call:
    return _end(busy(store, retry_failed=2), 1)


@calls("end_attempt")
def end_by_preemption(store: Store, clock: Clock) -> Call:
    return _end(busy(store), None, signal=15, preempted=True)


@calls("end_attempt")
def end_after_the_lease_ran_out(store: Store, clock: Clock) -> Call:
    return _end(lapsed(store, clock), 0)


@calls("end_attempt")
def end_by_preemption_after_the_lease_ran_out(store: Store, clock: Clock) -> Call:
    return _end(lapsed(store, clock), 1)


@calls("append_output")
def append_output(store: Store, clock: Clock) -> Call:
    token = busy(store).run.token
    store.append_output(token, "first\n", piece=1)
    return lambda: store.append_output(token, "second\n", piece=2)


@calls("finish_run")
def finish_run(store: Store, clock: Clock) -> Call:
    token = store.init_run(run_id="alone", resume="", nonce="script.1").token
    assert token is not None
    return lambda: replace(store.finish_run(token, exit_code=0), hold=Hold.ENDED)


@calls("adopt")
def adopt(store: Store, clock: Clock) -> Call:
    return lapsed(store, clock).adopt


@calls("release")
def register(store: Store, clock: Clock) -> Call:
    busy(store)
    newer = Agent(store, "a", session="newer", register=False)

    def call() -> None:
        newer.register()  # the second answer does not name the released runs again

    return call


@calls("leave")
def leave(store: Store, clock: Clock) -> Call:
    return busy(store).leave


@calls("stop_run")
def stop_a_running_run(store: Store, clock: Clock) -> Call:
    busy(store)
    return lambda: store.stop_run("run0", reason="stopped by user")


@calls("stop_run")
def stop_a_pending_run(store: Store, clock: Clock) -> Call:
    busy(store)
    return lambda: store.stop_run("run2", reason="stopped by user")


@calls("retry_run")
def retry(store: Store, clock: Clock) -> Call:
    busy(store).end(1)

    def call() -> None:
        store.retry_runs(SWEEP, ["run0"])  # the second answer does not name the run: it waits already

    return call


@calls("remove_runs")
def remove(store: Store, clock: Clock) -> Call:
    busy(store).end(1)

    def call() -> None:
        store.remove_runs(["run0", "run1"])  # the second answer counts what it removed: nothing

    return call


def _command(command: SweepCommand) -> Scene:
    def scene(store: Store, clock: Clock) -> Call:
        busy(store)
        return lambda: store.command_sweep(SWEEP, command)

    scene.__name__ = command.value
    return scene


for each in SweepCommand:
    calls("set_sweep_state")(_command(each))


@pytest.mark.parametrize("name", SCENES)
def test_repeated_call_does_nothing_twice(store: Store, clock: Clock, name: str) -> None:
    """The answer is the same, and counters, events, queue, history, leases and records are as after the first call."""
    call = SCENES[name][1](store, clock)
    first = call()
    before = dump(store, tokens=False)
    assert call() == first
    assert dump(store, tokens=False) == before


@pytest.mark.parametrize("name", SCENES)
def test_late_repetition_changes_no_more(store: Store, clock: Clock, name: str) -> None:
    """A copy of the call that arrives five seconds later moves nothing but what tells when somebody was heard."""
    call = SCENES[name][1](store, clock)
    call()
    before = _without_times(dump(store, tokens=False))
    clock.advance(5)
    call()
    assert _without_times(dump(store, tokens=False)) == before


def _without_times(content: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in content.items() if not key.endswith((":seen", ":leases"))}
    for key, value in kept.items():
        if isinstance(value, dict):
            kept[key] = {name: text for name, text in value.items() if name != "heard"}
    return kept


def test_every_script_is_repeated_here() -> None:
    """A new transition brings its scene along."""
    scripts = {entry.name.removesuffix(".lua") for entry in (files("resweep_scheduler.store") / "lua").iterdir()}
    assert {script for script, _ in SCENES.values()} == scripts - {"shared"}


# Calls of an attempt that is over.


def _second_attempt_runs(store: Store, clock: Clock) -> ClaimToken:
    """The first attempt's token, while a second attempt owns the run."""
    first = lapsed(store, clock)
    other = Agent(store, "other")
    other.take()
    other.log(0)
    return first.run.token


def _second_attempt_ended(store: Store, clock: Clock, *, exit_code: int, preempted: bool = False) -> ClaimToken:
    first = lapsed(store, clock)
    other = Agent(store, "other")
    other.take()
    other.end(exit_code, preempted=preempted)
    return first.run.token


def _other_nonce(store: Store, clock: Clock) -> ClaimToken:
    """The same attempt number in other hands, as after a rollback of Redis."""
    return replace(busy(store).run.token, nonce="somebody.1")


def _gone(store: Store, clock: Clock) -> ClaimToken:
    busy(store)
    return ClaimToken("no-such-run", 1, "session-a.1")


def _removed_sweep(store: Store, clock: Clock) -> ClaimToken:
    agent = busy(store)
    agent.end(0)
    store.remove_sweep(SWEEP)
    return agent.run.token


def _killed_while_away(store: Store, clock: Clock) -> ClaimToken:
    agent = lapsed(store, clock)
    store.stop_run("run0", reason="stopped by user")
    return agent.run.token


def _replaced(store: Store, clock: Clock) -> ClaimToken:
    agent = busy(store)
    Agent(store, "a", session="newer")
    return agent.run.token


STALE: dict[str, Callable[[Store, Clock], ClaimToken]] = {
    "another attempt runs": _second_attempt_runs,
    "another attempt finished": lambda store, clock: _second_attempt_ended(store, clock, exit_code=0),
    "another attempt failed": lambda store, clock: _second_attempt_ended(store, clock, exit_code=1),
    "another attempt was preempted": lambda store, clock: _second_attempt_ended(
        store, clock, exit_code=1, preempted=True
    ),
    "other nonce": _other_nonce,
    "gone": _gone,
    "removed": _removed_sweep,
    "killed while away": _killed_while_away,
    "agent replaced": _replaced,
}

Write = Callable[[Store, ClaimToken], HeartbeatAnswer | WriteAnswer | EndAnswer]
WRITES: dict[str, Write] = {
    "heartbeat": lambda store, token: store.heartbeat(SWEEP, agent="a", token=token, lease_ms=LEASE_MS),
    "short heartbeat": lambda store, token: store.heartbeat(SWEEP, agent="a", token=token, lease_ms=5),
    "mark": lambda store, token: store.mark_preempting(token, reason="script"),
    "log": lambda store, token: store.log(token, first_seq=1, rows=[(7, "{}")], summary="{}", metric=-1.0),
    "commit_checkpoint": lambda store, token: store.commit_checkpoint(token, path="/tmp/stale", step=99),
    "update_config": lambda store, token: store.update_config(token, config={"a": 1}, meta=RunMeta(name="x")),
    "append_output": lambda store, token: store.append_output(token, "text", piece=1),
    "end with 0": lambda store, token: store.end_attempt(EndRequest(token, 0)),
    "end with 1": lambda store, token: store.end_attempt(EndRequest(token, 1)),
    "end without status": lambda store, token: store.end_attempt(EndRequest(token, None, preempted=True)),
    "end by a stop": lambda store, token: store.end_attempt(EndRequest(token, None, killed=True)),
    "finish_run": lambda store, token: store.finish_run(token, exit_code=0),
    "adopt": lambda store, token: store.adopt(SWEEP, agent="a", token=token, claimed_at=0, lease_ms=LEASE_MS),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("scene", STALE)
def test_write_of_a_stale_attempt_changes_nothing(store: Store, clock: Clock, scene: str, write: str) -> None:
    """Not one key changes, and the answer says that the attempt is over."""
    token = STALE[scene](store, clock)
    before = dump(store)
    answer = WRITES[write](store, token)
    assert dump(store) == before
    assert answer.hold is (Hold.GONE if scene in ("gone", "removed") else Hold.STALE)


@pytest.mark.parametrize("scene", STALE)
def test_init_of_a_stale_attempt_changes_nothing(store: Store, clock: Clock, scene: str) -> None:
    """A script that starts too late is told so, and begins nothing."""
    token = STALE[scene](store, clock)
    before = dump(store)
    answer = store.init_run(
        run_id=token.run_id, resume="allow", nonce=token.nonce, attempt=token.attempt, config={"a": 1}
    )
    assert (answer.outcome.value, answer.run, answer.token) == ("stale", None, None)
    assert dump(store) == before


@pytest.mark.parametrize("exit_code", [0, 1])
def test_end_that_arrives_after_its_repetition_and_the_next_claim(store: Store, exit_code: int) -> None:
    """A held-up report of the first attempt does not end the second one of the same agent."""
    agent = busy(store)
    first = agent.run.token
    agent.end(1, preempted=True)
    agent.take()
    before = dump(store)
    assert store.end_attempt(EndRequest(first, exit_code)).hold is Hold.STALE
    assert dump(store) == before
    check_promises(store, SWEEP, complete=False)


def test_checkpoint_that_arrives_after_a_newer_one_is_not_taken(store: Store) -> None:
    """A held-up commit does not name again what the script has left behind, and may have deleted."""
    token = busy(store).run.token
    store.commit_checkpoint(token, path="/tmp/c1", step=1)
    store.commit_checkpoint(token, path="/tmp/c2", step=2)
    before = dump(store)
    assert store.commit_checkpoint(token, path="/tmp/c1", step=1).hold is Hold.OWNER
    assert dump(store) == before


def test_later_attempt_may_commit_an_earlier_step(store: Store) -> None:
    """A script that started from an earlier checkpoint may have fewer steps than the last one of its predecessor."""
    agent = busy(store)
    store.commit_checkpoint(agent.run.token, path="/tmp/c9", step=9)
    agent.end(1, preempted=True)
    store.commit_checkpoint(agent.take().token, path="/tmp/c2", step=2)
    checkpoint = store.run("run0").checkpoint
    assert checkpoint is not None
    assert (checkpoint.path, checkpoint.attempt) == ("/tmp/c2", 2)


def test_summary_that_arrives_after_a_newer_one_is_not_taken(store: Store) -> None:
    """A held-up batch brings back neither its rows nor its summary."""
    agent = busy(store)
    agent.log(0, first_seq=1, summary='{"loss": 9}')
    agent.log(1, first_seq=2, summary='{"loss": 1}')
    assert agent.log(0, first_seq=1, summary='{"loss": 9}').accepted == 0
    assert store.run("run0").summary == {"loss": 1}
    store.log(agent.run.token, first_seq=1, rows=[], summary='{"best": 1}')
    assert store.run("run0").summary == {"best": 1}
