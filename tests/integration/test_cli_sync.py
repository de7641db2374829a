"""`resweep sync` sends what runs left in files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import Server, free_port

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.main import run
from resweep_scheduler.store import Scope, open_store

SCRIPT = """\
import resweep
with resweep.init(id="left", mode="offline", config={"lr": 0.1}) as run:
    for step in range(3):
        run.log({"loss": 1.0 / (step + 1)})
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A folder in which an offline run left its rows."""
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, check=True, timeout=60)
    assert list(tmp_path.rglob("*.jsonl"))
    return tmp_path


def test_sync_sends_the_rows_and_removes_the_files(
    left: Path, shared_server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sync", str(left), "--url", shared_server.url]) == 0
    assert "3 rows stored" in capsys.readouterr().err
    rows = open_store(shared_server.url, Scope()).history("left")
    assert [(row.step, row.values["loss"]) for row in rows] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert not list(left.rglob("*.jsonl"))
    assert run(["sync", str(left), "--url", shared_server.url]) == 0
    assert "no rows wait" in capsys.readouterr().err


def test_sync_keeps_what_cannot_be_sent(left: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sync", str(left), "--url", f"redis://127.0.0.1:{free_port()}"]) == ExitCode.REDIS_UNAVAILABLE
    assert "kept for later" in capsys.readouterr().err
    assert list(left.rglob("*.jsonl"))


def test_sync_of_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sync", str(tmp_path / "absent")]) == ExitCode.USAGE
    assert "does not exist" in capsys.readouterr().err
