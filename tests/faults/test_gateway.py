"""The gateway, its store and its clients' machines go away while the real `wandb` client works."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import agent_command, thaw
from support.checks import check_promises
from support.gateways import Gateway, Workplace, gateway_to, workplace
from support.processes import descendants
from support.proxy import Mode, fault_proxy
from support.scene import let_pass
from support.servers import Server
from support.waiting import wait_until
from support.wandb_sdks import NEWEST, wandb_sdk

from resweep_scheduler.store import RunState, Scope, Store, SweepCommand, open_store, open_sweep

PATIENCE = 150.0

TRAIN = """\
    import sys, time
    from pathlib import Path
    import wandb

    run = wandb.init(project="p", id=sys.argv[1] if len(sys.argv) > 1 and "=" not in sys.argv[1] else None)
    for step in range(run.starting_step, 20):
        run.log({"v": step})
        if step == 9:
            while Path("gate").exists():
                time.sleep(0.05)
    run.finish()
"""

SWEEP = """\
    program: train.py
    command: ["${env}", python, "${program}"]
    method: grid
    project: p
    parameters: {x: {values: [1]}}
    lease: {duration: 15}
    preemption: {auto: true}
"""


@pytest.fixture
def gateway(server: Server, tmp_path: Path) -> Iterator[Gateway]:
    with gateway_to(server.url, tmp_path, "--no-auth") as gateway:
        yield gateway


@pytest.fixture
def place(gateway: Gateway, tmp_path: Path) -> Iterator[Workplace]:
    with workplace(tmp_path / "desk", wandb_sdk(NEWEST), gateway.url) as place:
        place.write("train.py", TRAIN)
        place.write("sweep.yaml", SWEEP)
        place.environment["WANDB_RESUME"] = "allow"
        yield place


def create(place: Workplace) -> str:
    found = re.search(r"wandb agent local/p/(\w+)", place.wandb("sweep", "sweep.yaml").err)
    assert found is not None
    return found[1]


def has_step(store: Store, run_id: str, step: int) -> bool:
    seat = store.seat(run_id)
    return seat is not None and seat.step == step


def test_gateway_and_redis_die_while_a_script_logs(place: Workplace, gateway: Gateway, server: Server) -> None:
    """Every row is there once: what had no answer is sent again with the same offset."""
    store = open_store(server.url, Scope("local", "p")).patient(PATIENCE)
    (place.folder / "gate").touch()
    script = place.start(place.sdk.python, "train.py", "a")
    wait_until(lambda: has_step(store, "a", 9), timeout=PATIENCE, description="rows up to the gate")
    gateway.kill()
    server.kill()
    (place.folder / "gate").unlink()
    let_pass(4)  # the client sends, and gets no answer
    server.start()
    gateway.start()
    assert script.wait(PATIENCE) == 0, script.printed()
    run = store.run("a")
    assert (run.state, run.attempt) == (RunState.FINISHED, 1)
    assert [row.step for row in store.history("a")] == list(range(20))
    assert store.client.xlen(store.keys.run("a", "history")) == 20
    store.client.close()


def test_lost_answers_to_an_agent(place: Workplace, gateway: Gateway) -> None:
    """The answer that hands out the run is lost; the agent asks again, and gets the same run."""
    sweep_id = create(place)
    store, _ = open_sweep(gateway.redis_url, sweep_id)
    store.command_sweep(sweep_id, SweepCommand.PAUSE)
    with fault_proxy(gateway.port) as proxy:
        url = {"WANDB_BASE_URL": f"http://127.0.0.1:{proxy.port}"}
        agent = place.start(place.sdk.wandb, "agent", f"local/p/{sweep_id}", env=url)
        wait_until(
            lambda: any(each.waiting for each in store.agents(sweep_id)), timeout=PATIENCE, description="its heartbeat"
        )
        proxy.set_mode(Mode.DROP_REPLIES)
        store.command_sweep(sweep_id, SweepCommand.RESUME)
        wait_until(lambda: store.runs(sweep_id), timeout=PATIENCE, description="the run that was handed out")
        proxy.set_mode(Mode.RST)
        proxy.set_mode(Mode.PASS)
        assert agent.wait(PATIENCE) == 0, agent.printed()
    (run,) = store.runs(sweep_id)
    assert (run.state, run.attempt) == (RunState.FINISHED, 1), agent.printed()
    check_promises(store, sweep_id, steps=range(20))
    store.client.close()


def test_frozen_machine_comes_back_and_is_fenced(place: Workplace, gateway: Gateway, tmp_path: Path) -> None:
    """`sweep-agent` and its child are frozen until another agent has the run; what they say then is not taken."""
    sweep_id = create(place)
    store = open_sweep(gateway.redis_url, sweep_id)[0].patient(PATIENCE)
    (place.folder / "gate").touch()
    options = ("--url", gateway.redis_url, "--name", "frozen", "--gateway", gateway.url)
    ours = place.start(*agent_command(), sweep_id, *options)

    def at_gate() -> bool:
        return [run.step for run in store.runs(sweep_id)] == [9]

    wait_until(at_gate, timeout=PATIENCE, description="rows up to the gate")
    tree, below = [ours.pid], descendants()
    for pid in tree:
        tree += [child.pid for child in below.values() if child.parent == pid and child.pid not in tree]
    for pid in tree:
        with contextlib.suppress(ProcessLookupError):  # the client's helpers come and go
            os.kill(pid, signal.SIGSTOP)
    (place.folder / "gate").unlink()
    with workplace(tmp_path / "other machine", place.sdk, gateway.url) as other:
        other.write("train.py", TRAIN)
        other.environment["WANDB_RESUME"] = "allow"
        second = other.start(other.sdk.wandb, "agent", f"local/p/{sweep_id}")
        wait_until(
            lambda: [run.attempt for run in store.runs(sweep_id)] == [2], timeout=PATIENCE, description="attempt 2"
        )
        thaw(tree)
        assert second.wait(PATIENCE) == 0, second.printed()
    assert ours.wait(PATIENCE) == 0, ours.printed()
    (run,) = store.runs(sweep_id)
    assert (run.state, run.attempt, run.exit_code) == (RunState.FINISHED, 2, 0)
    assert [row.attempt for row in store.history(run.run_id)] == [1] * 10 + [2] * 10
    check_promises(store, sweep_id, steps=range(20))
    store.client.close()
