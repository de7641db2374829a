"""`resweep slurm` with the sbatch of a private cluster, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import Desk, desk_in
from support.servers import Server, private_server
from support.slurm import Slurm, slurm_cluster
from support.waiting import wait_until

SWEEP = {"method": "grid", "command": ["echo", "done"], "parameters": {"a": {"values": [0, 1, 2]}}}


@pytest.fixture
def cluster(short_tmp: Path) -> Iterator[Slurm]:
    with slurm_cluster(short_tmp, nodes=1) as cluster:
        yield cluster


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "my desk", shared_server.url) as desk:
        yield desk


def test_what_is_printed_can_be_submitted(desk: Desk, cluster: Slurm) -> None:
    desk.environment |= cluster.environment
    sweep = desk.create(SWEEP)
    words = ["--agents", "2", "--partition", "low", "--time", "10", "--cpus-per-task", "1", "--mem", "100M"]
    words += ["--job-name", "a name", "--output", "the log-%a", "--setup", "echo here: $PWD", "--sbatch=--comment=#1"]
    printed = desk.resweep("slurm", sweep, *words, "--", "--dir", "my runs")
    assert "reached from this machine only" in printed.err
    job = desk.call("sbatch", "--parsable", text=printed.out).out.strip()

    shown = cluster.call("scontrol", "--oneliner", "show", "job", f"{job}_1")
    for fact in ("JobName=a name", "Partition=low", "TimeLimit=00:10:00", "Requeue=1", "MinMemoryNode=100M"):
        assert fact in shown
    cluster.wait_for_end(job)
    assert {run["state"] for run in desk.runs(sweep)} == {"finished"}
    for task in (1, 2):
        assert f"here: {desk.folder}" in desk.read(f"the log-{task}")
    assert len(list((desk.folder / "my runs" / sweep).iterdir())) == 3


def test_a_password_reaches_the_jobs_and_no_script(tmp_path: Path, cluster: Slurm) -> None:
    with private_server(tmp_path, extra=["--requirepass", "s3cret"]) as server:
        url = server.url.replace("//", "//:s3cret@")
        with desk_in(tmp_path / "desk", url) as desk:
            desk.environment |= cluster.environment
            sweep = desk.create(SWEEP)
            printed = desk.resweep("slurm", sweep, "--one-machine")
            assert "s3cret" not in printed.out
            assert printed.err == (
                "The password of RESWEEP_URL is not in the script: export RESWEEP_URL before sbatch.\n"
            )
            inside = {"SLURM_JOB_ID": "99", "SLURM_MEM_PER_CPU": "1", "SLURM_MEM_PER_NODE": "1"}
            done = desk.resweep("slurm", sweep, "--one-machine", "--submit", env=inside)
            job = done.out.strip()
            assert f"1 agents of sweep {sweep}: `squeue --job {job}` shows them" in done.err
            assert "s3cret" not in cluster.call("scontrol", "write", "batch_script", job, "-")
            wait_until(lambda: desk.show(sweep)["state"] == "finished", timeout=60, description="the end of the sweep")
            cluster.wait_for_end(job)


def test_what_sbatch_refuses_is_told(desk: Desk, cluster: Slurm) -> None:
    desk.environment |= cluster.environment
    sweep = desk.create(SWEEP)
    said = desk.resweep("slurm", sweep, "--submit", "--one-machine", "--partition", "no", code=10).line()
    assert said.startswith("error: sbatch refuses the job: ")
    assert "invalid partition specified: no" in said


def test_an_output_that_cannot_be_written_is_refused(desk: Desk) -> None:
    sweep = desk.create(SWEEP)
    said = desk.resweep("slurm", sweep, "--submit", "--one-machine", "--output", "logs/%a", code=2).line()
    assert "a job without its --output fails in silence; logs does not exist: mkdir -p logs" in said


def test_a_server_that_only_this_machine_reaches_is_refused(desk: Desk) -> None:
    sweep = desk.create(SWEEP)
    said = desk.resweep("slurm", sweep, "--submit", code=2).line()
    assert f"{desk.url} is reached from this machine only: give the --url of one that they reach" in said


def test_without_sbatch_nothing_is_submitted(desk: Desk) -> None:
    sweep = desk.create(SWEEP)
    programs = str(desk.folder)
    said = desk.resweep("slurm", sweep, "--submit", "--one-machine", env={"PATH": programs}, code=7).line()
    assert "there is no sbatch on PATH: submit from a login node of the cluster" in said


def test_a_sweep_that_is_not_there_or_over_gets_no_agents(desk: Desk) -> None:
    assert "nosuch" in desk.resweep("slurm", "nosuch", code=3).line()
    sweep = desk.create(SWEEP)
    desk.resweep("stop", sweep)
    assert f"`resweep resume {sweep}` lets it go on" in desk.resweep("slurm", sweep, code=6).line()


def test_the_grace_of_the_sweep_makes_the_lead_time(desk: Desk) -> None:
    sweep = desk.create({**SWEEP, "preemption": {"grace": 200}})
    assert "#SBATCH --signal=B:USR1@260\n" in desk.resweep("slurm", sweep, "--one-machine").out
    text = desk.resweep("slurm", sweep, "--one-machine", "--grace", "10", "--slots", "2", "--", "--count", "1").out
    assert "#SBATCH --signal=B:USR1@70\n" in text
    assert f"sweep-agent --slots 2 --grace 10 --count 1 local/uncategorized/{sweep}\n" in text
