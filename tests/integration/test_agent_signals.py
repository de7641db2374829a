"""What signals and people do to agents and to the runs that they execute."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from support import processes
from support.agents import wait_for_death
from support.children import Small, small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import RunState, SweepCommand

SAVES = """
def save(number, frame):
    trace("saved", signal=number)
    sys.exit(1)

for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, save)
if attempt == 1:
    trace("begun")
    wait_for("go")
"""
IGNORES = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
trace("begun")
wait_for("go")
"""
DIES = """
if attempt == 1:
    trace("begun")
    wait_for("go")
"""


def begun(sweep: Small) -> int:
    """Wait until the child runs; its process id."""
    return int(sweep.wait_for("begun")["pid"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_notice_lets_the_script_save_and_requeues_its_run(
    shared_server: Server, tmp_path: Path, number: signal.Signals
) -> None:
    with small_sweep(shared_server, tmp_path / "w", SAVES) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        agent.send(number)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.trace("saved")
        run = sweep.runs()[0]
        assert (run.state, run.exit_code, run.reason) == (RunState.PREEMPTED, 1, f"notice: {number.name}")
        assert sweep.store.sweep(sweep.sweep_id).queue == (run.run_id,)
        assert sweep.kinds() == ["suggested", "claimed", "preempting", "preempted"]


@pytest.mark.parametrize(("script", "state"), [(SAVES, "failed"), (DIES, "crashed")], ids=["saves", "dies"])
def test_without_preemptible_a_notice_only_ends_the_run(
    shared_server: Server, tmp_path: Path, script: str, state: str
) -> None:
    with small_sweep(shared_server, tmp_path / "w", script) as sweep:
        agent = sweep.agents.start("a", "--no-preemptible")
        begun(sweep)
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.states() == [state]


def test_a_script_that_knows_nothing_of_signals_is_requeued_too(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", DIES) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert (sweep.states(), sweep.runs()[0].signal) == (["preempted"], signal.SIGTERM)
        assert sweep.agents.start("b").wait() == ExitCode.OK
        assert (sweep.states(), sweep.runs()[0].attempt) == (["finished"], 2)


def test_a_script_that_ignores_the_signal_is_killed_after_the_grace(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", IGNORES) as sweep:
        agent = sweep.agents.start("a", "--grace", "0.3")
        pid = begun(sweep)
        told = time.monotonic()
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert time.monotonic() - told >= 0.3
        assert not processes.alive(pid)
        assert (sweep.states(), sweep.runs()[0].signal) == (["preempted"], signal.SIGKILL)


def test_the_config_chooses_the_signal_and_the_grace(shared_server: Server, tmp_path: Path) -> None:
    preemption = {"signal": "SIGUSR1", "grace": 20}
    with small_sweep(shared_server, tmp_path / "w", SAVES, preemption=preemption) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert (sweep.trace("saved") or {})["signal"] == signal.SIGUSR1


def test_an_idle_agent_takes_the_run_of_a_preempted_one_at_once(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", SAVES) as sweep:
        leaving = sweep.agents.start("leaving")
        begun(sweep)
        idle = sweep.agents.start("idle")
        wait_until(
            lambda: any(record.waiting for record in sweep.store.agents(sweep.sweep_id)),
            description="an agent that waits",
        )
        leaving.send(signal.SIGTERM)
        assert leaving.wait() == ExitCode.PREEMPTED
        assert idle.wait() == ExitCode.OK
        run = sweep.runs()[0]
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "idle")


def test_all_slots_get_the_notice(shared_server: Server, tmp_path: Path) -> None:
    script = "trace(f'begun-{params[\"a\"]}')\nif attempt == 1:\n    wait_for('go')"
    with small_sweep(shared_server, tmp_path / "w", script, values=[0, 1, 2]) as sweep:
        agent = sweep.agents.start("a", "--slots", "3")
        wait_until(lambda: all(sweep.trace(f"begun-{n}") for n in range(3)), description="three children")
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.states() == ["preempted"] * 3


def test_one_ctrl_c_lets_the_run_finish_and_takes_no_other(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", DIES, values=[0, 1]) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        agent.send(signal.SIGINT)
        wait_until(lambda: "Ctrl-C" in agent.printed(), description="the word of the agent")
        sweep.open("go")
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["finished"]


def test_a_second_ctrl_c_gives_the_run_back(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", DIES) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        agent.send(signal.SIGINT)
        wait_until(lambda: "Ctrl-C" in agent.printed(), description="the word of the agent")
        agent.send(signal.SIGINT)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.states() == ["preempted"]


def test_an_idle_agent_ends_on_a_notice(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "") as sweep:
        sweep.store.command_sweep(sweep.sweep_id, SweepCommand.PAUSE)
        agent = sweep.agents.start("a")
        wait_until(lambda: sweep.store.agents(sweep.sweep_id), description="the agent")
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.store.agents(sweep.sweep_id) == []


def test_a_run_that_is_stopped_ends_within_a_moment_and_its_agent_goes_on(
    shared_server: Server, tmp_path: Path
) -> None:
    with small_sweep(shared_server, tmp_path / "w", "if params['a'] == 0:" + IGNORES.replace("\n", "\n    ")
                     , values=[0, 1]) as sweep:  # fmt: skip
        agent = sweep.agents.start("a", "--grace", "0.2")
        begun(sweep)
        sweep.store.stop_run(sweep.runs()[0].run_id, reason="enough")
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["killed", "finished"]
        assert sweep.runs()[0].reason == "enough"


def test_a_canceled_sweep_kills_its_runs(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", DIES, values=[0, 1]) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        sweep.store.command_sweep(sweep.sweep_id, SweepCommand.CANCEL)
        assert agent.wait() == ExitCode.OK
        assert sweep.runs()[0].state is RunState.KILLED


def test_a_stopped_sweep_lets_its_run_finish(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", DIES, values=[0, 1]) as sweep:
        agent = sweep.agents.start("a")
        begun(sweep)
        sweep.store.command_sweep(sweep.sweep_id, SweepCommand.STOP)
        sweep.open("go")
        assert agent.wait() == ExitCode.OK
        assert sweep.states()[0] == "finished"
        assert sweep.kinds().count("claimed") == 1


def test_a_second_agent_of_the_same_name_replaces_the_first(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", DIES, lease={"duration": 3, "heartbeat": 0.2}) as sweep:
        first = sweep.agents.start("same", "--preemptible")
        pid = begun(sweep)
        second = sweep.agents.start("same")
        assert second.wait() == ExitCode.OK
        wait_until(lambda: not processes.alive(pid), description="the end of the child that lost its run")
        assert first.wait() in (ExitCode.ILLEGAL_STATE, ExitCode.OK)
        run = sweep.runs()[0]
        assert (run.state, run.attempt) == (RunState.FINISHED, 2)


CHATTY = """
if params["a"]:
    trace("begun")
while True:
    print("x" * 1000)
"""
NEVER_READ = """
import os, sys
receiver, sender = os.pipe()
os.set_inheritable(receiver, True)
for number in (1, 2):
    os.dup2(sender, number)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_a_reader_who_stops_reading_does_not_keep_the_agent_from_giving_its_runs_back(
    shared_server: Server, tmp_path: Path
) -> None:
    """As in `sweep-agent … 2>&1 | less`. The pipe is full of what the children print when the notice comes."""
    with small_sweep(shared_server, tmp_path / "w", CHATTY, values=[0, 1]) as sweep:
        agent = sweep.agents.start("a", "--slots", "2", "--grace", "3", prefix=[sys.executable, "-c", NEVER_READ])
        child = begun(sweep)
        time.sleep(1.0)  # the output thread is held up by now
        agent.send(signal.SIGTERM)
        assert agent.wait(30) == ExitCode.PREEMPTED
        assert sweep.states() == ["preempted", "preempted"]
        wait_for_death([child])
