"""A pod that is deleted, as its manifest bounds it: SIGTERM to process 1, so many seconds, then SIGKILL for all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.agents import wait_for_death
from support.checks import check_promises
from support.children import PATIENCE, small_sweep
from support.servers import Server
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import RunState

POD = yaml.safe_load((Path(__file__).parents[2] / "configs/kubernetes/job.yaml").read_text())["spec"]["template"][
    "spec"
]
ARGS = [str(word) for word in POD["containers"][0]["args"]]
GRACE = ARGS[ARGS.index("--grace") + 1]

RIGHTS = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
CONTAINER = ["unshare", *RIGHTS, "--pid", "--fork", "--mount-proc", "--kill-child"]
"""A process that is number 1 of its own, to which the kernel gives no default actions of signals."""

TRAINS = """
import resweep
with resweep.init() as run:
    if attempt == 1:
        for step in range(3):
            run.log({"loss": 1.0 / (step + 1)})
        state = Path("state")
        state.write_text("weights")
        run.save_checkpoint(state, step=2)
        if params["a"] == "is deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        trace("begun")
        if params["a"] == "looks":
            run.preempting.wait()
            sys.exit(1)
        wait_for("go", seconds=300)
    else:
        assert run.restore_checkpoint().read_text() == "weights"
        run.log({"loss": 0.1})
"""


def containers_work() -> bool:
    return sys.platform == "linux" and subprocess.run([*CONTAINER, "true"], check=False).returncode == 0


@pytest.mark.skipif(not containers_work(), reason="process namespaces cannot be made here")
@pytest.mark.parametrize("script", ["looks", "dies of it", "is deaf"])
def test_a_pod_that_is_deleted_leaves_its_run_on_the_queue_and_another_resumes_it(
    server: Server, tmp_path: Path, script: str
) -> None:
    with small_sweep(server, tmp_path / "w", TRAINS, values=[script]) as sweep:
        pod = sweep.agents.start("agents-x7k2p", "--preemptible", "--grace", GRACE, prefix=CONTAINER)
        child = sweep.wait_for("begun")
        run_id = sweep.runs()[0].run_id
        wait_until(lambda: sweep.store.run(run_id).step == 2, timeout=PATIENCE, description="three rows")
        tree = pod.tree()
        subprocess.run(["kill", "-TERM", str(tree[1])], check=True)
        assert pod.wait(POD["terminationGracePeriodSeconds"]) == ExitCode.PREEMPTED
        wait_for_death(tree)
        (run,) = sweep.runs()
        ends = {"looks": (1, None), "dies of it": (None, signal.SIGTERM), "is deaf": (None, signal.SIGKILL)}
        assert (run.state, run.exit_code, run.signal) == (RunState.PREEMPTED, *ends[script])
        assert sweep.store.sweep(sweep.sweep_id).queue == (run_id,)
        assert child["pid"] < 100, "the script was in the container"

        assert sweep.agents.start("agents-q9d4w", "--preemptible").wait() == ExitCode.OK
        (run,) = sweep.runs()
        assert (run.state, run.attempt, run.agent) == (RunState.FINISHED, 2, "agents-q9d4w")
        assert [(row.step, row.attempt) for row in sweep.store.history(run_id)] == [(0, 1), (1, 1), (2, 1), (3, 2)]
        check_promises(sweep.store, sweep.sweep_id, steps=range(4))
