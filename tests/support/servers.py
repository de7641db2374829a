"""Servers of a test's own: started on free addresses, killed, frozen and started again as the test likes."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, Literal, cast

import pytest
import redis

from resweep_scheduler.service.server import find_binary
from resweep_scheduler.store.connect import connect
from support.waiting import wait_until

# Below the ports that the kernel gives to outgoing connections (32768 and up): a client that keeps asking for a dead
# server's port could otherwise be given that very port, and meet itself. A cluster's bus has the port plus 10000.
PORTS = range(12000, 22000)


def free_port(*, also: int = 0) -> int:
    """A TCP port of the loopback interface that nobody has; with `also`, that many ports higher is free too.

    Until this process ends, no other call of it gives the port away, in this process or another one of the same user:
    neither before the test's server listens there, nor while the test keeps that server dead.
    """
    choose = random.SystemRandom()
    for _ in range(200):
        port = choose.choice(PORTS)
        if all(_reserve(number) and _is_free(number) for number in sorted({port, port + also})):
            return port
    raise AssertionError("found no free port in 200 attempts")


_reserved: set[int] = set()


def _reserve(port: int) -> bool:
    """Lock the byte of this number in a file that all test processes share; the kernel unlocks it when we are gone."""
    if port in _reserved:  # one's own locks are no obstacle to oneself
        return False
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _reserved.add(port)
    return True


@cache
def _reservations() -> BinaryIO:
    return (Path(tempfile.gettempdir()) / f"resweep-test-ports-{os.getuid()}").open("ab")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require(program: str) -> str:
    """The path of a program of the system's; where it is missing, the test is skipped, but under CI=true it fails."""
    # Debian keeps daemons where the search path of an ordinary user does not lead.
    if path := shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        return path
    if os.environ.get("CI") == "true":
        pytest.fail(f"{program} is not installed, and CI must have it")
    pytest.skip(f"{program} is not installed")


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
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)


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
    common = [binary or str(find_binary()), "--dir", str(home), "--save", "", *persistence, *extra]
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


class Sentinels:
    """One master, two replicas and three sentinels, which call the master "resweep".

    A master that does not answer for 1.5 s is replaced; that takes about 3 s.
    """

    name = "resweep"

    def __init__(self, servers: Sequence[Server], sentinels: Sequence[Server]) -> None:
        self.servers = list(servers)
        self.sentinels = list(sentinels)

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{self.name}/0"

    def master(self) -> Server:
        """The server that the first sentinel names as master now."""
        with self.sentinels[0].client() as client:
            _, port = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(server for server in self.servers if server.port == int(port))

    def _ready(self) -> bool:
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                seen = client.info("sentinel")["master0"]
            if (seen["status"], seen["slaves"], seen["sentinels"]) != ("ok", 2, 3):
                return False
        with self.servers[0].client() as client:
            replication = client.info("replication")
        return [replication.get(f"slave{number}", {}).get("state") for number in (0, 1)] == ["online", "online"]


@contextmanager
def sentinel_servers(directory: Path) -> Iterator[Sentinels]:
    """Redis of the system with Sentinel, complete and agreed."""
    program = require("redis-server")
    with ExitStack() as stack:
        extra: list[str] = ["--repl-diskless-sync-delay", "0"]
        servers: list[Server] = []
        for _ in range(3):
            servers.append(stack.enter_context(private_server(directory, binary=program, extra=extra)))
            extra = [*extra[:2], "--replicaof", f"127.0.0.1 {servers[0].port}"]
        sentinels = []
        for _ in range(3):
            port = free_port()
            home = directory / f"sentinel-{port}"
            home.mkdir()
            (home / "sentinel.conf").write_text(
                f"port {port}\nbind 127.0.0.1\ndir {home}\n"
                f"sentinel monitor {Sentinels.name} 127.0.0.1 {servers[0].port} 2\n"
                f"sentinel down-after-milliseconds {Sentinels.name} 1500\n"
                f"sentinel failover-timeout {Sentinels.name} 6000\n"
            )
            words = [program, str(home / "sentinel.conf"), "--sentinel"]
            sentinel = Server(home, url=f"redis://127.0.0.1:{port}", port=port, arguments=words)
            stack.callback(sentinel.kill)
            sentinel.start()
            sentinels.append(sentinel)
        group = Sentinels(servers, sentinels)
        wait_until(group._ready, timeout=30, description="the sentinels to know each other and the replicas")
        yield group


class Cluster:
    """Redis Cluster of three masters and three replicas; an owner of slots that is away 2 s is replaced (about 4 s)."""

    def __init__(self, nodes: Sequence[Server]) -> None:
        self.nodes = list(nodes)

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def owner(self, key: str) -> Server:
        """The node that holds `key` now, as the first node that runs sees it."""
        with next(node for node in self.nodes if node.running).client() as client:
            slot = client.execute_command("CLUSTER", "KEYSLOT", key)
            ranges = client.execute_command("CLUSTER", "SLOTS")
        port = next(master[1] for low, high, master, *_ in ranges if low <= slot <= high)
        return next(node for node in self.nodes if node.port == port)

    def _ready(self) -> bool:
        links = 0
        for node in self.nodes:
            with node.client() as client:
                if "cluster_state:ok" not in client.execute_command("CLUSTER", "INFO"):
                    return False
                links += client.info("replication").get("master_link_status") == "up"
        return links == 3  # a replica whose link was never up may never take over


@contextmanager
def cluster_servers(directory: Path, *, binary: str | None = None) -> Iterator[Cluster]:
    """A cluster of the system's Redis, or of `binary`, with all slots served and all replicas linked."""
    program, tool = binary or require("redis-server"), require("redis-cli")
    extra = [
        *("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"),
        *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
    ]
    with ExitStack() as stack:
        nodes = []
        for _ in range(6):
            node = private_server(directory, binary=program, port=free_port(also=10000), extra=extra)
            nodes.append(stack.enter_context(node))
        places = [f"127.0.0.1:{node.port}" for node in nodes]
        subprocess.run(
            [tool, "--cluster", "create", *places, "--cluster-replicas", "1", "--cluster-yes"],
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )
        cluster = Cluster(nodes)
        wait_until(cluster._ready, timeout=30, description="the cluster to be complete")
        yield cluster


AGENT_RULES = "~resweep:* &resweep:* +@all -@admin -@dangerous -function -script|flush +client|setname +client|id +info"
"""The least that an agent's ACL user needs."""


class SecureServer:
    """Redis that speaks TLS only and knows two users.

    Attributes:
        agent_url: Of user "agent", who has `AGENT_RULES`.
        viewer_url: Of user "viewer", who may read resweep's keys and nothing else.
        untrusted_url: Of the agent, without the certificate of the authority.
        plain_url: Without TLS.
    """

    def __init__(self, server: Server, authority: Path) -> None:
        self.server = server
        self.authority = authority
        place = f"127.0.0.1:{server.port}/0"
        self.agent_url = f"rediss://agent:s3cret%40@{place}?ssl_ca_certs={authority}"
        self.viewer_url = f"rediss://viewer:view@{place}?ssl_ca_certs={authority}"
        self.untrusted_url = f"rediss://agent:s3cret%40@{place}"
        self.plain_url = f"redis://agent:s3cret%40@{place}"


@contextmanager
def tls_acl_server(directory: Path) -> Iterator[SecureServer]:
    """Redis of the system with TLS and ACL users; its certificates are made by openssl on the way."""
    program, openssl = require("redis-server"), require("openssl")
    home = directory / f"tls-{os.urandom(4).hex()}"
    home.mkdir()
    (home / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for words in (
        "req -x509 -newkey rsa:2048 -nodes -days 30 -keyout ca.key -out ca.crt -subj /CN=resweep-test-ca",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile san -out server.crt",
    ):
        subprocess.run([openssl, *words.split()], cwd=home, check=True, capture_output=True, timeout=60)
    (home / "users.acl").write_text(
        f"user default off\nuser agent on >s3cret@ {AGENT_RULES}\n"
        "user viewer on >view ~resweep:* resetchannels +@read +ping +hello +client|setname +client|id\n"
    )
    port = free_port()
    words_of_server = [
        *(program, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""),
        *("--tls-cert-file", "server.crt", "--tls-key-file", "server.key", "--tls-ca-cert-file", "ca.crt"),
        *("--tls-auth-clients", "no", "--aclfile", str(home / "users.acl")),
    ]
    url = f"rediss://agent:s3cret%40@127.0.0.1:{port}/0?ssl_ca_certs={home / 'ca.crt'}"
    server = Server(home, url=url, port=port, arguments=words_of_server)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield SecureServer(server, home / "ca.crt")
