"""Several runs side by side on one machine: each with its GPUs, each with its own fate, and all told together."""

from __future__ import annotations

import signal
from pathlib import Path

from support.children import PATIENCE, small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import RunState

GPUS = {"CUDA_VISIBLE_DEVICES": "4,GPU-b,MIG-c", "WANDB_AGENT_DISABLE_FLAPPING": "true"}

SOME_FAIL = """
trace(f"begun-{params['a']}", gpu=os.environ["CUDA_VISIBLE_DEVICES"])
if params["a"] == "fails":
    sys.exit(1)
if params["a"] == "is killed":
    os.kill(os.getpid(), signal.SIGKILL)
wait_for("go")
"""

USES_ITS_GRACE = """
signal.signal(signal.SIGTERM, lambda number, frame: trace(f"told-{params['a']}"))
trace(f"begun-{params['a']}")
wait_for("go", seconds=120)
"""


def test_the_end_of_one_run_leaves_the_others_alone_and_frees_its_gpu(shared_server: Server, tmp_path: Path) -> None:
    values = ["lives", "fails", "is killed", "comes later", "comes last"]
    with small_sweep(shared_server, tmp_path / "w", SOME_FAIL, values=values, environment=GPUS) as sweep:
        agent = sweep.agents.start("a", "--gpus-per-run", "1")
        begun = {value: sweep.wait_for(f"begun-{value}") for value in values}
        assert sweep.states() == ["running", "failed", "crashed", "running", "running"]
        # As many places as GPUs; who comes later has the place, and the GPU, of one that is gone.
        assert {begun[value]["gpu"] for value in values[:3]} == {"4", "GPU-b", "MIG-c"}
        assert {begun[value]["gpu"] for value in ("lives", "comes later", "comes last")} == {"4", "GPU-b", "MIG-c"}
        sweep.open("go")
        assert agent.wait() == ExitCode.OK
        assert sweep.states() == ["finished", "failed", "crashed", "finished", "finished"]
        assert {run.attempt for run in sweep.runs()} == {1}


def test_a_notice_lets_all_runs_use_the_same_grace(shared_server: Server, tmp_path: Path) -> None:
    """One after the other they would end a grace apart."""
    grace = 4.0
    with small_sweep(shared_server, tmp_path / "w", USES_ITS_GRACE, values=[1, 2, 3], environment=GPUS) as sweep:
        agent = sweep.agents.start("a", "--gpus-per-run", "1", "--grace", str(grace))
        for value in (1, 2, 3):
            sweep.wait_for(f"begun-{value}")
        agent.send(signal.SIGTERM)
        for value in (1, 2, 3):
            sweep.wait_for(f"told-{value}")
        assert agent.wait() == ExitCode.PREEMPTED
        assert [(run.state, run.signal) for run in sweep.runs()] == [(RunState.PREEMPTED, signal.SIGKILL)] * 3
        ends = [event.at for event in sweep.store.events(sweep.sweep_id) if event.kind == "preempted"]
        assert max(ends) - min(ends) < 1000 * grace
        sweep.open("go")
        assert sweep.agents.start("b", "--slots", "3").wait() == ExitCode.OK
        assert [(run.state, run.attempt) for run in sweep.runs()] == [(RunState.FINISHED, 2)] * 3


def test_too_few_gpus_are_said_before_a_run_is_taken(shared_server: Server, tmp_path: Path) -> None:
    with small_sweep(shared_server, tmp_path / "w", "", environment=GPUS) as sweep:
        agent = sweep.agents.start("a", "--gpus-per-run", "2", "--slots", "2")
        assert agent.wait() == ExitCode.USAGE
        assert agent.printed() == (
            "error: --slots 2 with --gpus-per-run 2 takes 4 GPUs, and 3 may be used here"
            " (CUDA_VISIBLE_DEVICES=4,GPU-b,MIG-c); give --slots 1 or less, or leave it out\n"
        )
        assert sweep.states() == []


def test_a_run_that_fails_while_all_are_told_to_go_does_not_end_the_others(
    shared_server: Server, tmp_path: Path
) -> None:
    script = """
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3) if params["a"] == 1 else trace("told"))
trace(f"begun-{params['a']}")
wait_for("go", seconds=120)
sys.exit(5)
"""
    with small_sweep(shared_server, tmp_path / "w", script, values=[1, 2], environment=GPUS) as sweep:
        agent = sweep.agents.start("a", "--slots", "2", "--grace", "300")
        for value in (1, 2):
            sweep.wait_for(f"begun-{value}")
        agent.send(signal.SIGTERM)
        sweep.wait_for("told")
        wait_until(lambda: "preempted" in sweep.kinds(), timeout=PATIENCE, description="the end of the first")
        assert sweep.states() == ["preempted", "preempting"]
        sweep.open("go")
        assert agent.wait() == ExitCode.PREEMPTED
        assert [run.exit_code for run in sweep.runs()] == [3, 5]
