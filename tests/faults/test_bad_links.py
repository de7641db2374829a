"""The link between one agent, its script and Redis loses, holds or delays what passes through it, or is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import processes
from support.agents import wait_for_death
from support.network import separate_network, server_in
from support.proxy import FaultProxy, Mode, fault_proxy, load_scripts
from support.scene import let_pass, play
from support.servers import Server
from support.training import Training
from support.waiting import wait_until

from resweep_scheduler.store.states import RunState

LEASE = 3.0

UNHURRIED: dict[str, Any] = {"lease": 30.0, "heartbeat": 0.5}
"""Where nothing is about a lease that runs out: an agent that a busy machine holds up keeps its run."""

USED = (
    "append_output",
    "claim",
    "commit_checkpoint",
    "end_and_claim",
    "heartbeat",
    "init_run",
    "leave",
    "log",
    "mark_preempting",
    "release",
    "update_config",
)
"""The scripts that agents and scripts call when nothing unusual happens."""

BEFORE_THE_GATE = ("claim", "release")
"""Later runs are claimed with the report of the one before them."""


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Five steps, with a gate before the third."""
    return Training(tmp_path / "trace", steps=5, gate_step=2)


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with server.client() as client:
        load_scripts(client)
    with fault_proxy(server.port) as proxy:
        yield proxy


@pytest.mark.parametrize("name", USED)
def test_a_lost_reply_to_an_agent_or_its_script_has_no_doubled_effect(
    name: str, tmp_path: Path, server: Server, proxy: FaultProxy
) -> None:
    """It is lost when the first of two runs stands at its gate, or before."""
    training = Training(tmp_path / "trace", steps=3, gate_step=1, mark="start")
    if name in BEFORE_THE_GATE:
        proxy.cut_reply_of(name)
    with play(tmp_path, server.url, training, points=2, agent_url=proxy.url, start=[["one"]]) as scene:
        scene.wait_at_gate()
        if name not in BEFORE_THE_GATE:
            proxy.cut_reply_of(name)
        if name == "heartbeat":  # the rest may be over before the next one is due
            wait_until(lambda: proxy.lost[name] == 1, timeout=60, description="the heartbeat whose reply is lost")
        training.open_gate()
        scene.wait_for_end()

        assert proxy.lost[name] == 1
        scene.check()
        assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 2
        for run in scene.runs():
            printed = "".join(chunk.text for chunk in scene.store.output(run.run_id))
            assert [printed.count(f"step {step}") for step in range(3)] == [1, 1, 1]


def test_lost_replies_to_everything_at_once_have_no_doubled_effect(
    tmp_path: Path, server: Server, proxy: FaultProxy
) -> None:
    training = Training(tmp_path / "trace", steps=3, mark="start")
    for name in USED:
        proxy.cut_reply_of(name)
    with play(
        tmp_path, server.url, training, points=4, agent_url=proxy.url, start=[["one"], ["two"]], **UNHURRIED
    ) as scene:
        scene.wait_for_end()

        assert proxy.lost == dict.fromkeys(USED, 1)
        scene.check()
        assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 4


def test_a_lost_reply_to_an_adoption_has_no_doubled_effect(
    tmp_path: Path, server: Server, proxy: FaultProxy, training: Training
) -> None:
    """The lease runs out while the link is stalled; the run has crashed, nobody takes it, and its owner comes back."""
    with play(tmp_path, server.url, training, agent_url=proxy.url, start=[["one"]]) as scene:
        (child,) = scene.wait_at_gate()
        proxy.set_mode(Mode.STALL)
        # Somebody must be heard, or the time does not count (promise 5).
        assert scene.agents.start("two", url=server.url).wait() == 0
        assert scene.only_run().state is RunState.CRASHED
        proxy.cut_reply_of("adopt")
        proxy.set_mode(Mode.PASS)
        scene.wait_for_event("adopted")
        training.open_gate()
        scene.wait_for_end()

        assert proxy.lost["adopt"] == 1
        scene.check()
        assert len(scene.events("adopted")) == 1
        assert [trace.pid for trace in training.traces()] == [child.pid]


def test_replies_that_vanish_for_longer_than_a_lease_disturb_no_run(
    tmp_path: Path, server: Server, proxy: FaultProxy, training: Training
) -> None:
    """Every call is executed, and none is answered: all of them are made again."""
    with play(tmp_path, server.url, training, points=2, agent_url=proxy.url, start=[["one"], ["two"]]) as scene:
        scene.wait_at_gate(count=2)
        proxy.set_mode(Mode.DROP_REPLIES)
        training.open_gate()
        let_pass(1.5 * LEASE)
        proxy.set_mode(Mode.PASS)
        scene.wait_for_end()

        scene.check()
        assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 2


def test_a_slow_link_slows_down_and_breaks_nothing(tmp_path: Path, server: Server, proxy: FaultProxy) -> None:
    training = Training(tmp_path / "trace", steps=3)
    proxy.set_mode(Mode.DELAY, seconds=0.1)
    agents = [["one"], ["two"]]
    with play(tmp_path, server.url, training, points=2, agent_url=proxy.url, start=agents, **UNHURRIED) as scene:
        scene.wait_for_end()

        scene.check()
        assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 2


def test_requests_that_arrive_after_another_agent_took_over_do_nothing(
    tmp_path: Path, server: Server, proxy: FaultProxy, training: Training
) -> None:
    """What the first agent and its script sent into a stalled link is delivered when the run is somebody else's."""
    with play(tmp_path, server.url, training, agent_url=proxy.url, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        proxy.set_mode(Mode.STALL)
        scene.agents.start("two", url=server.url)
        (second,) = scene.wait_at_gate(attempt=2)
        proxy.set_mode(Mode.PASS)
        wait_for_death([first.pid])
        assert processes.alive(second.pid)
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        run = scene.only_run()
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "two")


def test_an_end_that_arrives_after_another_agent_took_over_does_nothing(
    tmp_path: Path, server: Server, proxy: FaultProxy, training: Training
) -> None:
    """The first child makes all its steps behind the stalled link; the second attempt's rows are what counts."""
    with play(tmp_path, server.url, training, agent_url=proxy.url, start=[["one", "--preemptible"]]) as scene:
        scene.wait_at_gate()
        proxy.set_mode(Mode.STALL)
        training.open_gate()
        scene.wait_for(training.done, description="the first child's last step")
        scene.agents.start("two", url=server.url)
        scene.wait_for_runs(RunState.FINISHED)
        proxy.set_mode(Mode.PASS)
        scene.wait_for_end()

        scene.check()
        run = scene.only_run()
        assert (run.attempt, run.agent) == (2, "two")
        assert [row.attempt for row in scene.store.history(run.run_id)] == [1, 1, 2, 2, 2]


def test_an_agent_cut_off_for_longer_than_a_lease_loses_its_run_to_one_that_is_not(
    tmp_path: Path, training: Training
) -> None:
    with separate_network() as network, server_in(tmp_path, network) as server:
        inside = f"redis://{network.server_address}:{server.port}/0"
        with play(tmp_path, server.url, training) as scene:
            scene.agents.start("far", "--preemptible", url=inside, prefix=network.inside([]))
            (first,) = scene.wait_at_gate()
            network.cut()
            scene.agents.start("near")
            (second,) = scene.wait_at_gate(attempt=2)
            assert processes.alive(first.pid), "an agent that cannot know of its loss keeps its child"
            network.heal()
            wait_for_death([first.pid])
            assert processes.alive(second.pid)
            training.open_gate()
            scene.wait_for_end()

            scene.check()
            run = scene.only_run()
            assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "near")


def test_an_agent_cut_off_alone_keeps_its_run_when_nobody_took_it(tmp_path: Path, training: Training) -> None:
    """The other agent is busy: its heartbeats let the lease run out, and it has no hands for the run."""
    with separate_network() as network, server_in(tmp_path, network) as server:
        inside = f"redis://{network.server_address}:{server.port}/0"
        with play(tmp_path, server.url, training, points=2, lease=10.0) as scene:
            scene.agents.start("near")
            scene.wait_at_gate()
            scene.agents.start("far", "--preemptible", url=inside, prefix=network.inside([]))
            scene.wait_at_gate(count=2)
            network.cut()
            scene.wait_for_event("preempted")
            network.heal()
            scene.wait_for_event("adopted")
            training.open_gate()
            scene.wait_for_end()

            scene.check()
            assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 1)] * 2
            assert len(training.traces()) == 2
