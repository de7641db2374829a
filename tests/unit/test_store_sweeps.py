"""What people ask of sweeps: pause, resume, stop, cancel; and the target of the metric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support.checks import check_promises
from support.stores import SWEEP, Agent, begin_run, dump, make_offer, make_sweep

from resweep_scheduler.store import (
    ClaimOutcome,
    Hold,
    IllegalTransitionError,
    Objective,
    Offer,
    RunState,
    Scope,
    Store,
    SweepCommand,
    SweepIdTakenError,
    SweepSettings,
    SweepState,
    find_sweep,
    list_sweeps,
)

PAUSE, RESUME, STOP, CANCEL = SweepCommand.PAUSE, SweepCommand.RESUME, SweepCommand.STOP, SweepCommand.CANCEL


def test_created_sweep(store: Store) -> None:
    """A new sweep is pending, and has what it was created with."""
    settings = SweepSettings(lease_ms=30_000, heartbeat_ms=5_000, name="n", metric_name="loss", metric_goal="minimize")
    create: dict[str, Any] = {"config_text": "text", "config_json": '{"a": 1}', "settings": settings}
    assert store.create_sweep(sweep_id="s1", nonce="one", **create)
    assert not store.create_sweep(sweep_id="s1", nonce="one", **create)
    sweep = store.sweep("s1")
    assert (sweep.state, sweep.config_text, sweep.config_json, sweep.name) == ("pending", "text", '{"a": 1}', "n")
    assert (sweep.lease_ms, sweep.heartbeat_ms, sweep.created_at) == (30_000, 5_000, store.redis_time())
    assert store.objective("s1") == Objective((("loss", "minimize"),))
    assert set(sweep.counts.values()) == {0}
    assert [event.kind for event in store.events("s1")] == ["created"]


def test_sweep_id_is_used_once_on_a_server(store: Store) -> None:
    """Neither another creation nor another project gets the id, until the sweep is removed."""
    other = Store(store.client, Scope("local", "other"))
    make_sweep(store)
    create: dict[str, Any] = {"config_text": "", "config_json": "{}", "settings": SweepSettings()}
    before = dump(store)
    with pytest.raises(SweepIdTakenError):
        store.create_sweep(sweep_id=SWEEP, nonce="mine", **create)
    with pytest.raises(SweepIdTakenError):
        other.create_sweep(sweep_id=SWEEP, nonce="mine", **create)
    assert dump(store) == before
    assert find_sweep(store.client, SWEEP) == store.scope
    assert list_sweeps(store.client) == {SWEEP: store.scope}
    store.remove_sweep(SWEEP)
    assert other.create_sweep(sweep_id=SWEEP, nonce="mine", **create)


# Commands in every state of a sweep.


def _finish(store: Store) -> None:
    agent = Agent(store, "finisher")
    agent.claim(Offer(0, (), exhausted=True))


STATES: dict[str, Callable[[Store], object]] = {
    "pending": lambda store: None,
    "running": lambda store: Agent(store, "starter").take(make_offer(1)),
    "paused": lambda store: store.command_sweep(SWEEP, PAUSE),
    "finished": _finish,
    "stopped": lambda store: store.command_sweep(SWEEP, STOP),
    "canceled": lambda store: store.command_sweep(SWEEP, CANCEL),
}
REFUSED = None
COMMANDED: dict[SweepCommand, dict[str, SweepState | None]] = {
    PAUSE: {
        "pending": SweepState.PAUSED,
        "running": SweepState.PAUSED,
        "paused": SweepState.PAUSED,
        "finished": REFUSED,
        "stopped": REFUSED,
        "canceled": REFUSED,
    },
    RESUME: {
        "pending": SweepState.RUNNING,
        "running": SweepState.RUNNING,
        "paused": SweepState.RUNNING,
        "finished": SweepState.FINISHED,  # its search is exhausted, and no run waits
        "stopped": SweepState.RUNNING,
        "canceled": SweepState.RUNNING,
    },
    STOP: {
        "pending": SweepState.FINISHED,
        "running": SweepState.FINISHED,
        "paused": SweepState.FINISHED,
        "finished": REFUSED,
        "stopped": SweepState.FINISHED,
        "canceled": REFUSED,
    },
    CANCEL: dict.fromkeys(STATES, SweepState.CANCELED),
}


@pytest.mark.parametrize("command", SweepCommand)
@pytest.mark.parametrize("state", STATES)
def test_every_command_in_every_state(store: Store, state: str, command: SweepCommand) -> None:
    """Allowed commands lead to their state, others are refused and change nothing; the events tell the same."""
    make_sweep(store)
    STATES[state](store)
    expected = COMMANDED[command][state]
    if expected is REFUSED:
        before = dump(store)
        with pytest.raises(IllegalTransitionError, match=rf"{SWEEP} is .*resweep resume {SWEEP}"):
            store.command_sweep(SWEEP, command)
        assert dump(store) == before
    else:
        assert store.command_sweep(SWEEP, command) is expected
        assert store.sweep(SWEEP).state is expected
    check_promises(store, SWEEP, complete=False)


def test_stopped_sweep_lets_running_runs_end(store: Store) -> None:
    """No new run starts, the running one may end; a run that is preempted after the stop waits for a resume."""
    agent = begin_run(store)
    store.command_sweep(SWEEP, STOP)
    assert agent.heartbeat().stop == ""
    idle = Agent(store, "idle")
    answer = idle.claim(make_offer(1, first=3))
    assert (answer.outcome, answer.reason) == (ClaimOutcome.DONE, "stopped")
    assert agent.end(1, preempted=True).state is RunState.PREEMPTED
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    check_promises(store, SWEEP)
    store.command_sweep(SWEEP, RESUME)
    assert [agent.take().index for _ in range(3)] == [0, 1, 2]
    assert agent.claim().outcome is ClaimOutcome.ASK


def test_canceled_sweep_kills_running_runs(store: Store) -> None:
    """Each owner is told by its next heartbeat, and by any other call; exit 0 just before is still finished."""
    agent, other = begin_run(store), Agent(store, "other")
    other.take()
    store.command_sweep(SWEEP, CANCEL)
    assert agent.heartbeat().stop == "canceled"
    assert agent.log(0).stop == "canceled"
    assert agent.mark().stop == "canceled"
    answer = agent.end(None, signal=15, killed=True)
    assert (answer.state, answer.reason) == (RunState.KILLED, "canceled")
    assert other.end(0).state is RunState.FINISHED
    assert agent.claim().outcome is ClaimOutcome.DONE
    check_promises(store, SWEEP)


def test_run_that_was_stopped_before_keeps_its_reason_when_the_sweep_is_canceled(store: Store) -> None:
    """Who looks at the run later learns why it was stopped first."""
    agent = begin_run(store)
    store.stop_run("run0", reason="stopped by user")
    store.command_sweep(SWEEP, CANCEL)
    assert agent.heartbeat().stop == "stopped by user"


def test_stopped_sweep_can_be_canceled(store: Store) -> None:
    """Who does not want to wait for the running runs of a stopped sweep cancels it."""
    agent = begin_run(store)
    store.command_sweep(SWEEP, STOP)
    store.command_sweep(SWEEP, CANCEL)
    assert agent.heartbeat().stop == "canceled"


def test_canceled_sweep_can_be_resumed(store: Store) -> None:
    """What was pending or queued goes on; what was killed stays killed until it is retried."""
    agent = begin_run(store)
    store.command_sweep(SWEEP, CANCEL)
    agent.end(None, killed=True)
    store.command_sweep(SWEEP, RESUME)
    assert [agent.take().index for _ in range(2)] == [1, 2]
    assert store.retry_runs(SWEEP, ["run0"]) == {"run0": RunState.KILLED}
    assert agent.take().token.run_id == "run0"
    assert agent.heartbeat().stop == ""


def test_agents_are_woken_when_a_sweep_ends_or_goes_on(store: Store) -> None:
    """Those who wait learn at once that they can go home, or that there is work."""
    make_sweep(store)
    for name in "abc":
        Agent(store, name)
    wake = store.keys.sweep(SWEEP, "wake")

    def woken(command: SweepCommand) -> int:
        store.client.delete(wake)
        store.command_sweep(SWEEP, command)
        return int(store.client.llen(wake))

    assert [woken(command) for command in (PAUSE, RESUME, STOP)] == [0, 3, 3]


# The target of the metric.


@pytest.mark.parametrize(("goal", "below", "reached"), [("minimize", 0.6, 0.5), ("maximize", 0.4, 0.5)])
def test_target(store: Store, goal: str, below: float, reached: float) -> None:
    """The run that reaches the target closes the search; what is ready is not started, what runs may end."""
    agent = begin_run(store, metric_name="loss", metric_goal=goal, metric_target=0.5)
    other = Agent(store, "other")
    other.take()
    agent.log(0, metric=below)
    assert store.sweep(SWEEP).reason == ""
    agent.log(1, first_seq=2, metric=reached)
    assert store.sweep(SWEEP).reason == "target"
    assert [event.data for event in store.events(SWEEP) if event.kind == "target"] == [{"metric": str(reached)}]
    agent.end(0)
    answer = agent.claim(make_offer(1, first=3))
    assert (answer.outcome, answer.reason) == (ClaimOutcome.WAIT, "others run")
    other.end(1, preempted=True)
    assert agent.take().token.run_id == "run1"  # it was under way, and may reach more
    agent.end(0)
    answer = agent.claim()
    assert (answer.outcome, answer.reason) == (ClaimOutcome.DONE, "target")
    assert store.sweep(SWEEP).counts[RunState.PENDING] == 1
    check_promises(store, SWEEP)


@pytest.mark.parametrize("closed", ["exhausted", "run_cap"])
def test_target_holds_back_runs_also_when_the_search_was_closed_before(store: Store, closed: str) -> None:
    """All points were suggested in one go, and one of the first reaches the target: the rest is not run."""
    if closed == "exhausted":
        agent = begin_run(store, exhausted=True, metric_name="loss", metric_target=0.5)
    else:
        agent = begin_run(store, run_cap=3, metric_name="loss", metric_target=0.5)
    assert store.sweep(SWEEP).reason == closed
    agent.log(0, metric=0.5)
    agent.end(0)
    answer = agent.claim()
    assert (answer.outcome, answer.reason) == (ClaimOutcome.DONE, "target")
    check_promises(store, SWEEP)


def test_target_that_is_reached_by_a_late_row_finishes_the_sweep(store: Store) -> None:
    """The last batch arrives after the end was reported, and nobody asks for runs any more."""
    agent = begin_run(store, metric_name="loss", metric_target=0.5)
    agent.end(0)
    assert store.sweep(SWEEP).state is SweepState.RUNNING
    assert agent.log(0, metric=0.5).hold is Hold.ENDED
    assert (store.sweep(SWEEP).state, store.sweep(SWEEP).reason) == (SweepState.FINISHED, "target")
    check_promises(store, SWEEP)


def test_resumed_sweep_goes_on_beyond_its_target(store: Store) -> None:
    """Who resumes a sweep that reached its target wants more, and is not stopped by the next good run."""
    agent = begin_run(store, metric_name="loss", metric_target=0.5)
    agent.log(0, metric=0.5)
    agent.end(0)
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    assert store.command_sweep(SWEEP, RESUME) is SweepState.RUNNING
    agent.take()
    agent.log(0, metric=0.1)
    agent.end(0)
    assert agent.take().index == 2
    assert agent.end(0).state is RunState.FINISHED
    assert agent.claim().outcome is ClaimOutcome.ASK


def test_record_keeps_the_best_value_of_the_metric(store: Store) -> None:
    """Over all batches and attempts, in the direction of the goal."""
    agent = begin_run(store, metric_name="loss", metric_goal="maximize")
    for number, value in enumerate([0.2, 0.9, 0.5], start=1):
        agent.log(number, first_seq=number, metric=value)
    agent.end(1, preempted=True)
    agent.take()
    agent.log(4, metric=1e-7)
    assert store.run("run0").metric == 0.9
    assert [record.metric for record in store.search_runs(SWEEP)] == [0.9, None, None]
