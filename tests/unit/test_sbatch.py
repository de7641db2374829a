"""The batch script of `resweep slurm`, without SLURM."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure
from resweep_scheduler.cli.sbatch import Batch, lead_time, reached_from_here_only
from resweep_scheduler.cli.slurm import job_environment

URL = "redis://head:6379/0"


def script(**more: Any) -> str:
    values: dict[str, Any] = {"sweep": "local/digits/abc", "url": URL, "agents": 8, "agent": "/v/sweep-agent"}
    return Batch(**{**values, "lead": 90, **more}).script()


def test_the_whole_script() -> None:
    text = script(
        resources=[("job-name", "tune"), ("time", "4:00:00"), ("mem", None), ("cpus-per-task", 4)],
        more=["--constraint=a100&ib"],
        setup=["module load cuda"],
        words=["--grace", "60"],
    )
    assert text == (
        "#!/bin/bash\n"
        "# Agents of the sweep local/digits/abc\n"
        "#SBATCH --array=1-8\n"
        "#SBATCH --requeue\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --signal=B:USR1@90\n"
        "#SBATCH --job-name=tune\n"
        "#SBATCH --time=4:00:00\n"
        "#SBATCH --cpus-per-task=4\n"
        "#SBATCH --constraint=a100&ib\n"
        "\n"
        "module load cuda\n"
        "export RESWEEP_URL=redis://head:6379/0\n"
        "export RESWEEP_SLURM_REQUEUE=1\n"
        "# The agent takes the place of the shell, so that SLURM's signals reach it.\n"
        "exec /v/sweep-agent --grace 60 local/digits/abc\n"
    )


def execute(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a node does with the script."""
    return subprocess.run(
        ["/bin/bash"], input=text, env=environment, capture_output=True, text=True, timeout=20, check=False
    )


def test_words_reach_the_agent_as_they_are(tmp_path: Path) -> None:
    agent = tmp_path / "an agent"
    agent.write_text('#!/bin/sh\nprintf "%s|" "$RESWEEP_URL" "$@"\n')
    agent.chmod(0o755)
    words = ["--dir", "a 'b' $HOME `c`", '"', "\\"]
    done = execute(script(agent=str(agent), words=words, url="redis://head/0?client_name=$x"))
    assert done.stdout.split("|")[:-1] == ["redis://head/0?client_name=$x", *words, "local/digits/abc"]


def test_a_password_is_not_written_down_and_a_job_without_it_says_so() -> None:
    text = script(url="redis://me:s3cret@head:6379/0", agent="/bin/echo")
    assert "s3cret" not in text
    without = execute(text)
    assert without.returncode != 0
    assert without.stdout == ""
    assert "RESWEEP_URL: is not set: its password is not written here; export it before sbatch" in without.stderr
    assert execute(text, RESWEEP_URL="redis://me:s3cret@head").stdout == "local/digits/abc\n"


def test_a_value_with_spaces_is_quoted() -> None:
    assert '#SBATCH --output="my logs/%A.out"\n' in script(resources=[("output", "my logs/%A.out")])


@pytest.mark.parametrize("value", ["", "a\nb", 'a"b', "a'b", "a\\b", "a\x00"])
def test_a_value_that_sbatch_would_read_in_its_own_way_is_refused(value: str) -> None:
    with pytest.raises(Failure, match=r"neither quotes, .*got --partition .*; write it without them") as caught:
        script(resources=[("partition", value)])
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("option", ["a100", "", "--x\n#SBATCH --y"])
def test_what_is_no_option_is_refused(option: str) -> None:
    with pytest.raises(Failure, match=r"--sbatch takes one option of sbatch in one line, got .*; write --sbatch="):
        script(more=[option])


@pytest.mark.parametrize(
    ("lead", "grace", "time", "expected"),
    [
        (None, 30.0, None, 90),
        (None, 0.5, "4:00:00", 61),
        (31, 30.0, "2", 31),
        (539, 30.0, "10", 539),
        (86_339, 30.0, "1-0", 86_339),
        (86_399, 30.0, "1-0:01", 86_399),
        (3_601, 30.0, "1:01:02", 3_601),
    ],
)
def test_the_lead_time_lies_between_grace_and_time_limit(
    lead: int | None, grace: float, time: str | None, expected: int
) -> None:
    assert lead_time(lead, grace, time) == expected


@pytest.mark.parametrize(
    ("lead", "time", "message"),
    [
        (30, None, r"longer than the grace of the runs, got --lead 30 with a grace of 30 s; give a longer --lead"),
        (60, "2", r"60 s before the lead time of 60 s, got --time 2 \(120 s\).* give a longer --time"),
        (None, "2:29", r"the lead time of 90 s, got --time 2:29 \(149 s\)"),
        (None, "4h", r"a time limit is MINUTES, .*, got --time '4h'; write --time 4:00:00"),
    ],
)
def test_times_that_do_not_fit_together_are_refused(lead: int | None, time: str | None, message: str) -> None:
    with pytest.raises(Failure, match=message):
        lead_time(lead, 30.0, time)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("unix:///tmp/s", True),
        ("redis://localhost:6379/0", True),
        ("redis://127.0.0.1/0", True),
        ("redis://me:pw@127.1.2.3:6379", True),
        ("redis://[::1]:6379/0", True),
        ("redis://", True),
        ("redis+sentinel://head:26379,localhost:26379/m", True),
        ("redis://head:6379/0", False),
        ("redis://localhost.example.org", False),
        ("rediss://me:pw@10.0.0.1:6379", False),
        ("redis://[fd00::1]:6379", False),
        ("redis+cluster://a:1,b:2", False),
    ],
)
def test_which_servers_other_machines_do_not_reach(url: str, here: bool) -> None:
    assert reached_from_here_only(url) is here


def test_jobs_inherit_nothing_of_the_job_that_submits_them() -> None:
    inside = {"SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "5", "SLURM_CONF": "/c", "A": "b", "RESWEEP_URL": "old"}
    assert job_environment(inside, URL) == {"SLURM_CONF": "/c", "A": "b", "RESWEEP_URL": URL}
    outside = {"SLURM_EXIT_ERROR": "1"}
    assert job_environment(outside, URL) == {**outside, "RESWEEP_URL": URL}
