"""What `examine` says about real servers, well and ill."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from pathlib import Path

import pytest
from support.servers import Server, cluster_servers, private_server, sentinel_servers, tls_acl_server

from resweep_scheduler.service.doctor import PROBES, Check, examine
from resweep_scheduler.service.server import ensure_server

ALL = (
    *("connection", "topology", "version", "role", "persistence", "eviction", "memory", "clock"),
    *("latency", "scripts", "permissions"),
)


def look(url: str) -> dict[str, Check]:
    """The checks by name; each that is not well has a cure, all are one line and keep the password."""
    checks = examine(url)
    for check in checks:
        assert bool(check.cure) is (check.status != "ok"), check
        assert "\n" not in check.detail + check.cure
        assert "s3cret" not in check.detail + check.cure
    return {check.name: check for check in checks}


def bad(checks: dict[str, Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks.values() if check.status != "ok"}


def test_the_embedded_server_is_well() -> None:
    checks = look(ensure_server())
    assert tuple(checks) == ALL
    assert bad(checks) == {}
    assert checks["version"].detail.startswith("Valkey ")
    assert checks["persistence"].detail == "AOF is on, appendfsync always"
    assert checks["topology"].detail == "a single server"
    assert re.fullmatch(r"\d+\.\d ms for a reply, \d+\.\d ms for a write", checks["latency"].detail)


def test_nothing_stays_behind(server: Server) -> None:
    with server.client() as client:
        client.set("mine", "1")
        examine(server.url)
        assert client.keys("*") == ["mine"]


def test_the_probes_know_every_command_of_the_scripts() -> None:
    """A command that a script begins to use must be tried by the doctor, too."""
    lua = files("resweep_scheduler.store") / "lua"
    folders = [lua, lua / "shared"]
    texts = [file.read_text() for folder in folders for file in folder.iterdir() if file.name.endswith(".lua")]
    used = {name.upper() for text in texts for name in re.findall(r"redis\.p?call\(\s*['\"](\w+)", text)}
    assert used
    assert used - {words[0] for words in PROBES} == set()


def test_a_server_that_is_not_there() -> None:
    (check,) = examine("redis://:s3cret@127.0.0.1:1")
    assert check.name == "connection"
    assert check.status == "fail"
    assert check.detail.startswith("redis://:***@127.0.0.1:1 cannot be reached (Error 111")
    assert check.cure.startswith("see whether it runs")


def test_an_address_that_makes_no_sense() -> None:
    (check,) = examine("http://h")
    assert (check.name, check.status, check.cure) == ("connection", "fail", "write redis://host:6379/0")


def test_a_password_that_lacks(tmp_path: Path) -> None:
    with private_server(tmp_path, extra=["--requirepass", "s3cret"]) as server:
        checks = look(server.url)
        assert bad(checks) == {"connection": "fail"}
        assert "password" in checks["connection"].cure
        assert bad(look(server.url.replace("//", "//:s3cret@"))) == {}


@pytest.mark.parametrize(
    ("appendfsync", "words"),
    [("", "AOF is off"), ("everysec", "up to a second of acknowledged writes"), ("no", "many seconds")],
)
def test_persistence_that_may_lose_writes(tmp_path: Path, appendfsync: str, words: str) -> None:
    with private_server(tmp_path, appendfsync=appendfsync) as server:
        checks = look(server.url)
        assert bad(checks) == {"persistence": "warn"}
        assert words in checks["persistence"].detail
        assert "CONFIG SET appendfsync always" in checks["persistence"].cure


def test_memory_policy_and_limit(server: Server) -> None:
    with server.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert bad(look(server.url)) == {"eviction": "warn"}
        client.config_set("maxmemory", "1gb")
        checks = look(server.url)
        assert bad(checks) == {"eviction": "fail"}
        assert "CONFIG SET maxmemory-policy noeviction" in checks["eviction"].cure
        client.config_set("maxmemory-policy", "noeviction")
        client.set("resweep:a", "x" * 10_000_000)
        used = client.info("memory")["used_memory"]
        client.config_set("maxmemory", used * 11 // 10)
        checks = look(server.url)
        assert bad(checks) == {"memory": "warn"}
        assert re.fullmatch(r"\d\d MiB of \d\d MiB \(maxmemory\) in use", checks["memory"].detail)
        client.config_set("maxmemory", used // 2)
        assert bad(look(server.url)) == dict.fromkeys(["memory", "latency", "permissions"], "fail")


def test_a_replica(tmp_path: Path, server: Server) -> None:
    with private_server(tmp_path, extra=["--replicaof", f"127.0.0.1 {server.port}"]) as replica:
        checks = look(replica.url)
        assert checks["role"].status == "fail"
        assert f"its master (127.0.0.1:{server.port})" in checks["role"].cure
        assert checks["permissions"].status == "fail"


@pytest.mark.parametrize(
    ("rules", "expected", "words"),
    [
        ("-@scripting", {"scripts": "fail"}, "+@scripting"),
        ("-xadd -zadd", {"permissions": "fail"}, "+zadd +xadd"),
        ("resetkeys ~other:*", {"permissions": "fail", "latency": "fail", "scripts": "fail"}, "~resweep:*"),
        ("-config", {}, ""),
    ],
)
def test_rights_that_lack(server: Server, rules: str, expected: dict[str, str], words: str) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">s3cret", "~resweep:*", "+@all", *rules.split())
    checks = look(server.url.replace("//", "//ann:s3cret@"))
    assert bad(checks) == expected
    assert all(words in checks[name].cure for name in expected)


def test_a_user_without_info(server: Server) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "ann", "on", ">s3cret", "~resweep:*", "+@all", "-info")
    checks = look(server.url.replace("//", "//ann:s3cret@"))
    assert bad(checks) == dict.fromkeys(["version", "role", "persistence", "eviction", "memory"], "warn")
    assert checks["version"].detail == "cannot be seen, because this user may not run INFO"


def test_a_clock_that_differs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 300)
    checks = look(server.url)
    assert bad(checks) == {"clock": "warn"}
    assert re.fullmatch(r"the server's clock is (300\.\d\d|299\.\d\d) s behind this machine's", checks["clock"].detail)


def test_tls_and_the_recommended_rights(tmp_path: Path) -> None:
    with tls_acl_server(tmp_path) as secure:
        checks = look(secure.agent_url)
        assert bad(checks) == {"persistence": "warn"}  # that server has no AOF
        assert bad(look(secure.untrusted_url)) == {"connection": "fail"}
        assert look(secure.viewer_url)["permissions"].status == "fail"


def test_sentinels(tmp_path: Path) -> None:
    with sentinel_servers(tmp_path) as sentinels:
        checks = look(sentinels.url)
        assert bad(checks) == {}
        assert checks["topology"].detail == "a master named by sentinels, with 2 replicas"


def test_a_cluster_and_one_of_its_nodes(tmp_path: Path) -> None:
    with cluster_servers(tmp_path) as cluster:
        checks = look(cluster.url)
        assert bad(checks) == {}
        assert checks["topology"].detail == "a cluster of 3 masters"
        place = f"127.0.0.1:{cluster.owner('resweep:{local/doctor}').port}"
        assert bad(look(f"redis://{place}")) == {"topology": "fail"}
        with cluster.nodes[0].client() as client:
            client.config_set("appendfsync", "everysec")
        checks = look(cluster.url)
        assert bad(checks) == {"persistence": "warn"}
        assert checks["persistence"].detail.startswith(f"127.0.0.1:{cluster.nodes[0].port}: AOF is on with")
