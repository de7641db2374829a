"""Large and odd checkpoints in real object stores: S3 on loopback and a folder as an object store."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from support.buckets import BUCKET, Hold, S3Server, s3_server
from support.sdk import run_script, start_script
from support.servers import Server

MIB = 1024 * 1024

SAVE = """
    import sys, resweep
    with resweep.init(id="r1") as run:
        run.log({"loss": 1.0})
        run.save_checkpoint(sys.argv[1])
"""
RESTORE = """
    import resweep
    with resweep.init(id="r1", resume="must") as run:
        path = run.restore_checkpoint()
        path.rename("restored")
        print(path.name, run.checkpoint_step)
"""


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    with s3_server(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def environment(s3: S3Server, shared_server: Server) -> dict[str, str]:
    """What a script must have set to log, and to save to S3."""
    return {**s3.environment, "RESWEEP_URL": shared_server.url, "RESWEEP_CHECKPOINT_URL": s3.url}


def machine(tmp_path: Path, name: str) -> Path:
    """A folder that stands for a machine of its own."""
    folder = tmp_path / name
    folder.mkdir()
    return folder


def save(folder: Path, environment: Mapping[str, str], source: Path) -> None:
    assert run_script(SAVE, folder, environment, str(source)) == (0, "", "")


def test_a_large_file_is_sent_in_parts_and_comes_back(
    tmp_path: Path, s3: S3Server, environment: dict[str, str]
) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(os.urandom(20 * MIB + 1))
    save(machine(tmp_path, "one"), environment, model)
    parts = [line for line in s3.requests if line.startswith("PUT") and line.endswith("/files/model.pt")]
    assert len(parts) == 3
    two = machine(tmp_path, "two")
    assert run_script(RESTORE, two, environment) == (0, "model.pt 0\n", "")
    assert (two / "restored").read_bytes() == model.read_bytes()


def test_a_download_that_was_killed_is_continued_where_it_stood(
    tmp_path: Path, s3: S3Server, environment: dict[str, str]
) -> None:
    model = tmp_path / "model.pt"
    model.write_bytes(os.urandom(160 * MIB))
    save(machine(tmp_path, "one"), environment, model)
    two = machine(tmp_path, "two")
    hold = Hold(s3, "GET .*/files/model.pt", pass_over=12)
    with start_script(RESTORE, two, environment) as process:
        hold.wait()
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    hold.release()
    (partial,) = two.rglob("model.pt")
    there = partial.stat().st_size
    assert 0 < there < model.stat().st_size
    assert partial.read_bytes() == model.read_bytes()[:there]
    s3.requests.clear()
    assert run_script(RESTORE, two, environment) == (0, "model.pt 0\n", "")
    assert (two / "restored").read_bytes() == model.read_bytes()
    fetched = [line for line in s3.requests if line.startswith("GET") and line.endswith("/files/model.pt")]
    assert len(fetched) == -(-(model.stat().st_size - there) // (8 * MIB))


def test_folders_with_odd_names_come_back(tmp_path: Path, s3: S3Server, environment: dict[str, str]) -> None:
    state = tmp_path / "mein stand"
    (state / "a b" / "leer").mkdir(parents=True)
    names = ["größe 100%.txt", "a b/#1?.bin", "a b/x+y=z&.bin", "back\\slash", ".hidden", "日本", "a b/tab\tnewline\n"]
    for name in names:
        (state / name).write_text(name)
    save(machine(tmp_path, "one"), environment, state)
    two = machine(tmp_path, "two")
    assert run_script(RESTORE, two, environment)[0] == 0
    assert {name: (two / "restored" / name).read_text() for name in names} == {name: name for name in names}
    assert (two / "restored" / "a b" / "leer").is_dir()


def test_a_bucket_that_does_not_exist_is_told_and_fails_no_script(
    tmp_path: Path, s3: S3Server, environment: dict[str, str]
) -> None:
    model = tmp_path / "model.pt"
    model.write_text("1")
    (s3.folder / BUCKET).rmdir()
    code, _, errors = run_script(SAVE, machine(tmp_path, "one"), environment, str(model))
    assert code == 0
    assert "was not saved: s3://ckpt/sweeps cannot be written: there is no such bucket" in errors


def test_memory_is_bounded_whatever_the_size(tmp_path: Path, shared_server: Server) -> None:
    model = tmp_path / "model.pt"
    with model.open("wb") as file:
        file.truncate(400 * MIB)
    script = """
        import resource, sys, resweep
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        with resweep.init(id="r1") as run:
            before = peak()
            run.save_checkpoint(sys.argv[1], step=1)
        with resweep.init(id="r1", resume="must") as run:
            assert run.restore_checkpoint() is not None
        print(peak() - before)
    """
    environment = {"RESWEEP_URL": shared_server.url, "RESWEEP_CHECKPOINT_URL": f"file://{tmp_path}/objects"}
    code, output, errors = run_script(script, machine(tmp_path, "one"), environment, str(model))
    assert (code, errors) == (0, "")
    assert int(output) < 250, "MiB"
