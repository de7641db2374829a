"""`slurm`: agents as an array of SLURM jobs that may be preempted."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import (
    Failure,
    Settings,
    command,
    notice,
    store_options,
    sweep_argument,
    warning_line,
)

SBATCH_PATIENCE = 60.0
"""Seconds that sbatch may take."""
NOT_OF_A_JOB = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})
"""Variables that say where SLURM is; inside a job, the others tell of that job and would mislead the new ones."""


@command(
    "slurm",
    "resweep slurm SWEEP --agents 20 --partition preempt --time 4:00:00 --gpus 1 --submit",
    "resweep slurm SWEEP --agents 4 --gpus 8 --slots 8 > agents.sh && sbatch agents.sh",
    "resweep slurm SWEEP --setup 'module load cuda' --setup 'source ~/venv/bin/activate' --agent sweep-agent",
    "resweep slurm SWEEP --agents 8 --sbatch=--constraint=a100 -- --count 5      # options of sweep-agent",
)
@click.option(
    "--agents", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Tasks of the array."
)
@click.option("--partition", metavar="NAME", help="Where they may be preempted.")
@click.option("--time", metavar="TIME", help="Time limit of each. [default: the partition's]")
@click.option("--gpus", metavar="[TYPE:]N", help="GPUs of each.")
@click.option("--gres", metavar="LIST", help="Other resources of each.")
@click.option("--cpus-per-task", type=click.IntRange(min=1), metavar="N", help="Cores of each.")
@click.option("--mem", metavar="SIZE", help="Memory of each, as 16G.")
@click.option("--account", metavar="NAME", help="Who pays.")
@click.option("--qos", metavar="NAME", help="Quality of service.")
@click.option("--job-name", metavar="NAME", help="[default: resweep-SWEEP]")
@click.option("--output", metavar="FILE", help="Output of the agents. [default: slurm-%A_%a.out]")
@click.option("--sbatch", "more", multiple=True, metavar="OPTION", help="Any other option of sbatch; repeatable.")
@click.option("--setup", multiple=True, metavar="LINE", help="A line of shell before the agent; repeatable.")
@click.option("--slots", type=click.IntRange(min=1), metavar="N", help="Runs side by side in each agent.")
@click.option(
    "--grace", type=click.FloatRange(min=0), metavar="SECONDS", help="What scripts have to save. [default: the sweep's]"
)
@click.option(
    "--lead", type=click.IntRange(min=1), metavar="SECONDS",
    help="Before the time limit, when agents give their runs back. [default: the grace and a minute]",
)  # fmt: skip
@click.option(
    "--agent", metavar="PROGRAM", help="sweep-agent on the nodes. [default: this installation's, by its path]"
)
@click.option("--one-machine", is_flag=True, help="All nodes are this machine, so its sockets will do.")
@click.option("--submit", is_flag=True, help="Submit it, and print the job's number.")
@sweep_argument
@click.argument("words", nargs=-1, metavar="[-- AGENT OPTIONS]")
@store_options
def slurm_command(
    settings: Settings, *, sweep: str, words: tuple[str, ...], agents: int, more: tuple[str, ...],
    setup: tuple[str, ...], slots: int | None, grace: float | None, lead: int | None, agent: str | None,
    one_machine: bool, submit: bool, job_name: str | None, output: str | None, time: str | None,
    partition: str | None, gpus: str | None, gres: str | None, cpus_per_task: int | None, mem: str | None,
    account: str | None, qos: str | None,
) -> None:  # fmt: skip
    """Put agents into SLURM's queue.

    Prints a batch script for an array of agents, or submits it. Agents that are preempted, or whose time is over, give
    their runs back and are requeued, until the sweep is finished. Ends with 10 when sbatch refuses the job.
    """
    from resweep_scheduler.cli.access import config_of, open_sweep, refuse_if_over
    from resweep_scheduler.cli.local_agents import agent_program
    from resweep_scheduler.cli.sbatch import Batch, has_password, lead_time

    store, sweep_id = open_sweep(settings, sweep)
    record = store.sweep(sweep_id)
    refuse_if_over(record)
    _look_at_address(store.url, one_machine=one_machine, submit=submit)
    patience = config_of(record).preemption.grace if grace is None else grace
    own = [*_option("--slots", slots), *_option("--grace", None if grace is None else f"{grace:g}")]
    script = Batch(
        sweep=f"{store.scope}/{sweep_id}",
        url=store.url,
        agents=agents,
        agent=agent or agent_program(),
        lead=lead_time(lead, patience, time),
        resources=[
            *(("job-name", job_name or f"resweep-{sweep_id}"), ("output", output), ("partition", partition)),
            *(("time", time), ("gpus", gpus), ("gres", gres), ("cpus-per-task", cpus_per_task), ("mem", mem)),
            *(("account", account), ("qos", qos)),
        ],
        more=more,
        setup=setup,
        words=[*own, *words],
    ).script()
    if not submit:
        click.echo(script, nl=False)
        if has_password(store.url):
            notice("The password of RESWEEP_URL is not in the script: export RESWEEP_URL before sbatch.")
        return
    _refuse_missing_folder(output)
    job = _submit(script, store.url)
    click.echo(job)
    number = job.partition(";")[0]
    notice(f"{agents} agents of sweep {sweep_id}: `squeue --job {number}` shows them, `scancel {number}` ends them.")


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _look_at_address(url: str, *, one_machine: bool, submit: bool) -> None:
    from resweep_scheduler.cli.sbatch import reached_from_here_only
    from resweep_scheduler.store import redact

    if one_machine or not reached_from_here_only(url):
        return
    text = (
        f"agents on other nodes must reach the server, and {redact(url)} is reached from this machine only: give the"
        " --url of one that they reach (`redis-server` on the head node will do, see docs/slurm.md), or --one-machine"
    )
    if submit:
        raise Failure(text, ExitCode.USAGE)
    warning_line(text)


def _refuse_missing_folder(output: str | None) -> None:
    folder = Path(output or "").parent
    if "%" not in str(folder) and not folder.is_dir():
        raise Failure(
            f"SLURM makes no folders, and a job without its --output fails in silence; {folder} does not exist:"
            f" mkdir -p {folder}",
            ExitCode.USAGE,
        )


def _submit(script: str, url: str) -> str:
    """Hand the script to sbatch; returns the job's number, with `;cluster` in a federation."""
    program = shutil.which("sbatch")
    if program is None:
        raise Failure(
            "there is no sbatch on PATH: submit from a login node of the cluster, or leave out --submit and take the"
            " script there",
            ExitCode.COMMAND_NOT_FOUND,
        )
    try:
        done = subprocess.run(
            [program, "--parsable"], input=script, env=job_environment(os.environ, url), capture_output=True, text=True,
            errors="replace", timeout=SBATCH_PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Failure(
            f"sbatch has not answered in {SBATCH_PATIENCE:g} s: `squeue --me` tells whether the job is there",
            ExitCode.SBATCH_REFUSED,
        ) from None
    if done.returncode != 0:
        said = " ".join(line.removeprefix("sbatch: ").strip() for line in done.stderr.splitlines())
        raise Failure(f"sbatch refuses the job: {said}", ExitCode.SBATCH_REFUSED)
    return done.stdout.strip()


def job_environment(environ: Mapping[str, str], url: str) -> dict[str, str]:
    """What the jobs find in their environment: ours and the address of Redis, but nothing of a job that we are in."""
    inside = "SLURM_JOB_ID" in environ
    kept = {
        name: value
        for name, value in environ.items()
        if not (inside and name.startswith("SLURM_") and name not in NOT_OF_A_JOB)
    }
    return {**kept, "RESWEEP_URL": url}
