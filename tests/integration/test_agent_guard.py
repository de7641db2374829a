"""Whatever becomes of the agent, the tree of its children ends with it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support import processes
from support.agents import wait_for_death
from support.children import Small, small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_agent.guard import Guard
from resweep_scheduler.store import ClaimToken

LEAVES_GRANDCHILDREN = """
import subprocess
def leave(**how):
    return subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], **how).pid
pids = [leave(), leave(start_new_session=True), leave(start_new_session=True, stdout=subprocess.DEVNULL)]
trace(f"begun-{attempt}", pids=[os.getpid(), *pids])
if attempt == 1:
    wait_for("go")
"""


def family(sweep: Small, attempt: int = 1) -> list[int]:
    """The child and its grandchildren, once they run."""
    pids: list[int] = sweep.wait_for(f"begun-{attempt}")["pids"]
    assert all(processes.alive(pid) for pid in pids)
    return pids


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="grandchildren outside the group are found in /proc")


@linux_only
def test_the_whole_tree_dies_with_an_agent_that_is_killed(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", LEAVES_GRANDCHILDREN) as sweep:
        agent = sweep.agents.start("a")
        pids = family(sweep)
        agent.kill()
        wait_for_death(pids)


@linux_only
def test_grandchildren_end_with_the_run_and_keep_no_slot(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", LEAVES_GRANDCHILDREN) as sweep:
        agent = sweep.agents.start("a")
        pids = family(sweep)
        sweep.open("go")
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["finished"]
        wait_for_death(pids)


@linux_only
def test_a_guard_that_dies_is_replaced(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", LEAVES_GRANDCHILDREN) as sweep:
        agent = sweep.agents.start("a")
        pids = family(sweep)

        def guards() -> list[int]:
            return [p.pid for p in processes.descendants().values() if "guard_process" in p.command and p.state != "Z"]

        old = wait_until(guards, description="the guard")
        processes.kill([processes.descendants()[old[0]]])
        wait_until(lambda: set(guards()) - set(old), timeout=15, description="another guard")
        assert processes.alive(pids[0])
        agent.kill()
        wait_for_death(pids)


@linux_only
def test_an_agent_that_is_killed_and_started_again_gets_its_run_back_at_once(
    shared_server: Server, tmp_path: Path
) -> None:
    with small_sweep(shared_server, tmp_path / "w", LEAVES_GRANDCHILDREN) as sweep:
        agent = sweep.agents.start("a", "--preemptible")
        pids = family(sweep)
        agent.kill()
        again = sweep.agents.start("a")
        assert again.wait() == ExitCode.OK
        run = sweep.runs()[0]
        assert (run.state.value, run.attempt) == ("finished", 2)
        wait_for_death(pids)


def test_the_guard_hears_of_an_attempt_before_its_child_exists() -> None:
    guard = Guard()
    guard.start()
    try:
        token = ClaimToken("r", 1, "n.1")
        guard.expect(token)
        guard.ended(token)
        first = guard.pid
        assert first is not None
        processes.kill([processes.descendants()[first]])
        wait_until(lambda: not processes.alive(first), description="the end of the guard")
        guard.expect(token)  # finds the pipe broken
        guard.step()
        assert guard.pid not in (None, first)
    finally:
        guard.close()
    wait_until(
        lambda: not [p for p in processes.descendants().values() if "guard_process" in p.command and p.state != "Z"],
        description="the end of the guard",
    )


def test_a_guard_that_hangs_is_replaced_before_it_holds_up_the_agent() -> None:
    guard = Guard()
    guard.start()
    try:
        first = guard.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        for number in range(5000):
            token = ClaimToken("r", 1, f"n.{number}")
            guard.expect(token)
            guard.ended(token)
        assert guard.pid not in (None, first)
        assert not processes.alive(first)
    finally:
        guard.close()


@linux_only
def test_a_stopped_child_hears_the_notice(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "trace('begun')\nwait_for('go')") as sweep:
        agent = sweep.agents.start("a", "--grace", "20")
        os.kill(sweep.wait_for("begun")["pid"], signal.SIGSTOP)
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.runs()[0].signal == signal.SIGTERM
