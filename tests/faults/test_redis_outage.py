"""Redis is killed, frozen or rolled back: no healthy run is stopped, none is doubled (promise 5)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support import processes
from support.agents import wait_for_death
from support.scene import PATIENCE, Scene, let_pass, play
from support.servers import Server
from support.training import Training

from resweep.sync import sync
from resweep_scheduler.store.states import RunState

LEASE = 3.0
OWNERS_LEASE = 9.0
"""Where another agent could take the run: its owner has time to be heard, also when a busy machine holds it up."""

SHORT, LONG = OWNERS_LEASE / 3, 3 * OWNERS_LEASE  # seconds of an outage


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Five steps, with a gate before the third."""
    return Training(tmp_path / "trace", steps=5, gate_step=2)


def assert_nobody_was_disturbed(scene: Scene) -> None:
    """Every run was executed once, from its start to its end, by one child."""
    assert [run.attempt for run in scene.runs()] == [1] * len(scene.runs())
    assert {run.state for run in scene.runs()} == {RunState.FINISHED}
    assert len(scene.training.traces()) == len(scene.runs())


@pytest.mark.parametrize("seconds", [SHORT, LONG], ids=["shorter-than-a-lease", "three-leases"])
def test_redis_killed_and_started_again_disturbs_no_run(
    tmp_path: Path, server: Server, training: Training, seconds: float
) -> None:
    names = [["one", "--preemptible"], ["two"]]
    with play(tmp_path, server.url, training, points=4, lease=OWNERS_LEASE, heartbeat=0.5, start=names) as scene:
        first = scene.wait_at_gate(count=2)
        server.kill()
        let_pass(seconds)
        assert all(processes.alive(trace.pid) for trace in first)
        server.start()
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert_nobody_was_disturbed(scene)


def test_an_idle_agent_takes_nobody_s_run_after_an_outage(tmp_path: Path, server: Server, training: Training) -> None:
    """The idle agent is the first to be heard; the owner must still have time to be heard, too."""
    with play(
        tmp_path, server.url, training, lease=OWNERS_LEASE, heartbeat=0.5, start=[["busy", "--preemptible"]]
    ) as scene:
        scene.wait_at_gate()
        scene.agents.start("idle")
        scene.wait_for(
            lambda: any(agent.waiting for agent in scene.store.agents(scene.sweep_id)), description="an idle agent"
        )
        server.kill()
        let_pass(1.5 * OWNERS_LEASE)
        server.start()
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert_nobody_was_disturbed(scene)


def test_runs_that_come_to_their_end_while_redis_is_away_are_reported_when_it_is_back(
    tmp_path: Path, server: Server, training: Training
) -> None:
    with play(tmp_path, server.url, training, points=2, lease=LEASE, start=[["one"], ["two"]]) as scene:
        first = scene.wait_at_gate(count=2)
        server.kill()
        training.open_gate()
        scene.wait_for(
            lambda: len(training.done()) == len(first), description="children that have made all their steps"
        )
        let_pass(SHORT)
        server.start()
        scene.wait_for_end()

        scene.check()
        assert_nobody_was_disturbed(scene)


def test_rows_that_a_script_could_not_send_before_its_end_are_sent_by_sync(
    tmp_path: Path, server: Server, training: Training
) -> None:
    with play(tmp_path, server.url, training, lease=LEASE) as scene:
        scene.agents.start("one", environment={"RESWEEP_FINISH_TIMEOUT": "0.5"})
        (child,) = scene.wait_at_gate()
        server.kill()
        training.open_gate()
        wait_for_death([child.pid], timeout=PATIENCE)
        server.start()
        scene.wait_for_end()
        assert [row.step for row in scene.store.history(child.run_id)] == [0, 1]

        sync(scene.agents.directory, server.url)

        scene.check()
        assert_nobody_was_disturbed(scene)


def test_redis_frozen_for_longer_than_a_lease_disturbs_no_run(
    tmp_path: Path, server: Server, training: Training
) -> None:
    """Its clients time out and repeat their calls; when it wakes it executes all of them."""
    with play(tmp_path, server.url, training, points=4, lease=LEASE, start=[["one"], ["two"]]) as scene:
        scene.wait_at_gate(count=2)
        server.freeze()
        let_pass(1.5 * LEASE)
        server.thaw()
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert_nobody_was_disturbed(scene)


class Backup:
    """The data of a server as they were once."""

    def __init__(self, server: Server, directory: Path) -> None:
        self._server = server
        self._kept = directory / f"backup-{os.urandom(4).hex()}"
        # What is appended while this copies is cut off at the last whole command when the server loads it.
        shutil.copytree(server.directory / "appendonlydir", self._kept)

    def restore(self) -> None:
        """Stop the server and start it on the old data."""
        self._server.stop()
        shutil.rmtree(self._server.directory / "appendonlydir")
        shutil.copytree(self._kept, self._server.directory / "appendonlydir")
        self._server.start()


def test_redis_rolled_back_to_before_the_claims_gives_each_owner_its_run_back(
    tmp_path: Path, server: Server, training: Training
) -> None:
    training.gate_step = 0
    with play(tmp_path, server.url, training, points=2, lease=LEASE) as scene:
        backup = Backup(server, tmp_path)
        scene.agents.start("one")
        scene.wait_at_gate()
        backup.restore()
        training.open_gate()
        scene.wait_for_end()

        scene.check(rolled_back=True)
        assert [run.state for run in scene.runs()] == [RunState.FINISHED] * 2


def test_redis_rolled_back_while_runs_are_owned_loses_and_doubles_no_run(
    tmp_path: Path, server: Server, training: Training
) -> None:
    """The backup knows the claims; rows that were logged after it are lost with it, and so are not asked for."""
    with play(tmp_path, server.url, training, points=3, lease=LEASE, start=[["one"], ["two"]]) as scene:
        scene.wait_at_gate(count=2)
        backup = Backup(server, tmp_path)
        backup.restore()
        training.open_gate()
        scene.wait_for_end()

        scene.check(rolled_back=True)
        assert_nobody_was_disturbed(scene)


def test_redis_rolled_back_to_an_earlier_attempt_leaves_the_run_to_the_later_one(
    tmp_path: Path, server: Server, training: Training
) -> None:
    """The backup shows the first attempt as the owner; meanwhile the second one has the run."""
    with play(tmp_path, server.url, training, lease=LEASE, start=[["one", "--preemptible"]]) as scene:
        scene.wait_at_gate()
        backup = Backup(server, tmp_path)
        scene.agents.all[0].kill()
        scene.agents.start("two")
        (second,) = scene.wait_at_gate(attempt=2)
        backup.restore()
        scene.wait_for_event("adopted")
        training.open_gate()
        scene.wait_for_end()

        scene.check(rolled_back=True)
        run = scene.only_run()
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "two")
        assert [trace.pid for trace in training.done()] == [second.pid]


def test_redis_rolled_back_to_before_a_run_ended_ends_it_again(
    tmp_path: Path, server: Server, training: Training
) -> None:
    """The end is lost, and its agent has gone on: the run is executed again rather than never ended."""
    with play(tmp_path, server.url, training, points=2, lease=LEASE, start=[["one", "--preemptible"]]) as scene:
        scene.wait_at_gate()
        backup = Backup(server, tmp_path)
        training.open_gate()
        scene.wait_for_runs(RunState.FINISHED, count=2)
        backup.restore()
        scene.agents.start("two")
        scene.wait_for_end()

        scene.check(rolled_back=True)
        assert [run.state for run in scene.runs()] == [RunState.FINISHED] * 2
