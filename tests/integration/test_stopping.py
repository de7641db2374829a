"""Early termination the whole way: from `run.log` to the end of the child; and the rules on a real server."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import Any

import pytest
from support.checks import check_promises
from support.children import Small, small_sweep
from support.servers import Server
from support.stopping import agents_of, hyperband, log_against_model
from support.stores import MEDIAN, SWEEP
from support.waiting import wait_until

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.cli.main import run as resweep_command
from resweep_scheduler.store import Scope, open_store

SCRIPT = """
import resweep

class Stopped(Exception):
    pass

def on_sigterm(number, frame):
    trace(f"sigterm-{params['a']}")
    if params["then"] == "exit 0":
        raise Stopped
    if params["then"] == "exit 3":
        sys.exit(3)

if params["then"] != "nothing":
    signal.signal(signal.SIGTERM, on_sigterm)
run = resweep.init()
try:
    for step in range(3):
        run.log({"loss": params["a"] + step / 100})
    if params["a"] > 0.5:
        wait_for("never", 60)
except Stopped:
    run.log({"loss": 0.05})
    run.finish()
"""

# So seldom that whatever happens in time does not wait for a heartbeat.
LEASE = {"duration": 600, "heartbeat": 200}


def stopping_sweep(server: Server, folder: Path, then: str, **config: Any) -> Any:
    """A good run, then a weak one that does not end by itself."""
    settings: dict[str, Any] = {
        "metric": {"name": "loss", "goal": "minimize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2},
        "parameters": {"a": {"values": [0.1, 0.9]}, "then": {"value": then}},
        "lease": LEASE,
        **config,
    }
    return small_sweep(server, folder, SCRIPT, **settings)


def check_stopped(sweep: Small) -> None:
    """The weak run was told to end once, before it was killed; nobody took it again, and its values count."""
    good, weak = sweep.runs()
    assert (good.state, weak.state, weak.stopped) == ("finished", "killed", True)
    assert weak.reason == "early_terminate: hyperband, 0.9 is worse than 0.11, the threshold of 2 runs at iteration 2"
    told = [event for event in sweep.store.events(sweep.sweep_id) if event.run_id == weak.run_id]
    assert [event.kind for event in told] == ["suggested", "claimed", "stop", "killed"]
    record = sweep.store.search_runs(sweep.sweep_id)[1]
    assert (record.stopped, record.state) == (True, "killed")
    assert record.metric is not None
    check_promises(sweep.store, sweep.sweep_id)


@pytest.mark.parametrize(
    ("then", "status"), [("nothing", (None, signal.SIGTERM)), ("exit 3", (3, None)), ("exit 0", (0, None))]
)
def test_weak_run_is_ended_at_once_however_its_script_takes_it(
    server: Server, tmp_path: Path, then: str, status: tuple[int | None, int | None]
) -> None:
    """Also a script that catches the signal, logs a last value and exits 0: nothing waits for the next heartbeat."""
    with stopping_sweep(server, tmp_path / "w", then) as sweep:
        assert sweep.agents.start("a").wait() == ExitCode.OK
        check_stopped(sweep)
        weak = sweep.runs()[1]
        assert (weak.exit_code, weak.signal) == status
        record = sweep.store.search_runs(sweep.sweep_id)[1]
        assert (record.metric, record.last) == ((0.05, 0.05) if then == "exit 0" else (0.9, 0.92))


def test_show_tells_early_stops_from_other_kills(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with stopping_sweep(server, tmp_path / "w", "nothing") as sweep:
        assert sweep.agents.start("a").wait() == ExitCode.OK
        assert resweep_command(["--url", server.url, "show", sweep.sweep_id]) == 0
        assert "hyperband at iterations 2, 6, 18, 54, …, 1 run stopped" in capsys.readouterr().out


def test_weak_run_that_ignores_the_signal_is_killed_after_the_grace(server: Server, tmp_path: Path) -> None:
    with stopping_sweep(server, tmp_path / "w", "ignore", preemption={"grace": 0.3}) as sweep:
        assert sweep.agents.start("a").wait() == ExitCode.OK
        check_stopped(sweep)
        assert sweep.runs()[1].signal == signal.SIGKILL


def test_stop_survives_the_agent_that_should_act(server: Server, tmp_path: Path) -> None:
    """The agent stands still when the decision falls, and is gone then: the run is killed, and not taken again."""
    gate = "trace(f'begun-{params[\"a\"]}')\nwait_for(f'go-{params[\"a\"]}')"
    script = SCRIPT.replace("run = resweep.init()", f"run = resweep.init()\n{gate}")
    config: dict[str, Any] = {
        "metric": {"name": "loss", "goal": "minimize"},
        "early_terminate": {"type": "hyperband", "min_iter": 2},
        "parameters": {"a": {"values": [0.1, 0.9]}, "then": {"value": "nothing"}},
        "lease": {"duration": 15, "heartbeat": 2},
    }
    with small_sweep(server, tmp_path / "w", script, **config) as sweep:
        agents = {name: sweep.agents.start(name, "--preemptible") for name in ("a", "b")}
        sweep.wait_for("begun-0.1")
        sweep.wait_for("begun-0.9")
        sweep.open("go-0.1")
        wait_until(lambda: sweep.states()[0] == "finished", timeout=60, description="the end of the good run")
        weak = sweep.runs()[1]
        holder = agents.pop(weak.agent or "")
        holder.send(signal.SIGSTOP)
        sweep.open("go-0.9")
        wait_until(lambda: sweep.store.run(weak.run_id).stop, timeout=60, description="the decision")
        holder.kill()
        (other,) = agents.values()
        assert other.wait() == ExitCode.OK
        check_stopped(sweep)


def test_preempted_and_resumed_runs_are_compared_at_the_same_step(server: Server, tmp_path: Path) -> None:
    """The second attempt logs steps 2 and 3 again; the run has 5 iterations, and not 7."""
    script = """
import resweep
run = resweep.init()
path = Path("state")
if run.attempt == 1:
    for step in range(4):
        run.log({"loss": 1.0 - step / 10})
        if step == 1:
            path.write_text("1")
            run.save_checkpoint(path)
    run.mark_preempting()
    run.finish()
    sys.exit(1)
run.restore_checkpoint()
for step in range(2, 5):
    run.log({"loss": 0.5 - step / 10})
"""
    rule = {"type": "hyperband", "min_iter": 4, "eta": 2}
    metric = {"name": "loss", "goal": "minimize"}
    with small_sweep(server, tmp_path / "w", script, early_terminate=rule, metric=metric) as sweep:
        assert sweep.agents.start("a").wait() == ExitCode.OK
        (run,) = sweep.runs()
        curve = [(point.step, point.value) for point in sweep.store.curve(run.run_id)]
        assert curve == [(0, 1.0), (1, 0.9), (2, 0.3), (3, 0.2), (4, pytest.approx(0.1))]
        check_promises(sweep.store, sweep.sweep_id)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("few", [True, False])
def test_real_server_stops_the_runs_that_the_model_stops(shared_server: Server, seed: int, few: bool) -> None:
    dice = random.Random(seed)
    store = open_store(shared_server.url, Scope())
    rules: list[dict[str, Any]] = [
        hyperband(1, 2, 5, eta=dice.choice([1.5, 3.0]), strict=dice.random() < 0.5, sign=dice.choice([1, -1])),
        MEDIAN
        | {"percentile": dice.choice([10.0, 50.0]), "interval": dice.randint(1, 2), "sign": dice.choice([1, -1])},
    ]
    rule = rules[seed % 2]
    log_against_model(store, agents_of(store, 8, rule), rule, dice, few=few)
    check_promises(store, SWEEP)
    store.client.close()
