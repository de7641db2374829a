"""The ready-made sweeps: each is valid, finds its program, runs, and the one that is made to be killed survives it."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import alive
from support.servers import Server
from support.waiting import wait_until

from resweep_scheduler.config import load_sweep
from resweep_scheduler.store import RunState, open_sweep

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
RESWEEP = [sys.executable, "-c", "from resweep_scheduler.cli.main import main; main()"]


def resweep(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RESWEEP, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RESWEEP_URL", server.url)
    return server.url


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_it_is_valid_and_its_program_is_there(file: Path) -> None:
    config = load_sweep(file)
    assert config.program is not None
    assert (ROOT / config.program).is_file()
    assert config.warnings == ()


def small(file: str, folder: Path, **values: str) -> Path:
    """The config with fewer values of its parameters, so that a test of it is short."""
    text = (ROOT / "configs" / file).read_text()
    for name, spec in values.items():
        text, found = re.subn(rf"^  {name}: .*$", f"  {name}: {spec}", text, flags=re.MULTILINE)
        assert found == 1, name
    smaller = folder / file
    smaller.write_text(text)
    return smaller


def test_grid_runs_each_point_once_and_misses_none(url: str, tmp_path: Path) -> None:
    config = small("grid.yaml", tmp_path, lr="{values: [0.01]}", hidden="{values: [16, 32]}", epochs="{value: 2}")
    done = resweep("start", str(config), "--dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    sweep_id = json.loads(resweep("ls", "--json").stdout)[0]["id"]
    runs = json.loads(resweep("runs", sweep_id, "--json").stdout)
    points = sorted((run["params"]["hidden"], run["params"]["batch_size"]) for run in runs)
    assert points == [(16, 32), (16, 128), (32, 32), (32, 128)]
    assert json.loads(resweep("missing", sweep_id, "--json").stdout) == []


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
@pytest.mark.parametrize("victim", ["script by SIGTERM", "script by SIGKILL", "agent by SIGKILL"])
def test_preemptible_goes_on_from_its_checkpoint(url: str, tmp_path: Path, victim: str) -> None:
    config = small(
        "preemptible.yaml", tmp_path, lr="{values: [0.01]}", hidden="{values: [32]}", epochs="{value: 6}", duration="3",
        heartbeat="1",
    )  # fmt: skip
    created = resweep("create", "-q", str(config))
    sweep_id = created.stdout.strip()
    store, _ = open_sweep(url, sweep_id)
    command = [sys.executable, "-c", "from resweep_agent.cli import main; main()", sweep_id, "--dir", str(tmp_path)]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)

    agents = [start()]
    try:
        wait_until(
            lambda: any((run.step or 0) >= 2 for run in store.runs(sweep_id)), timeout=180, description="two epochs"
        )
        run_id = store.runs(sweep_id)[0].run_id
        script = script_of(agents[0].pid, run_id)
        if victim.startswith("agent"):
            agents[0].kill()
            agents[0].wait()
            agents.append(start())
        else:
            os.kill(script, signal.SIGTERM if victim.endswith("SIGTERM") else signal.SIGKILL)
        wait_until(lambda: not alive(script), timeout=60, description="the end of the first attempt's script")
        wait_until(
            lambda: store.run(run_id).state is RunState.FINISHED, timeout=180, description="the second attempt's end"
        )
        assert agents[-1].wait(60) == 0
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.kill()
                agent.wait()
    run = store.run(run_id)
    assert run.attempt == 2
    history = store.history(run_id)
    assert [row.step for row in history] == list(range(6)), "every epoch is there once"
    assert {row.attempt for row in history} == {1, 2}
    printed = resweep("logs", run_id, "--attempt", "2").stdout
    assert re.match(r"attempt 2 goes on at epoch [1-5], batch \d+", printed)


def script_of(agent: int, run_id: str) -> int:
    """The process that trains, among the agent's children (the others are its helpers)."""
    for child in children(agent):
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"WANDB_RUN_ID={run_id}".encode() in environment:
            return child
    raise AssertionError(f"agent {agent} runs no script of {run_id}")


OF_MODEL = {"svm": {"C", "gamma"}, "forest": {"trees", "depth"}, "mlp": {"hidden", "solver"}}


def test_conditional_gives_each_run_what_belongs_to_its_model(url: str, tmp_path: Path) -> None:
    text = (ROOT / "configs" / "conditional.yaml").read_text()
    shorter = tmp_path / "conditional.yaml"
    shorter.write_text(text.replace("run_cap: 24", "run_cap: 6").replace("method: bayes", "method: random"))
    done = resweep("start", str(shorter), "--dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    sweep_id = json.loads(resweep("ls", "--json").stdout)[0]["id"]
    runs = json.loads(resweep("runs", sweep_id, "--json").stdout)
    for run in runs:
        expected = {"scale", "model"} | OF_MODEL[run["params"]["model"]]
        expected |= {"lr"} if run["params"].get("solver") == "adam" else set()
        assert set(run["params"]) == set(run["config"]) == expected
        assert run["summary"]["accuracy"] > 0.5
    assert {run["params"]["model"] for run in runs} == set(OF_MODEL)
    rows = list(csv.DictReader(io.StringIO(resweep("export", sweep_id, "--format", "csv").stdout)))
    assert len(rows) == 6
    for row, run in zip(rows, runs, strict=True):
        columns = {name for name in row if name.startswith("params.") and row[name] != ""}
        assert columns == {f"params.{name}" for name in run["params"]}


CONDITIONAL_GRID = """\
method: grid
command: ["${interpreter}", "-c", "import sys; print('given', sys.argv[1:])", "--lr=${lr}", "--beta=${beta}", "${args}"]
parameters:
  optimizer:
    choices:
      sgd: {parameters: {lr: {value: 0.1}, nesterov: {values: [true, false]}}}
      adam: {parameters: {lr: {value: 0.1}, beta: {value: 0.9}}}
      1: {parameters: {lr: {value: 0.3}}}
  depth: {min: 1, max: 2}
"""


def test_a_conditional_grid_is_counted_run_and_shown(url: str, tmp_path: Path) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text(CONDITIONAL_GRID)
    assert "8 runs" in resweep("validate", str(config)).stdout
    sweep_id = resweep("create", "-q", str(config)).stdout.strip()
    missing = json.loads(resweep("missing", sweep_id, "--json").stdout)
    assert missing[0]["params"] == {"optimizer": "sgd", "lr": 0.1, "nesterov": True, "depth": 1}
    assert missing[-1]["params"] == {"optimizer": 1, "lr": 0.3, "depth": 2}
    assert len(missing) == 8
    done = resweep("start", sweep_id, "--dir", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(resweep("missing", sweep_id, "--json").stdout) == []
    shown = json.loads(resweep("show", sweep_id, "--json").stdout)
    assert (shown["planned"], shown["missing"], shown["counts"]["finished"]) == (8, 0, 8)
    assert "8 of 8" in resweep("show", sweep_id).stdout
    runs = json.loads(resweep("runs", sweep_id, "--json").stdout)
    assert [run["params"] for run in runs] == [point["params"] for point in missing]
    table = " ".join(resweep("runs", sweep_id).stdout.split())
    assert "lr=0.1 beta=0.9 depth=1" in table
    assert "lr=0.3 depth=2" in table
    printed = {str(run["params"]): resweep("logs", run["id"]).stdout for run in runs}
    for params, output in printed.items():
        assert ("--beta" in output) == ("beta" in params), output
    given = "['--lr=0.1', '--beta=0.9', '--optimizer=adam', '--lr=0.1', '--beta=0.9', '--depth=1']"
    assert f"given {given}" in next(output for output in printed.values() if "adam" in output and "depth=1" in output)
