"""An S3 server on loopback, and object stores whose calls fail when a test says so."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import localbucket

from resweep.bucket import Bucket

BUCKET = "ckpt"
PATIENCE = 60.0
"""Seconds in which a request comes, and for which it is held up at most."""


class _Handler(localbucket.S3Handler):  # type: ignore[misc]
    """One request, which the server's `watch` may hold up or refuse."""

    server: Any
    data_root: Path

    def _dispatch(self, action: Any) -> None:
        owner: S3Server = self.server.owner
        line = f"{self.command} {self.path.partition('?')[0]}"
        with owner.lock:
            owner.requests.append(line)
        if owner.watch(line):
            super()._dispatch(action)
        else:
            self.close_connection = True


@dataclass
class S3Server:
    """An S3 server in this process.

    Attributes:
        folder: Where the objects are, as files.
        requests: Method and path of all requests so far.
        watch: Told each of them, before it is answered; False to close its connection without an answer.
    """

    folder: Path
    port: int
    requests: list[str] = field(default_factory=list)
    watch: Callable[[str], bool] = lambda line: True
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"s3://{BUCKET}/sweeps"

    @property
    def environment(self) -> dict[str, str]:
        """What a process must have set to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "test-key-id",
            "AWS_SECRET_ACCESS_KEY": "test-secret-key",
            "AWS_REGION": "us-east-1",
        }

    def objects(self) -> list[str]:
        """The keys of all objects below the URL."""
        base = self.folder / BUCKET / "sweeps"
        # Unlike Path.rglob, os.walk goes on where a folder is removed at that moment.
        return sorted(
            (Path(at) / name).relative_to(base).as_posix() for at, _, files in os.walk(base) for name in files
        )


class Hold:
    """Holds up the first request that matches a pattern, once `pass_over` others that match have passed."""

    def __init__(self, server: S3Server, pattern: str, *, pass_over: int = 0) -> None:
        self._pattern = re.compile(pattern)
        self._left = pass_over
        self._reached = threading.Event()
        self._released = threading.Event()
        self._lock = threading.Lock()
        server.watch = self._watch

    def _watch(self, line: str) -> bool:
        with self._lock:
            matches = self._pattern.search(line) is not None and not self._reached.is_set()
            if matches and self._left:
                self._left -= 1
                matches = False
            if matches:
                self._reached.set()
        if matches:
            self._released.wait(PATIENCE)
        return True

    def wait(self) -> None:
        """Until the request has come."""
        assert self._reached.wait(PATIENCE), f"no request {self._pattern.pattern!r} came"

    def release(self) -> None:
        """Answer it."""
        self._released.set()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """An S3 server with one bucket, in a thread."""
    (folder / BUCKET).mkdir(parents=True)
    logging.getLogger("localbucket").setLevel(logging.ERROR)
    handler = type("Handler", (_Handler,), {"data_root": folder})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    owner = S3Server(folder, server.server_port)
    server.owner = owner  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class FailingBucket(Bucket):
    """A bucket one of whose calls fails: the one with the number `fails_at`, counted from 0."""

    def __init__(self, bucket: Bucket, fails_at: int, error: Exception) -> None:
        super().__init__(bucket.url, bucket._store)
        self.calls = 0
        self._fails_at = fails_at
        self._error = error

    def _count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self._fails_at:
            raise self._error

    def put(self, key: str, data: bytes) -> None:
        self._count()
        super().put(key, data)

    def put_large(self, key: str, parts: Any, *, size: int) -> None:
        self._count()
        super().put_large(key, parts, size=size)

    def get(self, key: str) -> bytes:
        self._count()
        return super().get(key)

    def get_range(self, key: str, start: int, end: int) -> bytes:
        self._count()
        return super().get_range(key, start, end)

    def sizes(self, prefix: str) -> dict[str, int]:
        self._count()
        return super().sizes(prefix)
