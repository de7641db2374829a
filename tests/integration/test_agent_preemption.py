"""A notice as scripts hear it that use the SDK, or the notice file, with real agents."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.children import small_sweep
from support.servers import Server

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import RunState

LONG = "300"
"""A grace that nobody waits for: that the test ends shows that the script left by itself."""

LOOKS = """
import resweep
with resweep.init() as run:
    state = Path("state")
    if attempt == 1:
        run.log({"loss": 1.0})
        assert not run.preempting
        trace("begun")
        assert run.preempting.wait(60)
        state.write_text("saved")
        run.save_checkpoint(state, step=0)
        sys.exit(9)
    trace("resumed", step=run.starting_step, state=run.restore_checkpoint().read_text())
"""

CALLED = """
import resweep
run = resweep.init()
if attempt == 1:
    @resweep.on_preempt
    def leave():
        trace("called", marked=run.preempting.is_set())
        run.finish(9)
        os._exit(9)

    run.log({"loss": 1.0})
    trace("begun")
    time.sleep(60)
"""


@pytest.mark.parametrize("told_by", ["SIGTERM", "SIGUSR1", "SIGINT", "none"])
def test_a_script_that_looks_at_the_flag_saves_and_goes_on_elsewhere(
    shared_server: Server, tmp_path: Path, told_by: str
) -> None:
    """Without a handler: the agent's signal would end it before it could save, and does not come."""
    with small_sweep(shared_server, tmp_path / "w", LOOKS, preemption={"signal": told_by}) as sweep:
        agent = sweep.agents.start("a", "--grace", LONG)
        sweep.wait_for("begun")
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        (run,) = sweep.runs()
        assert (run.state, run.exit_code, run.step) == (RunState.PREEMPTED, 9, 0)
        assert sweep.agents.start("b").wait() == ExitCode.OK
        resumed = sweep.trace("resumed")
        assert resumed is not None
        assert (resumed["step"], resumed["state"]) == (1, "saved")
        assert sweep.states() == ["finished"]


@pytest.mark.parametrize("told_by", ["SIGTERM", "none"])
def test_a_callback_is_called_while_the_training_does_something_else(
    shared_server: Server, tmp_path: Path, told_by: str
) -> None:
    with small_sweep(shared_server, tmp_path / "w", CALLED, preemption={"signal": told_by}) as sweep:
        agent = sweep.agents.start("a", "--grace", LONG)
        sweep.wait_for("begun")
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.trace("called") == {"pid": sweep.wait_for("begun")["pid"], "marked": True}
        (run,) = sweep.runs()
        assert (run.state, run.exit_code) == (RunState.PREEMPTED, 9)


def test_a_run_that_is_stopped_ends_at_once_though_its_script_waits_for_notices(
    shared_server: Server, tmp_path: Path
) -> None:
    with small_sweep(shared_server, tmp_path / "w", CALLED) as sweep:
        agent = sweep.agents.start("a", "--grace", LONG)
        sweep.wait_for("begun")
        sweep.store.stop_run(sweep.runs()[0].run_id, reason="enough")
        assert agent.wait() == ExitCode.OK
        (run,) = sweep.runs()
        assert (run.state, run.signal, run.reason) == (RunState.KILLED, signal.SIGTERM, "enough")
        assert sweep.trace("called") is None


def test_any_program_can_look_for_the_notice_file(shared_server: Server, tmp_path: Path) -> None:
    script = """
file = Path(os.environ["RESWEEP_NOTICE_FILE"])
trace("begun", signal=os.environ["RESWEEP_NOTICE_SIGNAL"])
wait_for(file)
trace("told", text=file.read_text())
sys.exit(4)
"""
    with small_sweep(shared_server, tmp_path / "w", script, preemption={"signal": "none"}) as sweep:
        agent = sweep.agents.start("a", "--grace", LONG)
        assert sweep.wait_for("begun")["signal"] == "none"
        agent.send(signal.SIGHUP)
        assert agent.wait() == ExitCode.PREEMPTED
        assert sweep.wait_for("told")["text"] == "preempting SIGHUP\n"
        (run,) = sweep.runs()
        assert (run.state, run.exit_code) == (RunState.PREEMPTED, 4)


def test_without_a_signal_whoever_does_not_look_is_killed_after_the_grace(
    shared_server: Server, tmp_path: Path
) -> None:
    script = "trace('begun')\nwait_for('go')"
    with small_sweep(shared_server, tmp_path / "w", script, preemption={"signal": "none", "grace": 0.5}) as sweep:
        agent = sweep.agents.start("a")
        sweep.wait_for("begun")
        agent.send(signal.SIGTERM)
        assert agent.wait() == ExitCode.PREEMPTED
        (run,) = sweep.runs()
        assert (run.state, run.signal) == (RunState.PREEMPTED, signal.SIGKILL)
