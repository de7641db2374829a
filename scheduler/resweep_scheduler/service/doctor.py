"""What is right and wrong with the server behind a URL, check by check, each with its cure.

The server is only looked at, but for a few short-lived keys that show what this user may do.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from resweep_scheduler.service.binary import OLDEST_VERSION
from resweep_scheduler.store.connect import connect, redact
from resweep_scheduler.store.errors import StoreError
from resweep_scheduler.store.faults import split_cure, translate

if TYPE_CHECKING:
    from redis import Redis

    from resweep_scheduler.store.connect import Client

Status = Literal["ok", "warn", "fail"]

SLOW_REPLY = 0.05  # seconds; every claim and heartbeat waits for one
SLOW_WRITE = 0.2  # seconds
CLOCK_TOLERANCE = 1.0  # seconds
MEMORY_TOLERANCE = 0.8  # share of the limit

PROBES: tuple[tuple[str, ...], ...] = (
    ("SET", "{key}:s", "1"),
    ("GET", "{key}:s"),
    ("EXISTS", "{key}:s"),
    ("PEXPIRE", "{key}:s", "60000"),
    ("HSET", "{key}:h", "a", "1", "b", "2"),
    ("PEXPIRE", "{key}:h", "60000"),
    ("HSETNX", "{key}:h", "c", "3"),
    ("HGET", "{key}:h", "a"),
    ("HMGET", "{key}:h", "a", "b"),
    ("HGETALL", "{key}:h"),
    ("HLEN", "{key}:h"),
    ("HINCRBY", "{key}:h", "a", "1"),
    ("HDEL", "{key}:h", "a"),
    ("RPUSH", "{key}:l", "1", "2", "3"),
    ("PEXPIRE", "{key}:l", "60000"),
    ("LRANGE", "{key}:l", "0", "-1"),
    ("LLEN", "{key}:l"),
    ("LINDEX", "{key}:l", "0"),
    ("LREM", "{key}:l", "1", "3"),
    ("LTRIM", "{key}:l", "0", "9"),
    ("LPOP", "{key}:l"),
    ("BLPOP", "{key}:l", "0.01"),
    ("ZADD", "{key}:z", "1", "a"),
    ("PEXPIRE", "{key}:z", "60000"),
    ("ZCARD", "{key}:z"),
    ("ZSCORE", "{key}:z", "a"),
    ("ZRANGE", "{key}:z", "0", "-1"),
    ("ZRANGEBYSCORE", "{key}:z", "-inf", "+inf"),
    ("ZCOUNT", "{key}:z", "-inf", "+inf"),
    ("ZREM", "{key}:z", "a"),
    ("ZREMRANGEBYSCORE", "{key}:z", "-inf", "+inf"),
    ("XADD", "{key}:x", "*", "a", "1"),
    ("PEXPIRE", "{key}:x", "60000"),
    ("XLEN", "{key}:x"),
    ("XRANGE", "{key}:x", "-", "+"),
    ("XREVRANGE", "{key}:x", "+", "-"),
    ("XREAD", "COUNT", "1", "STREAMS", "{key}:x", "0"),
    ("XTRIM", "{key}:x", "MAXLEN", "1"),
    ("TIME",),
    ("DEL", "{key}:s", "{key}:h", "{key}:l", "{key}:z", "{key}:x"),
)
"""A harmless call of each command that resweep sends, itself or from Lua; DEL, the last one, clears up."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: connection (the only one when it fails), topology, version, role, persistence, eviction, memory, clock,
            latency, scripts, permissions.
        status: "ok"; "warn" for what may lose data or time; "fail" for what keeps resweep from working.
        detail: What was found, in one line.
        cure: What to do; empty when all is well.
    """

    name: str
    status: Status
    detail: str
    cure: str = ""


def examine(url: str, *, project: str = "local/doctor") -> list[Check]:
    """Look at the server behind `url`; never raises for what is wrong with it.

    Args:
        url: As `resweep_scheduler.store.connect.connect` takes it.
        project: "entity/project", below whose keys permissions are tried; for users that may touch one project only.
    """
    try:
        client = connect(url)
    except StoreError as error:
        return [_failed("connection", error)]
    try:
        connection = _guarded(url, "connection", partial(_connection, client, url))
        if connection.status == "fail":
            return [connection]
        key = f"resweep:{{{project}}}:doctor:{secrets.token_hex(6)}"
        nodes = _nodes(client)
        return [
            connection,
            _guarded(url, "topology", partial(_topology, client, url, nodes)),
            *(_worst(_guarded(url, name, partial(_look, name, node)) for node in nodes) for name in _LOOKS),
            _guarded(url, "latency", partial(_latency, client, key)),
            _guarded(url, "scripts", partial(_scripts, client, key)),
            _guarded(url, "permissions", partial(_permissions, client, key)),
        ]
    finally:
        client.close()


@dataclass(frozen=True, slots=True)
class _Node:
    """One server that takes writes: the only one, or a master of a cluster."""

    name: str
    client: Redis
    info: dict[str, Any]  # empty when the user may not run INFO


def _nodes(client: Client) -> list[_Node]:
    from redis.cluster import RedisCluster

    if not isinstance(client, RedisCluster):
        return [_Node("", client, _info(client))]
    nodes = []
    for primary in client.get_primaries():  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        single = client.get_redis_connection(primary)
        nodes.append(_Node(primary.name, single, _info(single)))
    return nodes


def _info(client: Redis) -> dict[str, Any]:
    from redis.exceptions import RedisError

    try:
        return dict(client.info())
    except (RedisError, OSError):  # the checks say that they could not look
        return {}


def _connection(client: Client, url: str) -> Check:
    client.ping()
    return Check("connection", "ok", f"{redact(url)} answers")


def _latency(client: Client, key: str) -> Check:
    reply = _median_time(client.ping, 20)
    write = _median_time(lambda: client.set(f"{key}:s", "1", px=60_000), 5)
    detail = f"{reply * 1000:.1f} ms for a reply, {write * 1000:.1f} ms for a write"
    if reply > SLOW_REPLY:
        return Check("latency", "warn", detail, "put the server nearer to the agents: each run costs a few replies")
    if write > SLOW_WRITE:
        return Check("latency", "warn", detail, "give the server a faster disk, because it syncs each write")
    return Check("latency", "ok", detail)


def _median_time(call: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _scripts(client: Client, key: str) -> Check:
    answer = client.eval("return redis.call('EXISTS', KEYS[1]) .. redis.call('TIME')[1]", 1, f"{key}:s")
    return Check("scripts", "ok", f"Lua runs (the server's time is {str(answer)[1:]})")


def _permissions(client: Client, key: str) -> Check:
    from redis.exceptions import NoPermissionError

    refused: dict[str, None] = {}  # a set that keeps the order
    for words in PROBES:
        command, *arguments = (word.format(key=key) for word in words)
        try:
            client.execute_command(command, *arguments)  # type: ignore[no-untyped-call]  # untyped for clusters
        except NoPermissionError as error:
            if "to access" in str(error):
                cure = "have them allowed: ACL SETUSER … ~resweep:*"
                return Check(
                    "permissions",
                    "fail",
                    f"this user may not touch the keys {key.split(':doctor', maxsplit=1)[0]}:*",
                    cure,
                )
            refused[command] = None
    if refused:
        cure = "have them allowed: ACL SETUSER … " + " ".join(f"+{command.lower()}" for command in refused)
        return Check("permissions", "fail", f"this user may not run {', '.join(refused)}", cure)
    return Check("permissions", "ok", f"this user may run all {len({words[0] for words in PROBES})} commands needed")


def _look(name: str, node: _Node) -> Check:
    """The check `name` of one server, which is named when it is not the only one."""
    if not node.info and name != "clock":
        found = Check(name, "warn", "cannot be seen, because this user may not run INFO", "ACL SETUSER … +info")
    else:
        found = _LOOKS[name](node)
    return replace(found, detail=f"{node.name}: {found.detail}") if node.name else found


def _version(node: _Node) -> Check:
    redis_version = str(node.info.get("redis_version", ""))
    numbers = [int(part) if part.isdigit() else 0 for part in redis_version.split(".")[:2]]
    name = f"Valkey {node.info['valkey_version']}" if "valkey_version" in node.info else f"Redis {redis_version}"
    if tuple(numbers) < OLDEST_VERSION:
        return Check("version", "fail", f"{name} is too old", "use Redis 6.2 or later, or Valkey")
    return Check("version", "ok", name)


def _persistence(node: _Node) -> Check:
    if not node.info.get("aof_enabled"):
        return Check(
            "persistence",
            "warn",
            "AOF is off: what was written since the last snapshot is lost when the server dies",
            "CONFIG SET appendonly yes, CONFIG SET appendfsync always, and the same in its configuration file",
        )
    if node.info.get("aof_last_write_status", "ok") != "ok":
        return Check("persistence", "fail", "the last write to the AOF failed", "make room on the server's disk")
    fsync = _setting(node.client, "appendfsync")
    if fsync in ("everysec", "no"):
        lost = "up to a second" if fsync == "everysec" else "many seconds"
        return Check(
            "persistence",
            "warn",
            f"AOF is on with appendfsync {fsync}: {lost} of acknowledged writes can be lost when the server dies",
            "CONFIG SET appendfsync always, and the same in its configuration file",
        )
    return Check("persistence", "ok", f"AOF is on, appendfsync {fsync or 'not visible to this user'}")


def _setting(client: Redis, name: str) -> str | None:
    from redis.exceptions import ResponseError

    try:
        return str(client.config_get(name).get(name, "")) or None
    except ResponseError:  # CONFIG is for administrators; hosted servers lack it
        return None


def _eviction(node: _Node) -> Check:
    policy = str(node.info.get("maxmemory_policy", "unknown"))
    if policy.startswith("allkeys-"):
        return Check(
            "eviction",
            "fail" if node.info.get("maxmemory") else "warn",
            f"maxmemory-policy {policy}: the server throws runs away when memory is short",
            "CONFIG SET maxmemory-policy noeviction, and the same in its configuration file",
        )
    return Check("eviction", "ok", f"maxmemory-policy {policy}")


def _memory(node: _Node) -> Check:
    used, limit = int(node.info.get("used_memory", 0)), int(node.info.get("maxmemory", 0))
    whose = "maxmemory"
    if not limit:
        limit, whose = int(node.info.get("total_system_memory", 0)), "the machine's memory"
    if not limit:
        return Check("memory", "ok", f"{_size(used)} in use, without a limit")
    detail = f"{_size(used)} of {_size(limit)} ({whose}) in use"
    if used >= limit:
        return Check("memory", "fail", detail, f"raise {whose}, or remove old sweeps with `resweep rm`")
    if used >= MEMORY_TOLERANCE * limit:
        return Check("memory", "warn", detail, f"raise {whose}, or remove old sweeps with `resweep rm`")
    return Check("memory", "ok", detail)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _role(node: _Node) -> Check:
    if node.info.get("role") == "slave":
        master = f"{node.info.get('master_host')}:{node.info.get('master_port')}"
        cure = f"use the address of its master ({master}), or redis+sentinel:// to follow the master"
        return Check("role", "fail", f"a replica of {master}, which takes no writes", cure)
    return Check("role", "ok", f"takes writes, {node.info.get('connected_slaves', 0)} replicas")


def _clock(node: _Node) -> Check:
    before = time.time()
    seconds, microseconds = node.client.time()
    after = time.time()
    # The reply was made between the two; halfway is off by at most half of what the call took.
    ahead = int(seconds) + int(microseconds) / 1e6 - (before + after) / 2
    detail = f"the server's clock is {abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) > CLOCK_TOLERANCE + (after - before) / 2:
        cure = "set both by NTP; leases go by the server's clock alone, but times in logs and tables will disagree"
        return Check("clock", "warn", detail, cure)
    return Check("clock", "ok", detail)


_LOOKS: dict[str, Callable[[_Node], Check]] = {
    "version": _version,
    "role": _role,
    "persistence": _persistence,
    "eviction": _eviction,
    "memory": _memory,
    "clock": _clock,
}


def _topology(client: Client, url: str, nodes: list[_Node]) -> Check:
    scheme = url.partition("://")[0]
    if scheme.endswith("+cluster"):
        return Check("topology", "ok", f"a cluster of {len(nodes)} masters")
    if nodes[0].info.get("cluster_enabled"):
        return Check("topology", "fail", "one node of a cluster", "write redis+cluster:// instead of redis://")
    if not scheme.endswith("+sentinel"):
        return Check("topology", "ok", "a single server")
    found = nodes[0].info
    detail = f"a master named by sentinels, with {found.get('connected_slaves', 0)} replicas"
    if found.get("connected_slaves") == 0:
        return Check("topology", "warn", detail, "add a replica: without one there is nothing to fail over to")
    return Check("topology", "ok", detail)


def _guarded(url: str, name: str, look: Callable[[], Check]) -> Check:
    """What `look` finds; what it stumbles over is a failed check."""
    from redis.exceptions import RedisClusterException, RedisError

    try:
        return look()
    except (RedisError, RedisClusterException, OSError) as error:
        return _failed(name, translate(error, url))


def _failed(name: str, error: StoreError) -> Check:
    detail, cure = split_cure(error)
    return Check(name, "fail", detail, cure)


def _worst(checks: Iterable[Check]) -> Check:
    """One check for several servers."""
    return max(checks, key=lambda check: ("ok", "warn", "fail").index(check.status))
