"""What people do to runs: stop, retry, remove."""

from __future__ import annotations

from typing import Any

import pytest
from support.checks import check_promises
from support.stores import SWEEP, Agent, Clock, begin_run, dump, make_offer, make_sweep

from resweep_scheduler.store import (
    ClaimOutcome,
    Hold,
    IllegalTransitionError,
    RunState,
    Store,
    SweepCommand,
    SweepState,
    UnknownRunError,
    UnknownSweepError,
)

PAUSE, RESUME, STOP, CANCEL = SweepCommand.PAUSE, SweepCommand.RESUME, SweepCommand.STOP, SweepCommand.CANCEL


def test_stop_of_a_running_run_goes_through_its_agent(store: Store) -> None:
    """The run stays owned until its agent has ended the child; a failure then is the stop, a success is a success."""
    agent, other = begin_run(store), Agent(store, "other")
    other.take()
    for run_id in ("run0", "run1"):
        assert store.stop_run(run_id, reason="stopped by user") is RunState.RUNNING
    assert agent.heartbeat().stop == "stopped by user"
    answer = agent.end(1)
    assert (answer.state, answer.reason) == (RunState.KILLED, "stopped by user")
    assert other.end(0).state is RunState.FINISHED
    assert store.run("run0").stop == ""
    check_promises(store, SWEEP, complete=False)


def test_stop_of_a_preempting_run(store: Store) -> None:
    """It does not come back on the queue."""
    agent = begin_run(store)
    agent.mark()
    assert store.stop_run("run0", reason="stopped by user") is RunState.PREEMPTING
    assert agent.end(1, preempted=True).state is RunState.KILLED
    assert store.sweep(SWEEP).queue == ()


def test_stop_of_the_last_waiting_run_finishes_the_sweep(store: Store) -> None:
    """A run that waits is killed at once, and when nothing is left the sweep is finished."""
    agent = begin_run(store, runs=2, exhausted=True)
    assert store.stop_run("run1", reason="not needed") is RunState.KILLED
    agent.end(1, preempted=True)
    assert store.stop_run("run0", reason="not needed") is RunState.KILLED
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    assert store.run("run0").reason == "not needed"
    check_promises(store, SWEEP)


def test_stop_of_an_ended_or_unknown_run(store: Store) -> None:
    """An ended run stays as it is; an unknown one is an error."""
    agent = begin_run(store)
    agent.end(0)
    before = dump(store)
    assert store.stop_run("run0", reason="stopped by user") is RunState.FINISHED
    with pytest.raises(UnknownRunError):
        store.stop_run("nope", reason="stopped by user")
    assert dump(store) == before


def test_retry_reopens_a_finished_sweep(store: Store) -> None:
    """Only what ended badly is retried; the sweep runs again, finishes again, and asks for nothing new."""
    agent = begin_run(store, runs=4, exhausted=True)
    ends: list[dict[str, Any]] = [{"exit_code": 1}, {"exit_code": None}, {"exit_code": 0}]
    for end in ends:
        agent.end(**end)
        agent.take()
    store.stop_run("run3", reason="stopped by user")
    agent.end(None, killed=True)
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    every = [f"run{index}" for index in range(4)]
    assert store.retry_runs(SWEEP, every) == {
        "run0": RunState.FAILED,
        "run1": RunState.CRASHED,
        "run3": RunState.KILLED,
    }
    assert store.sweep(SWEEP).state is SweepState.RUNNING
    assert store.sweep(SWEEP).queue == ("run0", "run1", "run3")
    for _ in range(3):
        agent.take()
        agent.end(0)
    assert agent.claim().outcome is ClaimOutcome.DONE
    check_promises(store, SWEEP)


@pytest.mark.parametrize("command", [STOP, CANCEL])
def test_retry_in_a_sweep_that_was_stopped_runs_only_what_waits_on_the_queue(
    store: Store, command: SweepCommand
) -> None:
    """Whoever retries runs of a stopped sweep wants these, and no new ones."""
    agent = begin_run(store)
    agent.end(1)
    store.command_sweep(SWEEP, command)
    store.retry_runs(SWEEP, ["run0"])
    assert agent.take().token.run_id == "run0"
    agent.end(0)
    assert agent.claim(make_offer(1, first=3)).outcome is ClaimOutcome.DONE
    assert store.sweep(SWEEP).counts[RunState.PENDING] == 2
    check_promises(store, SWEEP)


def test_retry_in_a_paused_sweep_waits(store: Store) -> None:
    """The sweep stays paused, and the run waits on the queue."""
    agent = begin_run(store)
    agent.end(1)
    store.command_sweep(SWEEP, PAUSE)
    store.retry_runs(SWEEP, ["run0"])
    assert store.sweep(SWEEP).state is SweepState.PAUSED
    assert agent.claim().outcome is ClaimOutcome.WAIT


def test_retry_of_a_run_that_was_never_started(store: Store) -> None:
    """A pending run that was killed and is retried begins with its first attempt."""
    agent = begin_run(store)
    store.stop_run("run2", reason="stopped by user")
    store.retry_runs(SWEEP, ["run2"])
    agent.end(0)
    run = agent.take()
    assert (run.token.run_id, run.token.attempt, run.resumed) == ("run2", 1, False)


def test_retry_of_runs_of_another_sweep_is_no_retry(store: Store) -> None:
    """Runs are retried in their own sweep only."""
    agent = begin_run(store)
    agent.end(1)
    make_sweep(store, "sweep2")
    assert store.retry_runs("sweep2", ["run0"]) == {}
    assert store.run("run0").state is RunState.FAILED


def test_removed_run_is_forgotten(store: Store) -> None:
    """Runs that nobody owns are removed from everywhere; owned ones are left alone; the events tell it."""
    agent = begin_run(store, runs=4)
    agent.log(0, summary="{}")
    store.append_output(agent.run.token, "text", piece=1)
    store.commit_checkpoint(agent.run.token, path="/tmp/c", step=0)
    token = agent.run.token
    store.init_run(run_id="run0", resume="allow", nonce=token.nonce, attempt=1, config={"a": 1})
    agent.end(1, preempted=True)
    busy = Agent(store, "busy")
    store.stop_run("run3", reason="stopped by user")
    agent.take()  # run0 again
    busy.take()  # run1
    assert store.remove_runs(["run0", "run1", "run2", "run3", "nope"]) == 2
    assert [run.run_id for run in store.runs(SWEEP)] == ["run0", "run1"]
    agent.end(1, preempted=True)
    assert store.remove_runs(["run0"]) == 1
    assert store.sweep(SWEEP).queue == ()
    assert not [key for key in dump(store) if ":run:run0" in key or ":run:run2" in key]
    with pytest.raises(UnknownRunError):
        store.run("run0")
    assert agent.heartbeat().hold is Hold.GONE
    check_promises(store, SWEEP, complete=False)


def test_removal_of_the_last_waiting_run_finishes_the_sweep(store: Store) -> None:
    """A sweep does not wait for what was removed."""
    agent = begin_run(store, runs=2, exhausted=True)
    agent.end(0)
    store.remove_runs(["run1"])
    assert store.sweep(SWEEP).state is SweepState.FINISHED
    check_promises(store, SWEEP)


def test_a_sweep_that_is_resumed_while_it_is_removed_keeps_what_it_has(store: Store) -> None:
    """A removal that is for sweeps that are over ends with the resumption; 200 runs are removed at a time."""
    agent = begin_run(store, runs=201)
    agent.end(1, preempted=True)
    with pytest.raises(IllegalTransitionError, match="only sweeps that are over"):
        store.remove_sweep(SWEEP, only_over=True)
    assert len(store.runs(SWEEP)) == 201
    store.command_sweep(SWEEP, SweepCommand.STOP)
    run_script = store._run_script

    def resume_after_one(name: str, key: str, **arguments: Any) -> dict[str, Any]:
        answer = run_script(name, key, **arguments)
        if name == "remove_runs":
            store.command_sweep(SWEEP, SweepCommand.RESUME)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_run_script", resume_after_one)
        with pytest.raises(IllegalTransitionError, match="only sweeps that are over"):
            store.remove_sweep(SWEEP, only_over=True)
    assert [run.run_id for run in store.runs(SWEEP)] == ["run200"]
    store.command_sweep(SWEEP, SweepCommand.STOP)
    assert store.remove_sweep(SWEEP, only_over=True) == 1


def test_removed_sweep_leaves_nothing(store: Store, clock: Clock) -> None:
    """Not one key is left when its tokens have expired; a sweep with running runs is not removed."""
    agent = begin_run(store)
    with pytest.raises(IllegalTransitionError, match=f"resweep cancel {SWEEP}"):
        store.remove_sweep(SWEEP)
    assert len(store.runs(SWEEP)) == 3
    agent.log(0, summary="{}")
    agent.end(0)
    agent.leave()
    assert store.remove_sweep(SWEEP) == 3
    clock.advance(3600)
    assert dump(store) == {}
    with pytest.raises(UnknownSweepError):
        store.sweep(SWEEP)
