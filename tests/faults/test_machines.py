"""What else a machine does to agents: a full disk, processes that stay behind, many agents at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import processes
from support.agents import agents_of, wait_for_death
from support.calls import Stage
from support.checks import check_promises
from support.scene import PATIENCE, play
from support.servers import Server
from support.training import Training

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import create_sweep
from resweep_scheduler.service.server import ensure_server, server_status, stop_server
from resweep_scheduler.store import ClaimOutcome, Scope, Store
from resweep_scheduler.store.states import RunState, SweepState

NO_LARGE_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A process for which, and for whose children, the disk is full as soon as a file has 4 KB."""


def test_a_disk_that_is_full_for_logs_stops_no_run(tmp_path: Path, server: Server) -> None:
    training = Training(tmp_path / "trace", steps=4, babble=100_000)
    with play(tmp_path, server.url, training, points=2) as scene:
        scene.agents.start("one", prefix=[sys.executable, "-c", NO_LARGE_FILES])
        scene.wait_for_end()

        scene.check()
        for run in scene.runs():
            assert (run.state, run.attempt) == (RunState.FINISHED, 1)
            (log,) = scene.agents.directory.glob(f"resweep-runs/*/{run.run_id}/attempt-1/output.log")
            assert log.stat().st_size == 4096
            assert "step 3" in "".join(chunk.text for chunk in scene.store.output(run.run_id))


def test_rows_survive_a_full_disk_while_redis_is_away(tmp_path: Path, server: Server) -> None:
    """The spill file cannot take them all; what it does not take stays in memory until Redis is back."""
    training = Training(tmp_path / "trace", steps=400, gate_step=2, saves=False, largest_file=4096)
    with play(tmp_path, server.url, training, start=[["one"]]) as scene:
        (child,) = scene.wait_at_gate()
        name = f"resweep-runs/*/{child.run_id}/attempt-1/output.log"
        scene.wait_for(lambda: list(scene.agents.directory.glob(name)), description="the file of its output")
        (log,) = scene.agents.directory.glob(name)
        server.kill()
        training.open_gate()
        # Redis must be away until the disk is full: the sender looks at what waits every two seconds only.
        scene.wait_for(lambda: "cannot write" in log.read_text(), description="a full disk")
        scene.wait_for(training.done, description="the last step")
        server.start()
        scene.wait_for_end()

        scene.check()
        run = scene.only_run()
        assert (run.state, run.attempt) == (RunState.FINISHED, 1)
        assert "cannot write" in "".join(chunk.text for chunk in scene.store.output(run.run_id))


@pytest.mark.parametrize("death", ["script-ends", "script-killed", "agent-killed", "agent-preempted"])
def test_grandchildren_end_with_the_attempt_that_started_them(tmp_path: Path, server: Server, death: str) -> None:
    """Both those in the script's process group and those in sessions of their own."""
    training = Training(tmp_path / "trace", steps=2, gate_step=1, grandchildren=["group", "session", "session"])
    with play(tmp_path, server.url, training, retry={"crashed": 1}, start=[["one", "--preemptible"]]) as scene:
        (first,) = scene.wait_at_gate()
        assert all(processes.alive(pid) for pid in first.grandchildren)
        if death == "script-killed":
            os.kill(first.pid, signal.SIGKILL)
        elif death == "agent-killed":
            scene.agents.all[0].kill()
        elif death == "agent-preempted":
            scene.agents.all[0].send(signal.SIGTERM)
            assert scene.agents.all[0].wait() == ExitCode.PREEMPTED
        else:
            training.open_gate()
        wait_for_death(first.grandchildren)

        training.open_gate()
        scene.agents.start("two")
        scene.wait_for_end()
        scene.check()
        assert scene.only_run().state is RunState.FINISHED
        wait_for_death([pid for trace in training.traces() for pid in trace.grandchildren])


def test_agents_that_reap_at_once_hand_a_lost_run_to_one_of_them(server: Server) -> None:
    """All of them claim in the same moment in which the lease has run out."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for _ in range(9)]
        stores = [Store(client, Scope()) for client in clients[:8]]
        stage = Stage(Store(clients[8], Scope()))
        for index in range(8):
            stage.register(f"agent-{index}", f"agent-{index}a")
        pool = stack.enter_context(ThreadPoolExecutor(8))
        stage.end(stage.begin(), exit_code=0)
        for _ in range(3):
            stage.end(stage.claim("two").token, exit_code=0)
        stage.store.add_runs(stage.sweep_id, stage.offer(4, 200))
        for _ in range(20):
            token = stage.begin()
            stage.store.mark_preempting(token, reason="script")
            leases = stage.store.keys.sweep(stage.sweep_id, "leases")
            stage.store.client.zadd(leases, {token.run_id: 0})
            together = threading.Barrier(8)

            def claim(index: int, together: threading.Barrier = together) -> str | None:
                request = stage.request(f"agent-{index}")
                together.wait(PATIENCE)
                run = stores[index].claim(request).run
                return run.token.run_id if run is not None else None

            taken = list(pool.map(claim, range(8)))
            assert taken.count(token.run_id) == 1
            given = [run_id for run_id in taken if run_id is not None]
            assert len(given) == len(set(given))
            for index in range(8):
                if taken[index] is not None:
                    answer = stage.store.claim(stage.request(f"agent-{index}"))
                    assert answer.outcome is ClaimOutcome.RUN
                    assert answer.run is not None
                    stage.end(answer.run.token, exit_code=0)
                    stage.nonces[f"agent-{index}"] = stage.nonces.get(f"agent-{index}", 1) + 1
        check_promises(stage.store, stage.sweep_id, complete=False)


def test_idle_agents_share_the_runs_of_one_that_was_killed(tmp_path: Path, server: Server) -> None:
    """All of them look for lost leases; each run has one new owner."""
    training = Training(tmp_path / "trace", steps=3, gate_step=1)
    with play(tmp_path, server.url, training, points=2) as scene:
        victim = scene.agents.start("victim", "--slots", "2", "--preemptible")
        first = scene.wait_at_gate(count=2)
        for name in ("one", "two", "three"):
            scene.agents.start(name)
        scene.wait_for(
            lambda: sum(agent.waiting for agent in scene.store.agents(scene.sweep_id)) == 3,
            description="three agents that wait",
        )
        victim.kill()
        wait_for_death([trace.pid for trace in first])
        training.open_gate()
        scene.wait_for_end()

        scene.check()
        assert [(run.state, run.attempt) for run in scene.runs()] == [(RunState.FINISHED, 2)] * 2


def test_sixteen_agents_started_at_once_on_a_cold_embedded_server_share_it(tmp_path: Path) -> None:
    settings = {
        "program": "/bin/true",
        "method": "grid",
        "parameters": {"point": {"values": list(range(32))}},
        "command": ["${program}"],
    }
    before = set(processes.descendants())
    url = ensure_server()
    _, sweep_id = create_sweep(url, parse_sweep(settings), config_text=json.dumps(settings))
    stop_server()
    assert not server_status().running

    with agents_of(tmp_path / "work", sweep_id, url=None, environment={}) as agents:
        for number in range(16):
            agents.start(f"agent-{number}")
        assert [agent.wait(2 * PATIENCE) for agent in agents.all] == [ExitCode.OK] * 16

    with ExitStack() as stack:
        store, _ = create_sweep(url, parse_sweep(settings), config_text="")
        stack.callback(store.client.close)
        assert store.sweep(sweep_id).state is SweepState.FINISHED
        check_promises(store, sweep_id)
        assert [(run.index, run.state, run.attempt) for run in store.runs(sweep_id)] == [
            (index, RunState.FINISHED, 1) for index in range(32)
        ]
        fresh = [process for pid, process in processes.descendants().items() if pid not in before]
        assert len([process for process in processes.living(fresh) if "valkey" in process.command]) == 1
