"""Who an agent is."""

from __future__ import annotations

from pathlib import Path

import pytest

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.identity import identify, slurm_name


def test_two_agents_side_by_side_differ_and_a_restarted_one_is_the_same_again(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    first, second = identify(None, {}, folder), identify(None, {}, folder)
    assert first.name != second.name
    first.release()
    again = identify(None, {}, folder)
    assert again.name == first.name
    assert again.session != first.session
    again.release()
    second.release()


def test_hosts_of_one_name_have_agents_of_different_names(tmp_path: Path) -> None:
    here, elsewhere = identify(None, {}, tmp_path / "a"), identify(None, {}, tmp_path / "b")
    assert here.name != elsewhere.name
    here.release()
    elsewhere.release()


def test_two_agents_in_one_slurm_job_differ_and_a_requeued_job_has_its_name_on_another_node(tmp_path: Path) -> None:
    environ = {"SLURM_JOB_ID": "12"}
    first, second = identify(None, environ, tmp_path / "n1"), identify(None, environ, tmp_path / "n1")
    elsewhere = identify(None, environ, tmp_path / "n2")
    assert [first.name, second.name, elsewhere.name] == ["slurm-12", "slurm-12-1", "slurm-12"]
    for identity in (first, second, elsewhere):
        identity.release()


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, "slurm-7"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}, "slurm-7_2"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "3"}, "slurm-7.p3"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, "slurm-7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}, "slurm-7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "4294967291"}, "slurm-7"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2"}, "slurm-7.s2"),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "2", "SLURM_NTASKS": "2", "SLURM_PROCID": "1"}, "slurm-7.s2.p1"),
    ],
)
def test_the_name_follows_from_the_slurm_job(environ: dict[str, str], name: str | None) -> None:
    assert slurm_name(environ) == name


def test_slots_have_ids_of_their_own() -> None:
    identity = identify("gpu", {})
    assert [identity.of_slot(number) for number in range(3)] == ["gpu", "gpu.1", "gpu.2"]


@pytest.mark.parametrize("name", ["", "a b", "a:b", "-x", "x" * 101])
def test_a_name_that_cannot_be_a_key_is_refused(name: str) -> None:
    with pytest.raises(AgentError, match="choose another --name") as caught:
        identify(name, {})
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(AgentError, match="only you can enter"):
        identify(None, {}, folder)
