"""From a URL to a client, for every kind of server that resweep knows.

    redis://[[user]:password@]host[:6379][/DB]                       TCP
    rediss://…                                                       TCP with TLS
    unix://[[user]:password@]/path/to/socket[?db=DB]                 a socket on this machine
    redis+sentinel://[[user]:password@]h1[:26379],h2,…/MASTER[/DB]   the master that the sentinels name
    redis+cluster://[[user]:password@]h1[:6379],h2,…                 Redis Cluster, found through any of its nodes

`rediss+sentinel` and `rediss+cluster` are the same with TLS. User and password are percent-encoded. A query may carry
the options that `OPTIONS` names.

The clients retry nothing: redis-py's own retry sends a write again whose reply was lost, and so doubles it. Callers
retry from outside, with scripts that are idempotent by their claim token.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from resweep_scheduler.store.errors import InvalidUrlError

if TYPE_CHECKING:
    from redis import Redis
    from redis.cluster import RedisCluster
    from redis.retry import Retry

Client: TypeAlias = "Redis | RedisCluster"

REDIS_PORT = 6379
SENTINEL_PORT = 26379
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def _boolean(text: str) -> bool:
    values = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if text.lower() not in values:
        raise ValueError(text)
    return values[text.lower()]


OPTIONS: dict[str, Callable[[str], object]] = {
    "db": int,
    "username": str,
    "password": str,
    "sentinel_username": str,
    "sentinel_password": str,
    "client_name": str,
    "socket_timeout": float,  # seconds
    "socket_connect_timeout": float,  # seconds
    "health_check_interval": int,  # seconds
    "max_connections": int,
    "ssl_ca_certs": str,
    "ssl_ca_path": str,
    "ssl_certfile": str,
    "ssl_keyfile": str,
    "ssl_password": str,
    "ssl_cert_reqs": str,
    "ssl_check_hostname": _boolean,
}
"""What the query of a URL may set, each as redis-py's connections take it."""


def resolve_url(explicit: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the URL to use: the given one, else RESWEEP_URL, else REDIS_URL, else None (the embedded server).

    An empty text counts as not given.
    """
    return explicit or environ.get("RESWEEP_URL") or environ.get("REDIS_URL") or None


def redact(url: str) -> str:
    """Return `url` with every password replaced by ***, also when it is not a valid URL.

    A lone user name is hidden too, because a password is easily written in its place.
    """
    scheme, mark, rest = url.partition("://")
    if mark and not (scheme == "unix" and rest.startswith("/")):
        # Up to the last @: a password that was not percent-encoded may hold @, / and ?.
        credentials, at, place = rest.rpartition("@")
        if at:
            user, colon, _ = credentials.partition(":")
            rest = (f"{user}:***" if colon else "***") + at + place
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", scheme + mark + rest)


def connect(url: str, *, timeout: float = 5.0, connect_timeout: float = 2.0, decode: bool = True) -> Client:
    """Return a client for `url` that decodes replies and retries nothing.

    Nothing is sent before the first command, but to a cluster, whose map of slots is asked for at once.

    Args:
        url: See the head of this module.
        timeout: Seconds to wait for a reply; blocking commands must be shorter.
        connect_timeout: Seconds to wait for a connection (for each sentinel, for each node of a cluster).
        decode: Whether replies are texts; RQ needs bytes.

    Raises:
        InvalidUrlError: The URL cannot be understood; the message says why.
        StoreUnavailableError: No node of the cluster answers.
        StoreRefusedError: The nodes of the cluster refuse, or are no cluster.
    """
    parts = _split(url)
    options = _options(url, parts)
    options.setdefault("socket_timeout", timeout)
    options.setdefault("socket_connect_timeout", connect_timeout)
    # RESP2: the shapes of replies do not depend on redis-py's version, and no HELLO is needed.
    options |= {"decode_responses": decode, "protocol": 2}
    options |= _credentials(parts)
    if parts.scheme.endswith("+sentinel"):
        return _connect_sentinel(url, parts, options)
    if parts.scheme.endswith("+cluster"):
        return _connect_cluster(url, parts, options)
    return _connect_one(url, parts, options)


def _connect_one(url: str, parts: SplitResult, options: dict[str, Any]) -> Redis:
    from redis import Redis

    if parts.scheme == "unix":
        path = unquote(parts.path)
        if not path:
            raise _invalid(url, "a unix URL names a socket", "write unix:///path/to/socket")
        return Redis(unix_socket_path=path, retry=_no_retry(), **options)
    nodes = _nodes(url, parts, REDIS_PORT)
    if len(nodes) > 1:
        raise _invalid(url, "only one host can be given", "for several, write redis+sentinel:// or redis+cluster://")
    host, port = nodes[0]
    options.setdefault("db", _database(url, parts.path.strip("/")))
    return Redis(host=host, port=port, ssl=parts.scheme == "rediss", retry=_no_retry(), **options)


def _connect_sentinel(url: str, parts: SplitResult, options: dict[str, Any]) -> Redis:
    from redis.sentinel import Sentinel

    master, _, database = unquote(parts.path).strip("/").partition("/")
    if not master:
        raise _invalid(
            url, "a sentinel URL names the master", "write redis+sentinel://host:26379/MASTER, as in sentinel.conf"
        )
    options.setdefault("db", _database(url, database))
    options["ssl"] = parts.scheme.startswith("rediss")
    for_sentinels = {
        name: value for name, value in options.items() if name.startswith(("ssl", "socket_")) or name == "protocol"
    }
    for name in ("username", "password"):
        if value := options.pop(f"sentinel_{name}", None):
            for_sentinels[name] = value
    # redis-py leaves these two untyped.
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        _nodes(url, parts, SENTINEL_PORT), sentinel_kwargs=for_sentinels | {"retry": _no_retry()}, **options
    )
    client: Redis = sentinel.master_for(master, retry=_no_retry())  # type: ignore[no-untyped-call]
    return client


def _connect_cluster(url: str, parts: SplitResult, options: dict[str, Any]) -> RedisCluster:
    from redis.cluster import ClusterNode, RedisCluster
    from redis.exceptions import RedisClusterException, RedisError

    from resweep_scheduler.store.faults import translate

    if options.pop("db", 0) or parts.path.strip("/"):
        raise _invalid(url, "a cluster has no database numbers", "leave the path and db= out")
    nodes = [
        ClusterNode(host, port)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        for host, port in _nodes(url, parts, REDIS_PORT)
    ]
    try:
        return RedisCluster(
            startup_nodes=nodes,
            retry=_no_retry(),
            require_full_coverage=False,  # our keys live in few slots: other shards may be away
            ssl=parts.scheme.startswith("rediss"),
            **options,
        )
    except (RedisError, RedisClusterException, OSError) as error:
        raise translate(error, url) from error


def _invalid(url: str, rule: str, cure: str) -> InvalidUrlError:
    return InvalidUrlError(f"{redact(url)!r} is no address of a server ({rule}): {cure}")


def _no_retry() -> Retry:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Retry(NoBackoff(), 0)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise _invalid(url, f"it is not a URL ({error})", "write redis://host:6379/0") from None
    if parts.scheme not in SCHEMES:
        raise _invalid(url, f"the scheme must be one of {', '.join(SCHEMES)}", "write redis://host:6379/0")
    if parts.fragment:
        raise _invalid(url, "a # ends the address", "write %23 for a # in a password")
    return parts


def _credentials(parts: SplitResult) -> dict[str, str]:
    user_and_password, _, _ = parts.netloc.rpartition("@")
    user, _, password = user_and_password.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _nodes(url: str, parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """The host:port pairs, where IPv6 addresses stand in brackets."""
    _, _, places = parts.netloc.rpartition("@")
    nodes = []
    for place in places.split(",") if places else ["localhost"]:
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", place)
        if match is None or not 0 < (port := int(match[2] or default_port)) < 65536:
            raise _invalid(
                url, "each server is host or host:port", "quote special characters of a password, @ as %40, / as %2F"
            )
        nodes.append((unquote(match[1].strip("[]")), port))
    return nodes


def _database(url: str, text: str) -> int:
    if not re.fullmatch(r"\d*", text):
        raise _invalid(url, f"the database must be a number, not {text!r}", "write …/0, or leave it out")
    return int(text or 0)


def _options(url: str, parts: SplitResult) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in OPTIONS:
            raise _invalid(url, f"there is no option {name!r}", f"the options are {', '.join(OPTIONS)}")
        if name.startswith("sentinel_") and not parts.scheme.endswith("+sentinel"):
            raise _invalid(url, f"{name} is for sentinels only", "leave it out, or write redis+sentinel://")
        if name.startswith("ssl_") and not parts.scheme.startswith("rediss"):
            raise _invalid(url, f"{name} is for TLS only", f"write rediss{parts.scheme.removeprefix('redis')}://")
        try:
            options[name] = OPTIONS[name](text)
        except ValueError:
            raise _invalid(url, f"{name} cannot have that value", "see redis-py's documentation") from None
    return options
