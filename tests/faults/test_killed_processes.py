"""Scripts and agents that are killed, frozen, or told to go."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support import processes
from support.agents import thaw, wait_for_death
from support.scene import PATIENCE, Scene, play
from support.servers import Server
from support.training import Training

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store.states import RunState


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Six steps, with a gate before the fourth."""
    return Training(tmp_path / "trace", steps=6, gate_step=3)


def let_another_agent_finish(scene: Scene, training: Training) -> None:
    """The agents before are gone; a new one takes the run, goes on with it and ends it."""
    scene.agents.all.clear()
    scene.agents.start("two")
    scene.wait_at_gate(attempt=2)
    training.open_gate()
    scene.wait_for_end()
    scene.check()


def test_a_script_that_is_killed_has_crashed_and_is_retried_from_its_checkpoint(
    tmp_path: Path, server: Server, training: Training
) -> None:
    with play(tmp_path, server.url, training, start=[["one"]], retry={"crashed": 1}) as scene:
        (first,) = scene.wait_at_gate()
        os.kill(first.pid, signal.SIGKILL)
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_end()

        replay = scene.check()
        (event,) = scene.events("preempted")
        assert (event.data["outcome"], event.data["signal"]) == ("crashed", signal.SIGKILL)
        assert [row.attempt for row in scene.store.history(first.run_id)] == [1, 1, 1, 2, 2, 2]
        assert replay.lives[first.run_id].attempts == [1, 2]


def test_a_killed_script_that_nobody_retries_stays_crashed(tmp_path: Path, server: Server, training: Training) -> None:
    with play(tmp_path, server.url, training, start=[["one"]]) as scene:
        (first,) = scene.wait_at_gate()
        os.kill(first.pid, signal.SIGKILL)
        scene.wait_for_end()

        scene.check()
        run = scene.only_run()
        assert (run.state, run.exit_code, run.signal) == (RunState.CRASHED, None, signal.SIGKILL)


def test_a_script_that_marked_itself_and_is_killed_goes_back_on_the_run_queue(
    tmp_path: Path, server: Server, training: Training
) -> None:
    training.mark = "start"
    with play(tmp_path, server.url, training, start=[["one"]]) as scene:
        (first,) = scene.wait_at_gate()
        os.kill(first.pid, signal.SIGKILL)
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert [event.before for event in scene.events("preempted")] == ["preempting"]
        assert scene.only_run().state is RunState.FINISHED


def test_an_agent_that_is_killed_takes_its_child_along_and_another_one_goes_on(
    tmp_path: Path, server: Server, training: Training
) -> None:
    with play(tmp_path, server.url, training, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        scene.agents.start("two")
        scene.agents.all[0].kill()
        wait_for_death([first.pid])
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        (event,) = scene.events("preempted")
        assert event.data["reason"] == "the lease ran out"
        run = scene.only_run()
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "two")


def test_an_agent_that_is_killed_and_started_again_has_its_run_back_before_the_lease_ends(
    tmp_path: Path, server: Server, training: Training
) -> None:
    """With a lease of ten minutes, that this test ends at all shows that nobody waited for it."""
    with play(tmp_path, server.url, training, lease=600, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        scene.agents.all[0].kill()
        wait_for_death([first.pid])
        scene.agents.start("one")
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        (event,) = scene.events("preempted")
        assert event.data["reason"] == "its agent was started again"


def test_an_agent_frozen_past_its_lease_is_fenced_when_it_wakes_and_nothing_of_it_counts(
    tmp_path: Path, server: Server, training: Training
) -> None:
    with play(tmp_path, server.url, training, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        frozen = scene.agents.all[0].freeze()
        scene.agents.start("two")
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_runs(RunState.FINISHED)
        # The child wakes before its agent can end it, finds the gate open, too, and makes the rest of its steps.
        thaw([first.pid])
        scene.wait_for(lambda: [trace.attempt for trace in training.done() if trace.pid == first.pid] == [1],
                       description="the last step of the child that was frozen")  # fmt: skip
        thaw(frozen)
        wait_for_death([first.pid])
        scene.wait_for_end()

        scene.check()
        run = scene.only_run()
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "two")
        assert [row.attempt for row in scene.store.history(run.run_id)] == [1, 1, 1, 2, 2, 2]


def test_a_child_whose_run_was_taken_while_it_slept_is_killed_even_if_it_does_nothing(
    tmp_path: Path, server: Server, training: Training
) -> None:
    """The gate stays closed: the woken child waits for ever, and its agent must end it."""
    with play(tmp_path, server.url, training, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        frozen = scene.agents.all[0].freeze()
        scene.agents.start("two")
        (second,) = scene.wait_at_gate(attempt=2)
        thaw(frozen)
        wait_for_death([first.pid])
        assert processes.alive(second.pid)
        training.open_gate()
        scene.wait_for_end()

        scene.check()


def test_a_notice_lets_a_script_save_and_puts_its_run_on_the_run_queue(
    tmp_path: Path, server: Server, training: Training
) -> None:
    training.mark = "sigterm"
    with play(tmp_path, server.url, training, start=[["one"]]) as scene:
        (first,) = scene.wait_at_gate()
        scene.agents.all[0].send(signal.SIGTERM)
        assert scene.agents.all[0].wait() == ExitCode.PREEMPTED
        (run,) = scene.wait_for_runs(RunState.PREEMPTED)
        assert (run.exit_code, run.step) == (1, 2)
        assert not processes.alive(first.pid)
        scene.check(complete=False)

        let_another_agent_finish(scene, training)
        assert [row.attempt for row in scene.store.history(first.run_id)] == [1, 1, 1, 2, 2, 2]


def test_a_notice_to_a_script_that_does_not_save_puts_its_run_on_the_run_queue_all_the_same(
    tmp_path: Path, server: Server, training: Training
) -> None:
    training.saves = False
    with play(tmp_path, server.url, training, start=[["one"]]) as scene:
        (first,) = scene.wait_at_gate()
        scene.agents.all[0].send(signal.SIGTERM)
        assert scene.agents.all[0].wait() == ExitCode.PREEMPTED
        (run,) = scene.wait_for_runs(RunState.PREEMPTED)
        assert (run.exit_code, run.signal) == (None, signal.SIGTERM)

        let_another_agent_finish(scene, training)
        assert [row.attempt for row in scene.store.history(first.run_id)] == [2] * 6


def test_a_notice_to_a_script_that_ignores_it_ends_with_sigkill_after_the_grace(
    tmp_path: Path, server: Server, training: Training
) -> None:
    training.mark = "ignore"
    with play(tmp_path, server.url, training, start=[["one", "--grace", "1"]]) as scene:
        (first,) = scene.wait_at_gate()
        scene.agents.all[0].send(signal.SIGTERM)
        assert scene.agents.all[0].wait() == ExitCode.PREEMPTED
        assert not processes.alive(first.pid)
        (run,) = scene.wait_for_runs(RunState.PREEMPTED)
        assert run.signal == signal.SIGKILL
        scene.check(complete=False)


def test_an_agent_replaced_by_one_of_its_name_while_it_was_frozen_gives_way(
    tmp_path: Path, server: Server, training: Training
) -> None:
    with play(tmp_path, server.url, training, lease=600, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        old = scene.agents.all[0]
        frozen = old.freeze()
        scene.agents.start("one")
        (second,) = scene.wait_at_gate(attempt=2)
        thaw(frozen)
        wait_for_death([first.pid], timeout=PATIENCE)
        assert old.wait() == ExitCode.ILLEGAL_STATE
        assert processes.alive(second.pid)
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert [row.attempt for row in scene.store.history(first.run_id)] == [1, 1, 1, 2, 2, 2]


def test_a_notice_while_redis_is_away_is_told_when_it_is_back(
    tmp_path: Path, server: Server, training: Training
) -> None:
    training.mark = "sigterm"
    with play(tmp_path, server.url, training, start=[["one", "--grace", "2"]]) as scene:
        (first,) = scene.wait_at_gate()
        server.kill()
        scene.agents.all[0].send(signal.SIGTERM)
        wait_for_death([first.pid], timeout=PATIENCE)
        server.start()
        assert scene.agents.all[0].wait() == ExitCode.PREEMPTED
        (run,) = scene.wait_for_runs(RunState.PREEMPTED)
        # It was waiting for Redis to take its last rows when the grace was over.
        assert run.signal == signal.SIGKILL
        scene.check(complete=False)

        scene.agents.start("two")
        scene.wait_at_gate(attempt=2)
        training.open_gate()
        scene.wait_for_end()
        scene.check()
