"""Clocks that jump by ten minutes, of an agent's machine or of the server's: no lease is lost by it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.clocks import FakeClock, fake_clock
from support.scene import Scene, let_pass, play
from support.servers import Server, private_server
from support.training import Training

from resweep_scheduler.store.states import RunState

LEASE = 10.0
"""Seconds; so long that no agent loses a run because a busy machine holds it up."""
JUMP = 600.0
JUMPS = pytest.mark.parametrize("jump", [JUMP, -JUMP], ids=["ahead", "back"])


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Five steps, with a gate before the third."""
    return Training(tmp_path / "trace", steps=5, gate_step=2)


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    return fake_clock(tmp_path)


def assert_nobody_was_disturbed(scene: Scene) -> None:
    scene.check()
    assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 3


@JUMPS
def test_the_clock_of_an_agent_s_machine_jumps(
    tmp_path: Path, server: Server, training: Training, clock: FakeClock, jump: float
) -> None:
    with play(tmp_path, server.url, training, points=3, lease=LEASE, start=[["right"]]) as scene:
        scene.agents.start("jumping", "--preemptible", environment=clock.environment())
        scene.wait_at_gate(count=2)
        clock.jump(jump)
        let_pass(1.2 * LEASE)
        training.open_gate()
        scene.wait_for_end()

        assert_nobody_was_disturbed(scene)


@JUMPS
def test_an_agent_s_machine_whose_clock_was_wrong_all_along(
    tmp_path: Path, server: Server, training: Training, clock: FakeClock, jump: float
) -> None:
    clock.jump(jump)
    training.open_gate()
    with play(tmp_path, server.url, training, points=3, lease=LEASE, start=[["right"]]) as scene:
        scene.agents.start("wrong", environment=clock.environment())
        scene.wait_for_end()

        assert_nobody_was_disturbed(scene)


@JUMPS
def test_the_clock_of_the_server_jumps(
    tmp_path: Path, training: Training, clock: FakeClock, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        with monkeypatch.context() as environment:
            for name, value in clock.environment().items():
                environment.setenv(name, value)
            server = stack.enter_context(private_server(tmp_path))
        scene = stack.enter_context(
            play(tmp_path, server.url, training, points=3, lease=LEASE, start=[["one", "--preemptible"]])
        )
        scene.agents.start("two")
        scene.wait_at_gate(count=2)
        clock.jump(jump)
        scene.wait_for(
            lambda: abs(scene.store.redis_time() / 1000 - time.time() - jump) < JUMP / 2,
            description="the jump of the server's clock",
        )
        let_pass(1.2 * LEASE)
        training.open_gate()
        scene.wait_for_end()

        assert_nobody_was_disturbed(scene)
