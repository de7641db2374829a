"""Connecting to real servers of every kind, and what their refusals become."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisClusterException, RedisError
from support.servers import (
    Cluster,
    Sentinels,
    Server,
    cluster_servers,
    private_server,
    require,
    sentinel_servers,
    tls_acl_server,
)
from support.waiting import wait_until

from resweep_scheduler.store.connect import Client, connect
from resweep_scheduler.store.errors import StoreError, StoreRefusedError, StoreUnavailableError
from resweep_scheduler.store.faults import translate


@pytest.fixture(params=["packaged", "redis-server"])
def binary(request: pytest.FixtureRequest) -> str | None:
    """The server that resweep brings, and the system's Redis, whose words differ."""
    return None if request.param == "packaged" else require("redis-server")


def fault(url: str, call: Callable[[Client], object], *, timeout: float = 5.0) -> StoreError:
    """What becomes of the error that `call` meets; its message is one line, and keeps the password."""
    try:
        with connect(url, timeout=timeout) as client:
            answer = call(client)
    except StoreError as error:  # a cluster is asked at connecting
        found = error
    except (RedisError, RedisClusterException, OSError) as error:
        found = translate(error, url)
    else:
        raise AssertionError(f"nothing went wrong: {answer!r}")
    assert "\n" not in str(found)
    assert "s3cret" not in str(found)
    return found


def ping(client: Client) -> object:
    return client.ping()


def write(client: Client) -> object:
    return client.set("resweep:a", "1")


def script(text: str) -> Callable[[Client], object]:
    return lambda client: client.eval(text, 1, "resweep:a")


def refused(error: StoreError, words: str, *, temporary: bool = False) -> None:
    assert isinstance(error, StoreRefusedError), repr(error)
    assert words in str(error)
    assert error.temporary is temporary


def unavailable(error: StoreError, words: str) -> None:
    assert isinstance(error, StoreUnavailableError), repr(error)
    assert words in str(error)


def with_user(url: str, user: str) -> str:
    return url.replace("//", f"//{user}@", 1)


# One server


def test_a_tcp_url_reaches_its_server(server: Server) -> None:
    with server.client() as client:
        client.set("a", "1")
        assert client.get("a") == "1"


def test_a_unix_url_reaches_its_server(short_tmp: Path) -> None:
    with private_server(short_tmp, port="unix") as server, server.client() as client:
        client.set("a", "1")
        assert client.get("a") == "1"


def test_acknowledged_writes_survive_a_kill_and_the_client_finds_the_server_again(server: Server) -> None:
    with server.client() as client:
        client.set("a", "1")
        server.kill()
        unavailable(fault(server.url, ping), "cannot be reached (Error 111")
        server.start()
        assert client.get("a") == "1"


def test_a_password_that_lacks_or_is_wrong(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary, extra=["--requirepass", "s3cret"]) as server:
        refused(fault(server.url, ping), "disagree about a password (Authentication required): give the URL")
        refused(fault(with_user(server.url, ":bad-s3cret"), ping), "redis://:***@127.0.0.1")
        refused(fault(with_user(server.url, "ann:s3cret"), ping), "refuses the user or the password")
        with connect(with_user(server.url, ":s3cret")) as client:
            assert client.ping() is True


def test_a_password_that_nobody_asked_for(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary) as server:
        refused(fault(with_user(server.url, ":s3cret"), ping), "none if it has none")


def test_a_user_without_scripts_or_keys_or_commands(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary) as server:
        with server.client() as admin:
            for name, rules in {"ann": "-@scripting", "bob": "-xadd", "eve": "-info"}.items():
                admin.execute_command("ACL", "SETUSER", name, "on", ">s3cret", "~resweep:*", "+@all", rules)
        ann, bob, eve = (with_user(server.url, f"{name}:s3cret") for name in ("ann", "bob", "eve"))
        refused(fault(ann, script("return 1")), "does not let this user run Lua scripts")
        refused(fault(ann, lambda client: client.evalsha("0" * 40, 0)), "+@scripting")
        refused(fault(ann, lambda client: client.script_load("return 1")), "+@scripting")
        refused(fault(bob, script("redis.call('XADD', KEYS[1], '*', 'a', 'b')")), "does not allow this user")
        refused(fault(bob, script("return redis.call('SET', 'other', 1)")), "does not allow this user")
        refused(fault(eve, lambda client: client.set("other", 1)), "does not allow this user")
        refused(fault(eve, lambda client: client.info()), "'info'")


def test_memory_that_is_used_up(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary, extra=["--maxmemory-policy", "noeviction"]) as server:
        with server.client() as admin:
            fill = "for i = 1, 20 do redis.call('SET', 'resweep:' .. i, string.rep('x', 100000)) end"
            admin.eval(fill, 0)
            admin.config_set("maxmemory", "1mb")
        refused(fault(server.url, write), "memory limit", temporary=True)
        refused(fault(server.url, script("return redis.call('SET', KEYS[1], 1)")), "raise maxmemory", temporary=True)


def test_a_replica_takes_no_writes(tmp_path: Path, binary: str | None) -> None:
    with ExitStack() as stack:
        master = stack.enter_context(private_server(tmp_path, binary=binary))
        extra = ["--replicaof", f"127.0.0.1 {master.port}"]
        replica = stack.enter_context(private_server(tmp_path, binary=binary, extra=extra))
        refused(fault(replica.url, write), "read-only replica", temporary=True)
        refused(fault(replica.url, script("redis.call('SET', KEYS[1], 1)")), "master's address", temporary=True)


def test_too_few_replicas(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary, extra=["--min-replicas-to-write", "1"]) as server:
        refused(fault(server.url, write), "too few replicas", temporary=True)


def test_a_server_that_cannot_save_takes_no_writes(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary, appendfsync="") as server, server.client() as admin:
        admin.config_set("save", "3600 1")
        admin.set("a", "1")
        # A folder in the place of the file: saving fails for root, too.
        (server.directory / "dump.rdb" / "x").mkdir(parents=True)
        admin.bgsave()
        wait_until(
            lambda: admin.info("persistence")["rdb_last_bgsave_status"] == "err", description="the save to have failed"
        )
        refused(fault(server.url, write), "cannot write its data to disk", temporary=True)


def test_commands_that_were_renamed(tmp_path: Path, binary: str | None) -> None:
    extra = ["--rename-command", "EVAL", "", "--rename-command", "EVALSHA", "other"]
    with private_server(tmp_path, binary=binary, extra=extra) as server:
        error = fault(server.url, script("return 1"))
        refused(error, "lacks a command (unknown command 'EVAL'): use Redis 6.2 or later")
        refused(fault(server.url, lambda client: client.evalsha("0" * 40, 0)), "'EVALSHA')")


def test_a_server_busy_with_a_script(tmp_path: Path, binary: str | None) -> None:
    with private_server(tmp_path, binary=binary, extra=["--lua-time-limit", "20"]) as server:
        errors: list[StoreError] = []
        endless = threading.Thread(target=lambda: errors.append(fault(server.url, script("while true do end"))))
        endless.start()
        with server.client() as client:
            wait_until(lambda: is_busy(client), description="the script to be noticed")
            unavailable(fault(server.url, write), "is held up by somebody's Lua script")
            client.script_kill()
        endless.join(10)
        refused(errors[0], "had the script killed", temporary=True)


def is_busy(client: redis.Redis) -> bool:
    try:
        client.get("a")
    except redis.exceptions.ResponseError:
        return True
    return False


def test_no_connection_left(server: Server) -> None:
    with server.client() as admin:
        admin.config_set("maxclients", "1")
        unavailable(fault(server.url, ping), "has no connection left")


def test_a_frozen_server(server: Server) -> None:
    server.freeze()
    try:
        unavailable(fault(server.url, ping, timeout=0.2), "does not answer in time")
    finally:
        server.thaw()


def test_a_database_that_does_not_exist(server: Server) -> None:
    refused(fault(server.url.removesuffix("/0") + "/99", ping), "does not have the database")


def test_addresses_where_no_server_is(tmp_path: Path) -> None:
    unavailable(fault("redis://127.0.0.1:1", ping), "redis://127.0.0.1:1 cannot be reached")
    unavailable(fault(f"unix://{tmp_path}/none", ping), "cannot be reached (Error 2")
    unavailable(fault("redis://no-such-host.invalid", ping), "cannot be resolved")
    unavailable(fault("redis+cluster://127.0.0.1:1", ping), "cannot be reached")
    unavailable(fault("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster", ping), "no sentinel that names a master")


def test_the_wrong_kind_of_url(server: Server) -> None:
    place = f"127.0.0.1:{server.port}"
    refused(fault(f"redis+cluster://{place}", ping), "is no cluster")
    refused(fault(f"redis+sentinel://{place}/mymaster", ping), "is a server and no sentinel")


@contextmanager
def impostor() -> Iterator[int]:
    """A port that answers once, as a web server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def test_a_server_of_another_kind() -> None:
    with impostor() as port:
        refused(fault(f"redis://127.0.0.1:{port}", ping), "does not speak Redis' protocol")
    with impostor() as port:
        refused(fault(f"rediss://127.0.0.1:{port}", ping), "does not speak TLS")


def test_an_error_nobody_foresaw_names_itself(server: Server) -> None:
    error = fault(server.url, script("return redis.call('LPUSH', KEYS[1]) .. redis.error_reply('ODD thing')"))
    refused(error, "refused a command (")
    unavailable(translate(OSError("cable cut"), "redis://h"), "cannot be reached (cable cut)")
    unavailable(translate(TimeoutError(), "redis://h"), "does not answer in time (TimeoutError)")
    unavailable(translate(redis.exceptions.BusyLoadingError("Redis is loading the dataset"), "redis://h"), "is loading")
    unavailable(translate(redis.exceptions.ClusterDownError("CLUSTERDOWN no slot"), "redis://h"), "changed")


# TLS and ACL


def test_tls_and_acl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_acl_server(tmp_path) as secure:
        with connect(secure.agent_url) as client:
            assert client.eval("redis.call('SET', KEYS[1], 1) return redis.call('GET', KEYS[1])", 1, "resweep:a") == "1"
        refused(fault(secure.untrusted_url, ping), "certificate that is not trusted")
        refused(fault(secure.agent_url.replace("%40", ""), ping), "refuses the user or the password")
        refused(fault(secure.viewer_url, write), "does not allow this user")
        unavailable(fault(secure.plain_url, ping), "TLS")
        monkeypatch.setenv("SSL_CERT_FILE", str(secure.authority))
        with connect(secure.untrusted_url) as client:
            assert client.ping() is True


# Sentinel and Cluster


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[Sentinels]:
    with sentinel_servers(tmp_path) as group:
        yield group


def writes(client: Client) -> bool:
    """Whether a write works now; what is wrong must be called temporary."""
    try:
        client.eval("return redis.call('INCR', KEYS[1])", 1, "resweep:{a}:n")
    except (RedisError, RedisClusterException, OSError) as error:
        found = translate(error, "redis://h")
        assert isinstance(found, StoreUnavailableError) or (isinstance(found, StoreRefusedError) and found.temporary)
        return False
    return True


def test_sentinel_leads_to_the_new_master(sentinels: Sentinels) -> None:
    with connect(sentinels.url, timeout=1.0) as client:
        assert writes(client)
        first = sentinels.master()
        first.kill()
        wait_until(lambda: writes(client), timeout=30, interval=0.1, description="a new master")
        assert sentinels.master() is not first
        assert client.get("resweep:{a}:n") == "2"
    wrong = sentinels.url.replace("/resweep/", "/other/")
    unavailable(fault(wrong, ping), "the master's name at the end of the URL")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with cluster_servers(tmp_path) as nodes:
        yield nodes


def test_a_cluster_is_found_by_any_node_and_survives_its_owner(cluster: Cluster) -> None:
    dead = "redis+cluster://127.0.0.1:1," + cluster.url.removeprefix("redis+cluster://")
    with ExitStack() as stack:
        client = stack.enter_context(connect(dead, timeout=1.0))
        assert writes(client)
        owner = cluster.owner("resweep:{a}:n")
        alone = next(node for node in cluster.nodes if node is not owner)
        refused(fault(f"redis://127.0.0.1:{owner.port}", lambda one: moved(one, cluster)), "is a node of a cluster")
        owner.kill()
        wait_until(lambda: writes(client), timeout=30, interval=0.1, description="a new owner")
        with connect(f"redis+cluster://127.0.0.1:{alone.port}") as another:
            assert another.get("resweep:{a}:n") == client.get("resweep:{a}:n")


def moved(client: Client, cluster: Cluster) -> object:
    """Read keys of several owners from one of them."""
    assert len({cluster.owner(f"key{number}").port for number in range(20)}) > 1
    return [client.get(f"key{number}") for number in range(20)]


def test_keys_of_several_slots_are_refused(cluster: Cluster) -> None:
    refused(fault(cluster.url, lambda client: client.eval("return 1", 2, "a", "b")), "refused a command")
