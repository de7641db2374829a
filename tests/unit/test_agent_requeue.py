"""Whether and how an agent requeues its own SLURM job; `scontrol` is a script of the test."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from support.stores import SWEEP, make_sweep

from resweep_agent import requeue
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.requeue import Requeue, job_to_requeue, left_to_slurm
from resweep_scheduler.store import Store, StoreUnavailableError, SweepCommand

RUNNING = "JobId=7 JobName=x JobState=RUNNING Reason=None Restarts=0"
TASK = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2", "SLURM_PROCID": "0"}


class Scontrol:
    """A program of that name, which writes down how it is called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"

    def build(self, shown: str = RUNNING, *, requeue: str = "exit 0") -> dict[str, str]:
        """The environment of an agent that finds it."""
        program = self._folder / "scontrol"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {self._calls}\ncase $1 in requeue) {requeue};; *) echo "{shown}";; esac\n'
        )
        program.chmod(0o755)
        return {**TASK, "PATH": f"{self._folder}:/usr/bin:/bin"}

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def scontrol(tmp_path: Path) -> Scontrol:
    return Scontrol(tmp_path)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.INFO, "resweep_agent")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def test_a_job_that_runs_is_requeued(store: Store, scontrol: Scontrol, said: Callable[[], str]) -> None:
    make_sweep(store)
    Requeue(scontrol.build()).step(store, SWEEP)
    assert scontrol.calls == ["--oneliner show job 7_2", "requeue 7_2"]
    assert said() == "job-requeued job=7_2"


def test_a_redis_that_is_away_does_not_keep_the_job_from_coming_back(store: Store, scontrol: Scontrol) -> None:
    with mock.patch.object(store, "sweep", side_effect=StoreUnavailableError("away")):
        Requeue(scontrol.build()).step(store, SWEEP)
    assert scontrol.calls[-1] == "requeue 7_2"


def test_a_sweep_that_is_over_needs_no_agent(store: Store, scontrol: Scontrol, said: Callable[[], str]) -> None:
    make_sweep(store)
    store.command_sweep(SWEEP, SweepCommand.CANCEL)
    Requeue(scontrol.build()).step(store, SWEEP)
    assert scontrol.calls == []
    assert said() == 'not-requeued job=7_2 why="the sweep is over"'


@pytest.mark.parametrize(
    ("shown", "ours"),
    [
        (RUNNING, True),
        ("JobState=COMPLETING Reason=TimeLimit Dependency=(null)", True),  # the time limit came before the agent's end
        ("JobState=COMPLETING Reason=None Restarts=1", False),  # preempted
        ("JobState=COMPLETING Reason=None Restarts=0", False),  # scancel
        ("JobState=CANCELLED Reason=None", False),
        ("", False),
    ],
)
def test_what_slurm_says_of_a_job_decides(shown: str, ours: bool) -> None:
    assert (left_to_slurm(shown) == "") is ours


def test_a_job_that_slurm_has_ended_is_left_to_slurm(store: Store, scontrol: Scontrol, said: Callable[[], str]) -> None:
    make_sweep(store)
    Requeue(scontrol.build("JobState=COMPLETING Reason=None")).step(store, SWEEP)
    assert scontrol.calls == ["--oneliner show job 7_2"]
    assert "SLURM has ended it already (JobState=COMPLETING)" in said()


def test_a_refusal_is_told_with_its_cure(store: Store, scontrol: Scontrol, said: Callable[[], str]) -> None:
    make_sweep(store)
    Requeue(scontrol.build(requeue="echo Requested operation is presently disabled >&2; exit 1")).step(store, SWEEP)
    assert 'requeue-failed job=7_2 error="Requested operation is presently disabled"' in said()
    assert "`scontrol requeue` it by hand, or submit it again; its runs are on the run queue" in said()


def test_slurm_ends_the_job_before_scontrol_has_its_answer(
    store: Store, scontrol: Scontrol, said: Callable[[], str]
) -> None:
    make_sweep(store)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    Requeue(scontrol.build(requeue="kill -TERM $$; exit 0")).step(store, SWEEP)
    assert said() == "job-requeued job=7_2"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_scontrol_that_hangs_is_not_waited_for(
    store: Store, scontrol: Scontrol, said: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep(store)
    monkeypatch.setattr(requeue, "PATIENCE", 1.0)
    Requeue(scontrol.build(requeue="exec sleep 60")).step(store, SWEEP)
    assert "timed out after 1.0 seconds" in said()


def test_of_several_tasks_the_first_requeues_the_job(store: Store, scontrol: Scontrol) -> None:
    make_sweep(store)
    Requeue({**scontrol.build(), "SLURM_PROCID": "1"}).step(store, SWEEP)
    assert scontrol.calls == []


def test_a_node_without_scontrol_is_warned_of(store: Store, tmp_path: Path, said: Callable[[], str]) -> None:
    Requeue({**TASK, "PATH": str(tmp_path)}).step(store, SWEEP)
    assert 'no-scontrol job=7_2 next="after its time limit the job will not come back; put scontrol on PATH"' in said()


def test_outside_slurm_it_is_refused() -> None:
    assert job_to_requeue({"SLURM_JOB_ID": "9"}) == "9"
    with pytest.raises(AgentError, match="SLURM_JOB_ID is not set; leave it out") as caught:
        Requeue({})
    assert caught.value.exit_code is ExitCode.USAGE
