"""Checkpoints in an object store: processes killed while they send or fetch, attempts that race, a store away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import thaw, wait_for_death
from support.buckets import Hold, S3Server, s3_server
from support.scene import Scene, play
from support.servers import Server
from support.training import Training

from resweep_scheduler.store import Checkpoint
from resweep_scheduler.store.states import RunState


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    with s3_server(tmp_path / "s3") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Redis is never away here, so that a step may wait for its checkpoint's commit however slow the machine is."""
    return Training(tmp_path / "trace", steps=6, mark_timeout=60.0)


def checkpoint_of(scene: Scene) -> Checkpoint:
    checkpoint = scene.only_run().checkpoint
    assert checkpoint is not None
    return checkpoint


def move_to_another_machine(scene: Scene, folder: Path) -> None:
    """Agents that start from now on share no folder with those before."""
    folder.mkdir()
    scene.agents.directory = folder


def checkpoints_in(s3: S3Server) -> set[str]:
    """The folders of checkpoints that have any object, without what makes their names unique."""
    return {key.split("/")[3].rpartition("-")[0] for key in s3.objects()}


def rows_of(scene: Scene) -> list[tuple[int, int]]:
    return [(row.step, row.attempt) for row in scene.store.history(scene.only_run().run_id)]


@pytest.mark.parametrize("part", ["files/", "manifest"])
def test_a_machine_lost_in_the_midst_of_an_upload_and_another_goes_on_from_the_last_committed_one(
    tmp_path: Path, server: Server, s3: S3Server, training: Training, part: str
) -> None:
    hold = Hold(s3, f"PUT .*step-2-attempt-1-.*/{part}")
    sweep: dict[str, Any] = {"checkpoint": {"url": s3.url}}
    with play(tmp_path, server.url, training, start=[["one", "--preemptible"]], **sweep) as scene:
        hold.wait()
        (first,) = training.traces()
        scene.agents.all[0].kill()
        wait_for_death([first.pid])
        hold.release()
        assert checkpoint_of(scene).step == 1
        move_to_another_machine(scene, tmp_path / "two")
        scene.agents.start("two")
        scene.wait_for_end()

        scene.check()
        assert scene.only_run().config["resumed_from"] == 1
        assert rows_of(scene) == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)]
        assert (checkpoint_of(scene).step, checkpoint_of(scene).attempt) == (5, 2)
    assert checkpoints_in(s3) == {"step-4-attempt-2", "step-5-attempt-2"}, "nothing half sent is left"


def test_a_machine_lost_in_the_midst_of_restoring_and_another_goes_on(
    tmp_path: Path, server: Server, s3: S3Server, training: Training
) -> None:
    training.mark, training.gate_step = "start", 3
    sweep: dict[str, Any] = {"checkpoint": {"url": s3.url}}
    with play(tmp_path, server.url, training, start=[["one"]], **sweep) as scene:
        (first,) = scene.wait_at_gate()
        hold = Hold(s3, "GET .*step-2-attempt-1-.*/files/")
        scene.agents.all[0].kill()
        wait_for_death([first.pid])
        move_to_another_machine(scene, tmp_path / "two")
        scene.agents.start("two", "--preemptible")
        hold.wait()
        (second,) = [trace for trace in training.traces() if trace.attempt == 2]
        scene.agents.all[1].kill()
        wait_for_death([second.pid])
        hold.release()
        move_to_another_machine(scene, tmp_path / "three")
        scene.agents.start("three")
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert rows_of(scene) == [(0, 1), (1, 1), (2, 1), (3, 3), (4, 3), (5, 3)]


def test_an_attempt_that_slept_through_its_lease_cannot_commit_what_it_was_sending(
    tmp_path: Path, server: Server, s3: S3Server, training: Training
) -> None:
    hold = Hold(s3, "PUT .*step-2-attempt-1-.*/manifest")
    sweep: dict[str, Any] = {"checkpoint": {"url": s3.url}}
    with play(tmp_path, server.url, training, start=[["one", "--preemptible"]], **sweep) as scene:
        hold.wait()
        (first,) = training.traces()
        frozen = scene.agents.all[0].freeze()
        move_to_another_machine(scene, tmp_path / "two")
        scene.agents.start("two")
        scene.wait_for_runs(RunState.FINISHED)
        theirs = checkpoint_of(scene)
        hold.release()
        # The child wakes before its agent can end it: its upload ends, and it asks for the commit.
        thaw([first.pid])
        thaw(frozen)
        wait_for_death([first.pid], timeout=60)
        scene.wait_for_end()

        scene.check()
        assert checkpoint_of(scene) == theirs
        assert (theirs.step, theirs.attempt) == (5, 2)
        assert {"step-4-attempt-2", "step-5-attempt-2"} <= checkpoints_in(s3)
        assert scene.only_run().config["resumed_from"] == 1


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, server: Server, s3: S3Server, training: Training
) -> None:
    training.mark, training.gate_step = "start", 3
    sweep: dict[str, Any] = {"checkpoint": {"url": s3.url}}
    with play(tmp_path, server.url, training, start=[["one"]], **sweep) as scene:
        (first,) = scene.wait_at_gate()
        # In this folder only: older ones are being removed, and a search that meets one fails.
        (state,) = (s3.folder / checkpoint_of(scene).path.removeprefix("s3://")).rglob("*.state")
        state.write_bytes(state.read_bytes()[:-1] + b"!")
        scene.agents.all[0].kill()
        wait_for_death([first.pid])
        move_to_another_machine(scene, tmp_path / "two")
        scene.agents.start("two")
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        (event,) = scene.events("fallback")
        assert (event.attempt, event.data["lost"], event.data["step"]) == (2, 2, 1)
        assert "has another digest than when it was saved" in event.data["reason"]
        assert scene.only_run().config["resumed_from"] == 1
        assert rows_of(scene) == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)]
    assert checkpoints_in(s3) == {"step-4-attempt-2", "step-5-attempt-2"}


def test_an_object_store_that_is_away_costs_the_checkpoints_of_that_time_and_no_run(
    tmp_path: Path, server: Server, s3: S3Server, training: Training
) -> None:
    s3.watch = lambda line: not ("PUT" in line and "step-1-" in line)
    sweep: dict[str, Any] = {"checkpoint": {"url": s3.url, "keep": 9}}
    with play(tmp_path, server.url, training, start=[["one"]], **sweep) as scene:
        scene.wait_for_end()

        scene.check()
        assert [one.step for one in (checkpoint_of(scene), *checkpoint_of(scene).kept)] == [5, 4, 3, 2, 0]
        output = "".join(piece.text for piece in scene.store.output(scene.only_run().run_id))
        assert "the checkpoint of step 1 was not saved: s3://ckpt/sweeps cannot be used: " in output
        assert s3.environment["AWS_SECRET_ACCESS_KEY"] not in output


def test_credentials_are_nowhere_in_redis(tmp_path: Path, server: Server, s3: S3Server, training: Training) -> None:
    sweep: dict[str, Any] = {"checkpoint": {"url": s3.url}}
    with play(tmp_path, server.url, training, start=[["one"]], **sweep) as scene:
        scene.wait_for_end()
        scene.check()
        assert checkpoint_of(scene).path.startswith(f"{s3.url}/local/uncategorized/")
        assert s3.requests
        log = scene.agents.all[0].printed()
    server.stop()
    stored = b"".join(path.read_bytes() for path in (tmp_path).rglob("*.aof"))
    assert s3.url.encode() in stored
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        assert s3.environment[name].encode() not in stored
        assert s3.environment[name] not in log
