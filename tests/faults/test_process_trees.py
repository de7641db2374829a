"""Distributed runs: a launcher and its workers, some in sessions of their own, are told together and end together.

The launcher stands for those that users have: torchrun forwards signals to workers that lead sessions of their own, a
shell dies of them at once and leaves its children alone, others are deaf.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support import processes
from support.agents import wait_for_death
from support.checks import check_promises
from support.children import PATIENCE, Small, small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import RunState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes outside the group are found in /proc")

RANKS = 4

LAUNCHER = """
import subprocess
if attempt == 2:
    sys.exit(0)
if "RANK" not in os.environ:
    how = params["a"]
    workers = [
        subprocess.Popen(
            [sys.executable, *sys.argv], env={**os.environ, "RANK": str(rank)}, start_new_session=rank % 2 == 1
        )
        for rank in range(4)
    ]
    if how == "forwards":
        signal.signal(signal.SIGTERM, lambda number, frame: [worker.send_signal(number) for worker in workers])
    if how == "is deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    trace("begun", workers=[worker.pid for worker in workers])
    sys.exit(max(abs(worker.wait()) for worker in workers))
rank = os.environ["RANK"]
"""

SAVES = (
    LAUNCHER
    + """
def told(number, frame):
    told.count += 1
    trace(f"told-{rank}", count=told.count)

told.count = 0
signal.signal(signal.SIGTERM, told)
trace(f"ready-{rank}")
wait_for("may-end", seconds=120)
trace(f"saved-{rank}")
sys.exit(1)
"""
)

DEAF = (
    LAUNCHER
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
trace(f"ready-{rank}")
wait_for("may-end", seconds=120)
"""
)


def begun(sweep: Small) -> list[int]:
    """The launcher and its workers, once all of them listen."""
    found = sweep.wait_for("begun")
    for rank in range(RANKS):
        sweep.wait_for(f"ready-{rank}")
    return [found["pid"], *found["workers"]]


def traces(sweep: Small, name: str) -> list[Any]:
    return [trace for rank in range(RANKS) if (trace := sweep.trace(f"{name}-{rank}"))]


def wait_until_told(sweep: Small) -> None:
    wait_until(lambda: len(traces(sweep, "told")) == RANKS, timeout=PATIENCE, description="the signal in every worker")


@pytest.mark.parametrize("launcher", ["forwards", "is deaf", "dies of it"])
def test_every_worker_is_told_and_may_use_the_grace(server: Server, tmp_path: Path, launcher: str) -> None:
    with small_sweep(server, tmp_path / "w", SAVES, values=[launcher]) as sweep:
        agent = sweep.agents.start("a", "--grace", "300")
        pids = begun(sweep)
        agent.send(signal.SIGTERM)
        wait_until_told(sweep)
        if launcher == "dies of it":
            wait_for_death(pids[:1])
        assert all(processes.alive(pid) for pid in pids[1:])
        # The script is told though Redis has not answered yet.
        wait_until(lambda: sweep.runs()[0].state is RunState.PREEMPTING, timeout=PATIENCE, description="the mark")
        sweep.open("may-end")
        assert agent.wait() == ExitCode.PREEMPTED
        wait_for_death(pids)
        assert len(traces(sweep, "saved")) == RANKS
        # A launcher that forwards it makes it come twice, or once where the first had not been seen yet.
        assert {trace["count"] for trace in traces(sweep, "told")} <= ({1, 2} if launcher == "forwards" else {1})
        (run,) = sweep.runs()
        assert run.state is RunState.PREEMPTED
        assert run.signal == (signal.SIGTERM if launcher == "dies of it" else None)
        # 15: the second of two signals met a worker that had saved and was about to exit with 1.
        assert run.exit_code in ((None,) if launcher == "dies of it" else (1, 15))
        assert sweep.agents.start("b").wait() == ExitCode.OK
        check_promises(sweep.store, sweep.sweep_id)


@pytest.mark.parametrize("launcher", ["forwards", "is deaf", "dies of it"])
def test_no_worker_survives_the_grace(server: Server, tmp_path: Path, launcher: str) -> None:
    with small_sweep(server, tmp_path / "w", DEAF, values=[launcher]) as sweep:
        agent = sweep.agents.start("a", "--grace", "1")
        pids = begun(sweep)
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        wait_for_death(pids)
        assert sweep.states() == ["preempted"]


@pytest.mark.parametrize("when", ["while it trains", "while it saves"])
def test_no_worker_survives_an_agent_that_is_killed(server: Server, tmp_path: Path, when: str) -> None:
    lease = {"duration": 3, "heartbeat": 0.5}
    with small_sweep(server, tmp_path / "w", SAVES, values=["dies of it"], lease=lease) as sweep:
        agent = sweep.agents.start("a", "--grace", "300", "--preemptible")
        pids = begun(sweep)
        if when == "while it saves":
            agent.send(signal.SIGTERM)
            wait_until_told(sweep)
        agent.kill()
        wait_for_death(pids)
        assert sweep.agents.start("b").wait() == ExitCode.OK
        assert sweep.states() == ["finished"]
        check_promises(sweep.store, sweep.sweep_id)


def test_a_launcher_that_is_killed_takes_its_workers_along(server: Server, tmp_path: Path) -> None:
    """Nobody asked it to end: its workers have no use any more."""
    with small_sweep(server, tmp_path / "w", SAVES, values=["forwards"]) as sweep:
        agent = sweep.agents.start("a")
        pids = begun(sweep)
        os.kill(pids[0], signal.SIGKILL)
        assert agent.wait() == ExitCode.OK
        wait_for_death(pids)
        assert sweep.states() == ["crashed"]
        assert not traces(sweep, "told")


def test_a_run_that_is_stopped_ends_in_all_its_processes(server: Server, tmp_path: Path) -> None:
    with small_sweep(server, tmp_path / "w", SAVES, values=["dies of it"]) as sweep:
        agent = sweep.agents.start("a", "--grace", "300")
        pids = begun(sweep)
        sweep.store.stop_run(sweep.runs()[0].run_id, reason="enough")
        wait_until_told(sweep)
        sweep.open("may-end")
        assert agent.wait() == ExitCode.OK
        wait_for_death(pids)
        assert len(traces(sweep, "saved")) == RANKS
        assert sweep.states() == ["killed"]


RANKS_THAT_LOOK = (
    LAUNCHER
    + """
import resweep
with resweep.init() as run:
    run.log({"rank": int(rank)})
    resweep.log({"rank": int(rank)})
    assert not run.preempting
    trace(f"ready-{rank}")
    assert run.preempting.wait(120)
    state = Path(f"state-{rank}")
    state.touch()
    run.save_checkpoint(state)
    trace(f"saved-{rank}")
    sys.exit(6)
"""
)


def test_all_ranks_see_the_flag_and_only_rank_0_logs_and_saves(server: Server, tmp_path: Path) -> None:
    """And no signal disturbs them: neither the launcher, which would die of it, nor the workers."""
    with small_sweep(server, tmp_path / "w", RANKS_THAT_LOOK, values=["dies of it"]) as sweep:
        agent = sweep.agents.start("a", "--grace", "300")
        begun(sweep)
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert len(traces(sweep, "saved")) == RANKS
        (run,) = sweep.runs()
        assert (run.state, run.exit_code) == (RunState.PREEMPTED, 6)
        assert [row.values for row in sweep.store.history(run.run_id)] == [{"rank": 0}, {"rank": 0}]
        assert run.checkpoint is not None
        assert "state-0" in run.checkpoint.path
