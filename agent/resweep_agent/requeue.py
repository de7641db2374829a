"""An agent that puts its own SLURM job back into SLURM's queue.

SLURM requeues a job that it preempts, or whose node it loses. A job that ends because its time is over, or because it
was warned of that (`sbatch --signal`) and went, is over for SLURM: only `scontrol requeue` brings it back, and a job
may say so of itself.
"""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.logs import event
from resweep_scheduler.store import Store, StoreError

_log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that one call of `scontrol` may take."""
CURE = "`scontrol requeue` it by hand, or submit it again; its runs are on the run queue"


class Requeue:
    """Requeues this process's job when a notice has ended the agent.

    Raises:
        AgentError: This is no SLURM job.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._job = job_to_requeue(environ)
        # A job's tasks have the same notice, and requeuing ends them all.
        self._first_task = environ.get("SLURM_PROCID", "0") == "0"
        self._program = shutil.which("scontrol", path=environ.get("PATH"))
        if self._program is None:
            missing = "after its time limit the job will not come back; put scontrol on PATH"
            event(_log, logging.WARNING, "no-scontrol", job=self._job, next=missing)

    def step(self, store: Store, sweep_id: str) -> None:
        """Requeue the job if SLURM will not, and if the sweep has something left to do.

        When Redis does not answer, it may have. Nothing is raised: what fails is logged with its cure.
        """
        if self._program is None or not self._first_task:
            return
        if _is_over(store, sweep_id):
            event(_log, logging.INFO, "not-requeued", job=self._job, why="the sweep is over")
            return
        try:
            shown = _call(self._program, "--oneliner", "show", "job", self._job)
            if why := left_to_slurm(shown):
                event(_log, logging.INFO, "not-requeued", job=self._job, why=why)
                return
            with _sigterm_waits():
                _call(self._program, "requeue", self._job)
        except (OSError, subprocess.SubprocessError) as error:
            words = (error.stderr or "").strip() if isinstance(error, subprocess.CalledProcessError) else ""
            event(_log, logging.ERROR, "requeue-failed", job=self._job, error=words or error, next=CURE)
        else:
            event(_log, logging.INFO, "job-requeued", job=self._job)


def job_to_requeue(environ: Mapping[str, str]) -> str:
    """The job as `scontrol requeue` takes it; a task of an array as ARRAY_TASK.

    By its number alone the last task of an array cannot be named: it is the array's, and means all tasks.

    Raises:
        AgentError: This is no SLURM job.
    """
    job = environ.get("SLURM_JOB_ID")
    if not job:
        raise AgentError(
            "--slurm-requeue (RESWEEP_SLURM_REQUEUE) requeues the SLURM job that the agent runs in, and SLURM_JOB_ID is"
            " not set; leave it out",
            ExitCode.USAGE,
        )
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else job


def left_to_slurm(shown: str) -> str:
    """Why a job is not ours to requeue, from `scontrol show job`; empty when it is.

    While it runs, SLURM does not know yet that it ends. Once SLURM ends it (COMPLETING), it was preempted, and is
    requeued without us; or somebody canceled it, and shall have that; or its time was over.
    """
    facts = dict(re.findall(r"\b(JobState|Reason)=(\S+)", shown))
    if facts.get("JobState") == "RUNNING" or facts.get("Reason") == "TimeLimit":
        return ""
    return f"SLURM has ended it already (JobState={facts.get('JobState')}): it was preempted, or canceled"


def _is_over(store: Store, sweep_id: str) -> bool:
    try:
        return store.sweep(sweep_id).state.is_over
    except StoreError:
        return False


@contextmanager
def _sigterm_waits() -> Iterator[None]:
    """Keep SIGTERM from programs started in the block: they inherit what this thread blocks.

    SLURM ends a job that it requeues, and `scontrol` is a process of that job: it may get its SIGTERM before the answer
    that it waits for.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(*words: str) -> str:
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout
