"""Calls that come twice do nothing twice (promise 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest
from support.stores import (
    HYPERBAND,
    MEDIAN,
    SWEEP,
    Agent,
    Clock,
    begin_and_lapse,
    begin_run,
    dump,
    make_offer,
    make_sweep,
)

from resweep_scheduler.store import (
    ClaimAnswer,
    EndAnswer,
    EndRequest,
    Hold,
    RunMeta,
    Store,
    SweepCommand,
)

Call = Callable[[], Any]
Scene = Callable[[Store, Clock], Call]


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


@calls("begin_asking")
def ask_for_two_agents(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    return lambda: store.begin_asking(SWEEP, session="s", agents=["a", "b"], hold_ms=60_000)


@calls("begin_asking")
def hand_the_asking_over(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    store.announce_service([SWEEP], name="service", ttl_ms=60_000)
    store.begin_asking(SWEEP, session="s", agents=["a"], hold_ms=60_000)
    return lambda: store.begin_asking(SWEEP, session="s", service=True, hold_ms=60_000)


@calls("note_deliveries")
def note_two_deliveries(store: Store, clock: Clock) -> Call:
    make_sweep(store)
    return lambda: store.note_deliveries(SWEEP, before="", after="5-0", deliveries=["1-0/0", "5-0/0"])


@calls("claim")
def claim_a_ready_run(store: Store, clock: Clock) -> Call:
    request = begin_run(store).request()
    return lambda: store.claim(request)


@calls("claim")
def claim_from_the_queue(store: Store, clock: Clock) -> Call:
    agent = begin_run(store)
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
    return begin_run(store).heartbeat


@calls("mark_preempting")
def mark_preempting(store: Store, clock: Clock) -> Call:
    return begin_run(store).mark


@calls("mark_preempting")
def mark_after_a_notice(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    return lambda: store.mark_preempting(token, reason="notice: aws", source="aws", lead_ms=1)


@calls("note_notice")
def note_a_notice(store: Store, clock: Clock) -> Call:
    begin_run(store)
    return lambda: store.note_notice(SWEEP, agent="a", session="session-a", number=1, source="aws", lead_ms=5000)


@calls("log")
def log(store: Store, clock: Clock) -> Call:
    agent = begin_run(store)
    return lambda: replace(agent.log(0, 1, 2, summary='{"loss": 2}', metric=2.0), accepted=0)


@calls("log")
def log_up_to_the_target(store: Store, clock: Clock) -> Call:
    agent = begin_run(store, metric_name="loss", metric_goal="minimize", metric_target=0.5)
    return lambda: replace(agent.log(0, metric=0.1), accepted=0)


@calls("log")
def log_until_the_run_is_stopped_early(store: Store, clock: Clock) -> Call:
    begin_run(store, stopping=HYPERBAND).log_values(0.1, 0.1)
    weak = Agent(store, "weak")
    weak.take()
    return lambda: weak.log_values(0.3, 0.2).stop


@calls("log")
def log_steps_again_in_a_later_attempt(store: Store, clock: Clock) -> Call:
    agent = begin_run(store, stopping=HYPERBAND)
    agent.log_values(0.1, 0.2, 0.3)
    agent.end(1, preempted=True)
    agent.take()
    return lambda: agent.log_values(0.4, 0.5, first_step=1).stop


@calls("heartbeat")
def heartbeat_of_a_run_that_fell_behind(store: Store, clock: Clock) -> Call:
    agent = begin_run(store, stopping=HYPERBAND)
    agent.log_values(0.2)
    better = Agent(store, "better")
    better.take()
    better.log_values(0.1)
    return agent.heartbeat


@calls("remove_runs")
def remove_a_run_that_others_are_compared_with(store: Store, clock: Clock) -> Call:
    agent = begin_run(store, stopping=HYPERBAND)
    agent.log_values(0.1, 0.2)
    agent.end(0)

    def call() -> None:
        store.remove_runs(["run0"])

    return call


@calls("prune_run")
def prune_run(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    return lambda: store.prune_run(token, iteration=0, reason="weak", data={})


@calls("commit_checkpoint")
def commit_checkpoint(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    return lambda: store.commit_checkpoint(token, path="/tmp/c", step=3, metadata={"epoch": 1})


@calls("fall_back")
def fall_back_to_the_one_before(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    for step in (1, 2):
        store.commit_checkpoint(token, path=f"/tmp/c{step}", step=step)
    return lambda: store.fall_back(token, lost="/tmp/c2", path="/tmp/c1", metadata={"epoch": 1}, reason="damaged")


@calls("fall_back")
def fall_back_to_nothing(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    store.commit_checkpoint(token, path="/tmp/c", step=1)
    return lambda: store.fall_back(token, lost="/tmp/c", path=None, reason="missing")


@calls("open_writer")
def open_writer(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    store.open_writer(token, init="earlier")
    return lambda: store.open_writer(token, init="this")


@calls("update_config")
def update_config(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    return lambda: store.update_config(token, config={"a": 1}, meta=RunMeta(tags=("x",), notes="n"))


@calls("init_run")
def init_in_a_sweep(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
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
    return _end(begin_run(store), 0)


@calls("end_attempt")
def end_of_a_run_that_others_are_compared_with(store: Store, clock: Clock) -> Call:
    agent = begin_run(store, stopping=MEDIAN)
    agent.log_values(0.1, 0.2)
    return _end(agent, 0)


@calls("end_attempt")
def end_with_1(store: Store, clock: Clock) -> Call:
    return _end(begin_run(store), 1, reason="exit code 1")


@calls("end_attempt")
def end_that_is_retried(store: Store, clock: Clock) -> Call:
    return _end(begin_run(store, retry_failed=2), 1)


@calls("end_attempt")
def end_by_preemption(store: Store, clock: Clock) -> Call:
    return _end(begin_run(store), None, signal=15, preempted=True)


@calls("end_attempt")
def end_after_the_lease_ran_out(store: Store, clock: Clock) -> Call:
    return _end(begin_and_lapse(store, clock), 0)


@calls("end_attempt")
def end_by_preemption_after_the_lease_ran_out(store: Store, clock: Clock) -> Call:
    return _end(begin_and_lapse(store, clock), 1)


@calls("end_and_claim")
def end_one_run_and_claim_the_next(store: Store, clock: Clock) -> Call:
    agent = begin_run(store)
    end, claim = EndRequest(agent.run.token, 0), agent.request(make_offer(2, first=1))

    def call() -> tuple[EndAnswer, ClaimAnswer]:
        ended, claimed = store.end_and_claim(end, claim)
        return replace(ended, hold=Hold.ENDED), claimed

    return call


@calls("append_output")
def append_output(store: Store, clock: Clock) -> Call:
    token = begin_run(store).run.token
    store.append_output(token, "first\n", piece=1)
    return lambda: store.append_output(token, "second\n", piece=2)


@calls("finish_run")
def finish_run(store: Store, clock: Clock) -> Call:
    token = store.init_run(run_id="alone", resume="", nonce="script.1").token
    assert token is not None
    return lambda: replace(store.finish_run(token, exit_code=0), hold=Hold.ENDED)


@calls("adopt")
def adopt(store: Store, clock: Clock) -> Call:
    return begin_and_lapse(store, clock).adopt


@calls("release")
def register(store: Store, clock: Clock) -> Call:
    begin_run(store)
    newer = Agent(store, "a", session="newer", register=False)

    def call() -> None:
        newer.register()  # the second answer does not name the released runs again

    return call


@calls("leave")
def leave(store: Store, clock: Clock) -> Call:
    return begin_run(store).leave


@calls("stop_run")
def stop_a_running_run(store: Store, clock: Clock) -> Call:
    begin_run(store)
    return lambda: store.stop_run("run0", reason="stopped by user")


@calls("stop_run")
def stop_a_pending_run(store: Store, clock: Clock) -> Call:
    begin_run(store)
    return lambda: store.stop_run("run2", reason="stopped by user")


@calls("retry_run")
def retry(store: Store, clock: Clock) -> Call:
    begin_run(store).end(1)

    def call() -> None:
        store.retry_runs(SWEEP, ["run0"])  # the second answer does not name the run: it waits already

    return call


@calls("remove_runs")
def remove(store: Store, clock: Clock) -> Call:
    begin_run(store).end(1)

    def call() -> None:
        store.remove_runs(["run0", "run1"])  # the second answer counts what it removed: nothing

    return call


def _command(command: SweepCommand) -> Scene:
    def scene(store: Store, clock: Clock) -> Call:
        begin_run(store)
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
    kept = {key: value for key, value in content.items() if not key.endswith((":seen", ":leases", ":askers"))}
    for key, value in kept.items():
        if isinstance(value, dict):
            kept[key] = {name: text for name, text in value.items() if name != "heard"}
    return kept


def test_every_script_is_repeated_here() -> None:
    """A new transition brings its scene along."""
    scripts = {entry.name.removesuffix(".lua") for entry in (files("resweep_scheduler.store") / "lua").iterdir()}
    assert {script for script, _ in SCENES.values()} == scripts - {"shared"}
