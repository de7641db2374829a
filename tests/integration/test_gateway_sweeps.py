"""Sweeps of the real `wandb` client against the gateway: its agents, its commands, and both kinds of agent together."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.agents import agent_command
from support.checks import check_promises
from support.gateways import Gateway, Started, Workplace, workplace
from support.waiting import wait_until
from support.wandb_sdks import NEWEST, VERSIONS, wandb_sdk

from resweep_agent.exitcodes import ExitCode
from resweep_scheduler.store import Run, RunState, Store, SweepState, open_sweep

PATIENCE = 120.0

TRAIN = """\
    import json, os, signal, sys, time
    from pathlib import Path
    import wandb

    run = wandb.init()
    gate, last = Path("gate"), 6
    if os.environ.get("MARK") == "start":
        run.mark_preempting()

    def on_sigterm(*_):
        run.mark_preempting()
        sys.exit(75)

    signal.signal(signal.SIGTERM, on_sigterm)
    for step in range(run.starting_step, last):
        run.log({"loss": run.config["x"] / (step + 1)})
        if step == 2 and gate.exists() and os.environ.get("MARK"):
            Path(f"at-gate-{run.id}-{os.getpid()}").touch()
            while gate.exists():
                time.sleep(0.05)
    run.finish()
"""

SWEEP = """\
    program: train.py
    command: ["${env}", python, "${program}"]
    method: grid
    project: p
    metric: {name: loss, goal: minimize}
    parameters: {x: {values: [1, 2, 3]}}
    lease: {duration: 15}
"""


@pytest.fixture(params=VERSIONS)
def place(request: pytest.FixtureRequest, gateway: Gateway, tmp_path: Path) -> Iterator[Workplace]:
    with furnished(tmp_path / "desk", request.param, gateway) as place:
        yield place


@pytest.fixture
def newest(gateway: Gateway, tmp_path: Path) -> Iterator[Workplace]:
    with furnished(tmp_path / "desk", NEWEST, gateway) as place:
        yield place


@contextmanager
def furnished(folder: Path, version: str, gateway: Gateway) -> Iterator[Workplace]:
    with workplace(folder, wandb_sdk(version), gateway.url) as place:
        place.write("train.py", TRAIN)
        place.write("sweep.yaml", SWEEP)
        place.environment["WANDB_AGENT_DISABLE_FLAPPING"] = "true"
        place.environment["WANDB_RESUME"] = "allow"
        yield place


def create(place: Workplace) -> str:
    """`wandb sweep FILE`; the id of the sweep."""
    printed = place.wandb("sweep", "sweep.yaml").err
    found = re.search(r"wandb agent local/p/(\w+)", printed)
    assert found is not None, printed
    return found[1]


def store_of(place_url: str, sweep_id: str) -> Store:
    return open_sweep(place_url, sweep_id)[0].patient(PATIENCE)


def states(store: Store, sweep_id: str) -> list[RunState]:
    return [run.state for run in store.runs(sweep_id)]


def test_sweep_and_agent_commands(newest: Workplace, gateway: Gateway) -> None:
    """`wandb sweep FILE`, then `wandb agent E/P/S` runs the grid to its end and goes home."""
    sweep_id = create(newest)
    agent = newest.start(newest.sdk.wandb, "agent", f"local/p/{sweep_id}")
    assert agent.wait(PATIENCE) == 0, agent.printed()
    store = store_of(gateway.redis_url, sweep_id)
    assert store.sweep(sweep_id).state is SweepState.FINISHED, agent.printed()
    assert states(store, sweep_id) == [RunState.FINISHED] * 3
    assert sorted(run.metric or 0 for run in store.runs(sweep_id)) == pytest.approx([1 / 6, 2 / 6, 3 / 6])
    assert all(run.exit_code == 0 and run.attempt == 1 for run in store.runs(sweep_id))
    check_promises(store, sweep_id, steps=range(6))
    store.client.close()


def wait_for(
    store: Store, sweep_id: str, happened: Callable[[Run], bool], place: Started, *, count: int = 1
) -> list[Run]:
    """Until `count` runs are so; the error tells what the agent printed."""

    def found() -> list[Run]:
        runs = [run for run in store.runs(sweep_id) if happened(run)]
        return runs if len(runs) >= count else []

    try:
        return wait_until(found, timeout=PATIENCE, interval=0.1, description="runs of the sweep")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{store.runs(sweep_id)}\n{place.printed()}") from None


def test_preempted_runs_go_on_where_they_were(place: Workplace, gateway: Gateway, tmp_path: Path) -> None:
    """One machine is gone with all its processes, a second one has notice of it; a third one, with another folder, goes
    on with the runs of both. `wandb agent` and `sweep-agent` work on one sweep, and no run is ever in both hands.
    """
    sweep_id = create(place)
    store = store_of(gateway.redis_url, sweep_id)
    version, agent = place.sdk.version, ("agent", f"local/p/{sweep_id}")
    with (
        furnished(tmp_path / "second machine", version, gateway) as second,
        furnished(tmp_path / "third machine", version, gateway) as third,
    ):
        for each in (place, second, third):
            (each.folder / "gate").touch()
        lost = place.start(place.sdk.wandb, *agent, env={"MARK": "start"})
        options = ("--url", gateway.redis_url, "--name", "ours", "--wandb")
        warned = second.start(*agent_command(), sweep_id, *options, env={"MARK": "sigterm"})
        left = third.start(third.sdk.wandb, *agent, env={"MARK": "sigterm"})
        wait_for(store, sweep_id, lambda run: run.step == 2, left, count=3)
        by_agent = {"ours" if run.agent == "ours" else run.state.value: run.run_id for run in store.runs(sweep_id)}
        lost.kill()
        warned.send(signal.SIGTERM)
        assert warned.wait(PATIENCE) == ExitCode.PREEMPTED, warned.printed()
        assert store.run(by_agent["ours"]).state is RunState.PREEMPTED, warned.printed()
        (third.folder / "gate").unlink()
        assert left.wait(PATIENCE) == 0, left.printed()
        for run_id in (by_agent["ours"], by_agent["preempting"]):
            run = store.run(run_id)
            assert (run.state, run.attempt, run.exit_code) == (RunState.FINISHED, 2, 0), left.printed()
            assert [row.attempt for row in store.history(run_id)] == [1, 1, 1, 2, 2, 2]
        check_promises(store, sweep_id, steps=range(6))
    store.client.close()


def test_sweep_commands_of_people(place: Workplace, gateway: Gateway) -> None:
    """`wandb sweep --pause`, `--resume`, `--stop` and `--cancel`."""
    sweep_id = create(place)
    store = store_of(gateway.redis_url, sweep_id)
    agent = place.start(place.sdk.wandb, "agent", f"local/p/{sweep_id}", env={"MARK": "never"})
    (place.folder / "gate").touch()
    wait_for(store, sweep_id, lambda run: run.state is RunState.RUNNING, agent)
    for option, state in (
        ("--pause", SweepState.PAUSED),
        ("--resume", SweepState.RUNNING),
        ("--stop", SweepState.FINISHED),
        ("--resume", SweepState.RUNNING),
        ("--cancel", SweepState.CANCELED),
    ):
        place.wandb("sweep", option, f"local/p/{sweep_id}")
        assert store.sweep(sweep_id).state is state
    assert agent.wait(PATIENCE) == 0, agent.printed()
    assert not any(run.state.is_owned for run in store.runs(sweep_id))
    check_promises(store, sweep_id)
    store.client.close()
