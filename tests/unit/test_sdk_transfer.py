"""Checkpoints on their way to an object store and back: whole or not at all, by size and digest, never outside."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.buckets import FailingBucket

from resweep import transfer
from resweep.bucket import Bucket, UnreachableError, open_bucket
from resweep.errors import UsageError
from resweep.manifest import DamagedError, File, Manifest
from resweep.parallel import in_order
from resweep.transfer import download, upload

PREFIX = "local/p/r1/step-1-attempt-1-00000000"


@pytest.fixture(params=["memory", "file"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return open_bucket(f"memory://{tmp_path}" if request.param == "memory" else f"file://{tmp_path}/objects")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of some KB have several parts."""
    monkeypatch.setattr(transfer, "PART", 1000)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A folder with files of all sizes, odd names and a folder that is empty."""
    folder = tmp_path / "state"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "model.bin").write_bytes(os.urandom(4500))
    (folder / "deep" / "nothing").touch()
    (folder / "deep" / "just one part").write_bytes(os.urandom(1000))
    (folder / "deep" / "größe 100%.txt").write_text("1")
    (folder / "link").symlink_to("model.bin")
    (folder / "dangling").symlink_to("nowhere")
    return folder


def send(bucket: Bucket, source: Path, prefix: str = PREFIX) -> None:
    upload(bucket, prefix, source, step=1, metadata={"epoch": 2})


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.exists()
    }


def test_a_folder_comes_back_as_it_was(bucket: Bucket, state: Path, tmp_path: Path) -> None:
    send(bucket, state)
    path, manifest = download(bucket, PREFIX, tmp_path / "here")
    assert path == tmp_path / "here" / "state"
    assert contents(path) == contents(state)
    assert (manifest.step, manifest.metadata) == (1, {"epoch": 2})


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 12345])
def test_a_file_comes_back_as_it_was(bucket: Bucket, tmp_path: Path, size: int) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes(os.urandom(size))
    send(bucket, source)
    path, _ = download(bucket, PREFIX, tmp_path / "here")
    assert path == tmp_path / "here" / "model.pt"
    assert path.read_bytes() == source.read_bytes()


def test_what_is_here_and_right_is_not_fetched_again(bucket: Bucket, state: Path, tmp_path: Path) -> None:
    send(bucket, state)
    download(bucket, PREFIX, tmp_path / "here")
    counting = FailingBucket(bucket, -1, RuntimeError())
    download(counting, PREFIX, tmp_path / "here")
    assert counting.calls == 2, "the list and the manifest"
    (tmp_path / "here" / "state" / "model.bin").write_bytes(b"changed by the script")
    path, _ = download(bucket, PREFIX, tmp_path / "here")
    assert contents(path) == contents(state)


def test_an_upload_that_fails_at_any_call_leaves_no_checkpoint(bucket: Bucket, state: Path, tmp_path: Path) -> None:
    """The manifest is the last call, so a reader finds all of it or none."""
    calls = 0
    while True:
        failing = FailingBucket(bucket, calls, UnreachableError("gone"))
        prefix = f"local/p/r1/step-{calls}-attempt-1-00000000"
        try:
            send(failing, state, prefix)
        except UnreachableError:
            with pytest.raises(DamagedError, match="it is not there"):
                download(bucket, prefix, tmp_path / "here")
            calls += 1
        else:
            break
    assert calls == len([path for path in state.rglob("*") if path.is_file()]) + 1


def test_a_download_that_fails_at_any_call_is_continued(bucket: Bucket, state: Path, tmp_path: Path) -> None:
    send(bucket, state)
    fetched = []
    for calls in range(100):
        failing = FailingBucket(bucket, calls, UnreachableError("gone"))
        try:
            path, _ = download(failing, PREFIX, tmp_path / "here")
        except UnreachableError:
            assert not (tmp_path / "here").exists()
            fetched.append(sum(len(data or b"") for data in contents(tmp_path).values()))
        else:
            break
    assert contents(path) == contents(state)
    assert calls > 3
    assert fetched == sorted(fetched)


def test_only_what_is_missing_is_fetched(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes(os.urandom(10_000))
    send(bucket, source)
    partial = tmp_path / "here.partial"
    partial.mkdir()
    (partial / "model.pt").write_bytes(source.read_bytes()[:7500])
    counting = FailingBucket(bucket, -1, RuntimeError())
    path, _ = download(counting, PREFIX, tmp_path / "here")
    assert path.read_bytes() == source.read_bytes()
    assert counting.calls == 2 + 3, "the list, the manifest, and three parts of a thousand bytes"


@pytest.mark.parametrize("left", [b"rubbish" * 100, b"x" * 10_001])
def test_a_part_that_is_no_part_of_it_is_thrown_away(bucket: Bucket, tmp_path: Path, left: bytes) -> None:
    source = tmp_path / "model.pt"
    source.write_bytes(os.urandom(10_000))
    send(bucket, source)
    partial = tmp_path / "here.partial"
    partial.mkdir()
    (partial / "model.pt").write_bytes(left)
    path, _ = download(bucket, PREFIX, tmp_path / "here")
    assert path.read_bytes() == source.read_bytes()


DAMAGES: dict[str, tuple[Callable[[Bucket], None], str]] = {
    "another digest": (
        lambda bucket: bucket.put(f"{PREFIX}/files/model.bin", b"x" * 4500),
        "'model.bin' has another digest than when it was saved",
    ),
    "too short": (
        lambda bucket: bucket.put(f"{PREFIX}/files/model.bin", b"x" * 4499),
        "'model.bin', of 4500 bytes, has 4499 bytes",
    ),
    "a file is gone": (
        lambda bucket: bucket.delete([f"{PREFIX}/files/deep/nothing"]),
        "'deep/nothing', of 0 bytes, is missing",
    ),
    "the manifest is gone": (lambda bucket: bucket.delete([f"{PREFIX}/manifest.json"]), "it is not there"),
    "the manifest is cut": (
        lambda bucket: bucket.put(f"{PREFIX}/manifest.json", b'{"resweep_checkpoint": 1, "name'),
        "its manifest cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(bucket: Bucket, state: Path, tmp_path: Path, damage: str) -> None:
    send(bucket, state)
    do, message = DAMAGES[damage]
    do(bucket)
    with pytest.raises(DamagedError, match=re.escape(message)):
        download(bucket, PREFIX, tmp_path / "here")
    assert not (tmp_path / "here").exists()


GOOD = Manifest("state", True, (File("a", 0, "0" * 64),))


@pytest.mark.parametrize(
    "name",
    ["../a", "/etc/passwd", "a/../../b", "", ".", "a//b", "a\0b", "a/", ["a"], 3],
)
def test_names_that_leave_the_folder_are_refused(name: str) -> None:
    for bad in (
        replace(GOOD, files=(File(name, 0, "0" * 64),)),
        replace(GOOD, empty=(name,)),
        replace(GOOD, name=name),
    ):
        with pytest.raises(DamagedError, match="does not lie in the checkpoint's folder"):
            Manifest.decode(bad.encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resweep_checkpoint": 2}, "its manifest is of version 2, and this is version 1"),
        ({"files": [{"name": "a", "size": -1, "sha256": "0" * 64}]}, "has no size and digest of 'a'"),
        ({"files": [{"name": "a", "size": 1, "sha256": "0"}]}, "has no size and digest of 'a'"),
        ({"files": [{"name": "a", "size": 1, "sha256": "0" * 64}] * 2}, "does not name each file once"),
        ({"folder": False}, "does not name each file once"),
        ({"more": 1}, r"cannot be read \(TypeError\)"),
        ({"files": 3}, r"cannot be read \(TypeError\)"),
    ],
)
def test_manifests_that_make_no_sense_are_refused(change: dict[str, object], message: str) -> None:
    assert Manifest.decode(GOOD.encode()) == GOOD
    with pytest.raises(DamagedError, match=message):
        Manifest.decode(json.dumps(json.loads(GOOD.encode()) | change).encode())


def test_a_name_that_escapes_is_never_written(bucket: Bucket, state: Path, tmp_path: Path) -> None:
    send(bucket, state)
    evil = Manifest("state", True, (File("../../evil", 4, "0" * 64),))
    bucket.put(f"{PREFIX}/manifest.json", evil.encode())
    with pytest.raises(DamagedError):
        download(bucket, PREFIX, tmp_path / "a" / "here")
    assert not list(tmp_path.rglob("evil"))


def test_a_source_that_cannot_be_read_is_the_sources_fault(bucket: Bucket, tmp_path: Path) -> None:
    """And not one of the object store, which would only be told."""

    def check() -> None:
        raise PermissionError("no reading here")

    source = tmp_path / "model.pt"
    source.write_bytes(os.urandom(3000))
    with pytest.raises(PermissionError, match="no reading here"):
        upload(bucket, PREFIX, source, step=1, metadata={}, check=check)


def test_calls_side_by_side_come_in_order_and_never_more_than_allowed() -> None:
    under_way: set[int] = set()
    most = 0

    def call(item: int) -> int:
        nonlocal most
        under_way.add(item)
        most = max(most, len(under_way))
        under_way.discard(item)
        return item * item

    assert list(in_order(call, range(20), workers=3)) == [(item, item * item) for item in range(20)]
    assert most <= 3
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda item: 1 // item, [1, 0, 1], workers=3))


def test_without_obstore_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(UsageError, match=r"s3://b/x need the package obstore.*pip install 'resweep\[checkpoints\]'"):
        open_bucket("s3://b/x")


def test_a_setting_that_is_missing_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(UsageError, match=r"cannot go to az://box/x: .*Account must be specified; .*AZURE_STORAGE_"):
        open_bucket("az://box/x")
