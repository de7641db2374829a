"""SLURM: the end of the job, so that runs are saved and back on the run queue before it.

The end is in SLURM_JOB_END_TIME where SLURM sets it; else, and now and then, `squeue` is asked, because a time limit
may be changed while the job runs. Preemption and `--signal` come as signals.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Mapping
from datetime import datetime

from resweep_agent.notices.base import Notice
from resweep_agent.notices.deadlines import deadline_at
from resweep_agent.notices.metadata import NoAnswerError, OddAnswerError
from resweep_agent.notices.polling import Provider

ASK_EVERY = 900.0
"""Seconds: SLURM's controller serves the whole cluster."""
PATIENCE = 10.0
"""Seconds for an answer of squeue."""
MARGIN = 15.0
"""Seconds between the end of the grace and the end of the job, for the reports."""


def job_of(environ: Mapping[str, str]) -> str | None:
    """How SLURM's commands call the job of this process (a task of an array by the array and its number)."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID") or None


def end_of_job(environ: Mapping[str, str], job: str) -> float | None:
    """When squeue says that the job must end, seconds since the epoch; None without a time limit.

    Raises:
        NoAnswerError: There is no squeue, or it has no answer.
        OddAnswerError: The answer is no time.
    """
    command = ["squeue", "--noheader", f"--jobs={job}", "--format=%e"]
    try:
        told = subprocess.run(
            command,
            env={**environ, "SLURM_TIME_FORMAT": "standard"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise NoAnswerError(f"{' '.join(command)}: {error}") from None
    if told.upper() in ("N/A", "NONE", "UNKNOWN", "UNLIMITED"):
        return None
    try:
        return datetime.fromisoformat(told).timestamp()  # local time, as all of SLURM's
    except ValueError:
        raise OddAnswerError(f"{' '.join(command)} should print a time, got {told[:80]!r}") from None


class Slurm(Provider):
    """The job that this agent runs in.

    The notice comes so early that the children have their grace and `MARGIN` is left; but in a short job not before
    half of its time is over.

    Args:
        environ: With SLURM_JOB_ID.
        grace: Seconds between the signal to the children and SIGKILL.
    """

    name = "slurm"
    tries = 1

    def __init__(self, environ: Mapping[str, str], *, grace: float) -> None:
        self._environ = environ
        self._lead = grace + MARGIN
        self._end: float | None = None
        self._ask_at = 0.0

    @property
    def interval(self) -> float:
        """Until the notice is due, or squeue is to be asked."""
        now = time.time()
        due = [self._ask_at] if self._end is None else [self._ask_at, self._end - self._lead]
        return max(1.0, min(due) - now)

    def recognise(self) -> bool:
        """True in a job; what its partition does to it SLURM alone knows."""
        job = job_of(self._environ)
        if job is None:
            raise OddAnswerError("SLURM_JOB_ID is not set")
        now = time.time()
        with contextlib.suppress(KeyError, ValueError):
            self._end = float(self._environ["SLURM_JOB_END_TIME"])
        if self._end is None:
            self._end = end_of_job(self._environ, job)
        if self._end is not None:
            self._lead = min(self._lead, max(0.0, self._end - now) / 2)
        self._ask_at = now + ASK_EVERY
        return True

    def ask(self) -> Notice | None:
        """The time limit, when it is near."""
        now = time.time()
        if self._is_near(now) or now >= self._ask_at:
            self._ask_at = now + ASK_EVERY
            # Nobody who answers: then it is as it was.
            with contextlib.suppress(NoAnswerError, OddAnswerError):
                self._end = end_of_job(self._environ, job_of(self._environ) or "")
        if self._end is None or not self._is_near(now):
            return None
        return Notice(self.name, deadline_at(self._end, now), "time limit")

    def _is_near(self, now: float) -> bool:
        return self._end is not None and now >= self._end - self._lead
