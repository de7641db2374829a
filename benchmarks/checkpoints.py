"""How fast checkpoints go to an object store and come back.

`save_checkpoint` of one file of random bytes (upload, digest, manifest, commit in Redis), and `restore_checkpoint` of
it to an empty folder (download, digest), against what one would write by hand with obstore: `put` of the same file, and
`get` streamed to a file, both without any check. The stores are a folder (file://) and an S3 server on loopback, which
is Python and slower than any real one; it runs in a process of its own. Rounds of ours and of plain obstore take turns,
and which goes first does, too.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import harness
from harness import Figure, Report, Spread

MB = 1_000_000
BUCKET = "bench"
PROJECT = "checkpoints"
TIMEOUT = timedelta(minutes=10)  # of plain obstore's requests: it gets 1 GB in one


@dataclass(slots=True)
class Taken:
    """MB/s of each round."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)


@contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """An S3 server with one bucket; the environment says where it is."""
    (folder / BUCKET).mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "localbucket", str(folder), "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench-secret",
        "AWS_REGION": "us-east-1",
    }
    try:
        deadline = time.monotonic() + harness.START_TIMEOUT
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("localbucket did not start; is it installed? pip install localbucket")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


def plain_store(url: str) -> Any:
    """The same place, opened as its documentation says."""
    from obstore.store import LocalStore, from_url

    if url.startswith("file://"):
        return LocalStore(url.removeprefix("file://"), mkdir=True)
    return from_url(url, client_options={"allow_http": True, "timeout": TIMEOUT})


class Pair:
    """Saves and restores one file, by resweep and by plain obstore."""

    def __init__(self, url: str, source: Path, folder: Path) -> None:
        self._url = url
        self._source = source
        self._folder = folder
        self._store = plain_store(f"{url}/plain")
        self._megabytes = source.stat().st_size / MB

    def round(self, run_id: str, saves: Taken, restores: Taken, *, ours_first: bool) -> None:
        pairs: list[tuple[list[float], Callable[[], float]]] = [
            (saves.ours, lambda: self._save(run_id)),
            (saves.theirs, self._put),
            (restores.ours, lambda: self._restore(run_id)),
            (restores.theirs, self._get),
        ]
        order = (0, 1, 2, 3) if ours_first else (1, 0, 3, 2)
        for place in order:
            values, call = pairs[place]
            values.append(self._megabytes / call())
        for leftover in self._folder.iterdir():
            shutil.rmtree(leftover)

    def _save(self, run_id: str) -> float:
        import resweep

        with resweep.init(id=run_id, project=PROJECT, dir=self._folder / "one", checkpoint_url=self._url) as run:
            start = time.perf_counter()
            saving = run.save_checkpoint(self._source, step=1, wait=True)
            taken = time.perf_counter() - start
            assert saving == self._source
        return taken

    def _restore(self, run_id: str) -> float:
        import resweep

        folder = self._folder / "two"
        with resweep.init(
            id=run_id, project=PROJECT, resume="must", dir=folder, checkpoint_url=self._url, checkpoint_keep=1
        ) as run:
            start = time.perf_counter()
            path = run.restore_checkpoint()
            taken = time.perf_counter() - start
            if path is None or path.stat().st_size != self._source.stat().st_size:
                raise RuntimeError(f"the checkpoint did not come back from {self._url}")
        return taken

    def _put(self) -> float:
        import obstore

        start = time.perf_counter()
        obstore.put(self._store, "model", self._source)
        return time.perf_counter() - start

    def _get(self) -> float:
        import obstore

        target = self._folder / "plain"
        target.mkdir()
        start = time.perf_counter()
        with (target / "model").open("wb") as file:
            for part in obstore.get(self._store, "model").stream():
                file.write(part)
        return time.perf_counter() - start


def measure(quick: bool) -> Report:
    """Both stores, both sizes."""
    sizes = ((8 * MB, 1),) if quick else ((100 * MB, 5), (1000 * MB, 2))
    report = Report("Checkpoints: to an object store and back")
    for name in [name for name in os.environ if name.startswith(("RESWEEP_", "WANDB_", "AWS_"))]:
        del os.environ[name]
    with (
        harness.private_server("always") as server,
        tempfile.TemporaryDirectory(prefix="resweep-checkpoints-") as base,
        s3_server(Path(base, "s3")),
    ):
        os.environ["RESWEEP_URL"] = server.url
        work = Path(base, "work")
        work.mkdir()
        for size, rounds in sizes:
            source = Path(base, "model.pt")
            source.write_bytes(os.urandom(size))
            for label, url in (("file", f"file://{base}/objects"), ("S3 on loopback", f"s3://{BUCKET}/objects")):
                harness.say(f"checkpoints: {size // MB} MB, {label}")
                pair, saves, restores = Pair(url, source, work), Taken(), Taken()
                for number in range(rounds):
                    run_id = f"{size}-{label[:2]}-{number}"
                    pair.round(run_id, saves, restores, ours_first=number % 2 == 0)
                    shutil.rmtree(Path(base, "objects"), ignore_errors=True)
                    shutil.rmtree(Path(base, "s3", BUCKET, "objects"), ignore_errors=True)
                for what, taken in (("save", saves), ("restore", restores)):
                    report.figures.append(_figure(f"{what}, {size // MB} MB, {label}", taken))
    return report


def _figure(name: str, taken: Taken) -> Figure:
    ratio = harness.paired_ratio(taken.ours, taken.theirs)
    return Figure(name, "MB/s", Spread.of(taken.ours), "plain obstore", Spread.of(taken.theirs), f"x {ratio:.2f}")


if __name__ == "__main__":
    harness.main(measure, __doc__)
