"""Clouds that take machines away: their real addresses, in a network namespace, and a script that knows nothing of it.

Nothing is configured: `sweep-agent SWEEP`, on a machine of that cloud.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentProcess, wait_for_death
from support.metadata import FakeAlibaba, FakeAws, FakeAzure, FakeCloud, FakeGcp, Mood, serving_inside
from support.network import Network, separate_network, server_in
from support.scene import Scene, play
from support.training import Training

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store.states import RunState

STEPS, GATE = 6, 3  # of the plain script


@dataclass(slots=True)
class Cloud:
    """A machine of a cloud, the sweep, and another machine that is in no cloud."""

    scene: Scene
    network: Network
    inside_url: str
    folder: Path

    def start_inside(self, *options: str) -> AgentProcess:
        """An agent on the machine of the cloud, as its user starts it."""
        return self.scene.agents.start(
            "inside",
            *options,
            url=self.inside_url,
            prefix=self.network.inside([]),
            environment={"RESWEEP_NOTICE": "", "TMPDIR": str(self.folder)},
        )

    def wait_until_idle(self, agent: AgentProcess) -> None:
        """Until it has nothing to do, and waits."""
        store, sweep_id = self.scene.store, self.scene.sweep_id
        self.scene.wait_for(
            lambda: any(one.agent == agent.name and one.waiting for one in store.agents(sweep_id)),
            description=f"{agent.name} to wait",
        )

    def wait_at_gate(self) -> None:
        self.scene.wait_for(lambda: list(self.folder.glob("at-gate-*")), description="the script at its gate")

    def open_gate(self) -> None:
        (self.folder / "gate-is-open").touch()

    def pid_at_gate(self) -> int:
        (path,) = self.folder.glob("at-gate-*")
        return int(path.name.removeprefix("at-gate-"))


@contextmanager
def machine_of(cloud: FakeCloud, directory: Path, training: Training | None = None, **more: Any) -> Iterator[Cloud]:
    """A sweep over the plain script (or a `training`), and a machine of the cloud for it."""
    folder = directory / "plain"
    folder.mkdir()
    with ExitStack() as stack:
        network = stack.enter_context(separate_network())
        server = stack.enter_context(server_in(directory, network))
        stack.enter_context(serving_inside(cloud, network.name))
        settings = {"plain": folder, **more} if training is None else more
        scene = stack.enter_context(play(directory, server.url, training or Training(directory / "trace"), **settings))
        yield Cloud(scene, network, f"redis://{network.server_address}:{server.port}/0", folder)


@pytest.mark.parametrize(
    ("fake", "lead", "what"),
    [
        (FakeAws, 120.0, "aws spot terminate"),
        (FakeGcp, 30.0, "gcp preempted"),
        (FakeAzure, 30.0, "azure Preempt"),
        (FakeAlibaba, 300.0, "alibaba release"),
    ],
)
def test_a_run_goes_on_elsewhere_when_its_machine_is_taken_away(
    tmp_path: Path, fake: type[FakeCloud], lead: float, what: str
) -> None:
    cloud = fake()
    with machine_of(cloud, tmp_path, lease=30.0) as machine:
        scene, agent = machine.scene, machine.start_inside()
        machine.wait_at_gate()
        machine.wait_until_idle(scene.agents.start("elsewhere"))
        cloud.raise_notice(lead)
        (preempted,) = scene.wait_for_event("preempted")
        assert agent.wait() == ExitCode.PREEMPTED
        machine.open_gate()
        scene.wait_for_end()

        scene.check(every_step=False)
        assert cloud.ends_at is not None
        assert preempted.at < cloud.ends_at * 1000, "on the run queue before the machine is gone"
        run = scene.only_run()
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "elsewhere")
        assert "".join(chunk.text for chunk in scene.store.output(run.run_id) if chunk.attempt == 2) == (
            f"begins at step {GATE}\n"
        )
        state = json.loads((machine.folder / "state-0.json").read_text())
        assert state["done"] == list(range(STEPS))

        (noted,), (marked,) = scene.events("notice"), scene.events("preempting")
        source, _, detail = what.partition(" ")
        assert (noted.agent, noted.run_id) == ("inside", None)
        assert (noted.data["source"], noted.data["detail"]) == (source, detail)
        assert (marked.run_id, marked.data["reason"], marked.data["source"]) == (run.run_id, f"notice: {what}", source)
        assert 0 < marked.data["lead_ms"] <= lead * 1000
        if isinstance(cloud, FakeAzure):
            assert cloud.acknowledged == ["E-1"]


def test_a_script_that_does_not_listen_is_killed_before_its_machine_is(tmp_path: Path) -> None:
    """The grace of the sweep is longer than the time that is left."""
    cloud, training = FakeAws(), Training(tmp_path / "trace", steps=4, gate_step=2, mark="ignore")
    with machine_of(cloud, tmp_path, training, preemption={"grace": 300}) as machine:
        scene = machine.scene
        machine.start_inside()
        (first,) = scene.wait_at_gate()
        cloud.raise_notice(20.0)
        (preempted,) = scene.wait_for_event("preempted")
        wait_for_death([first.pid])
        assert cloud.ends_at is not None
        assert preempted.at < cloud.ends_at * 1000
        training.open_gate()
        scene.agents.start("elsewhere")
        scene.wait_for_end()

        scene.check()
        run = scene.only_run()
        assert (run.state, run.attempt) == (RunState.FINISHED, 2)


def test_an_agent_without_a_run_tells_of_its_notice_and_goes(tmp_path: Path) -> None:
    cloud = FakeGcp()
    with machine_of(cloud, tmp_path, lease=30.0) as machine:
        scene = machine.scene
        scene.agents.start("busy")
        machine.wait_at_gate()
        agent = machine.start_inside()
        machine.wait_until_idle(agent)
        cloud.raise_notice(30.0)
        assert agent.wait() == ExitCode.PREEMPTED
        machine.open_gate()
        scene.wait_for_end()

        scene.check(every_step=False)
        assert [event.agent for event in scene.events("notice")] == ["inside"]
        assert scene.only_run().attempt == 1


def test_a_hint_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    cloud = FakeAws()
    cloud.rebalance = True
    with machine_of(cloud, tmp_path) as machine:
        scene = machine.scene
        machine.start_inside()
        (noted,) = scene.wait_for_event("notice")
        machine.open_gate()
        scene.wait_for_end()

        scene.check(every_step=False)
        assert noted.data == {"source": "aws", "detail": "rebalance recommendation", "hint": True}
        run = scene.only_run()
        assert (run.state, run.attempt) == (RunState.FINISHED, 1)


def test_on_a_spot_machine_a_run_whose_machine_vanishes_without_a_word_is_preempted(tmp_path: Path) -> None:
    """Nothing says `--preemptible`; elsewhere the run would be `crashed`."""
    cloud = FakeAws()
    with machine_of(cloud, tmp_path) as machine:
        scene, agent = machine.scene, machine.start_inside()
        machine.wait_at_gate()
        scene.wait_for(
            lambda: scene.store.client.hget(scene.store.keys.run(scene.only_run().run_id), "preemptible") == "1",
            description="a heartbeat that says what machine it is",
        )
        first = machine.pid_at_gate()
        agent.kill()
        wait_for_death([first])
        machine.open_gate()
        scene.agents.start("elsewhere")
        scene.wait_for_end()

        scene.check(every_step=False)
        run = scene.only_run()
        assert (run.state, run.attempt) == (RunState.FINISHED, 2)
        assert [event.kind for event in scene.store.events(scene.sweep_id) if event.attempt == 1][-1] == "preempted"


@pytest.mark.parametrize("mood", ["forbidden", "silent", "garbage"])
def test_whatever_else_is_at_the_address_does_no_harm(tmp_path: Path, mood: Mood) -> None:
    cloud = FakeAws()
    cloud.mood = mood
    with machine_of(cloud, tmp_path, points=2) as machine:
        scene, agent = machine.scene, machine.start_inside()
        scene.wait_for(lambda: cloud.asked, description="the question whose machine this is")
        machine.open_gate()
        scene.wait_for_end()

        scene.check(every_step=False)
        assert agent.wait() == ExitCode.OK
        assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 2
        assert scene.events("notice") == []
        assert "no-notices" not in agent.printed(), "nobody asked for a source by name"


def test_the_question_can_be_switched_off(tmp_path: Path) -> None:
    cloud = FakeAws()
    with machine_of(cloud, tmp_path) as machine:
        machine.start_inside("--notice", "none")
        machine.open_gate()
        machine.scene.wait_for_end()
        machine.scene.check(every_step=False)
        assert cloud.asked == []
