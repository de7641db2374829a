"""From redis-py's exceptions to the errors of the store, each told in one line: server, what is wrong, what to do.

Most are told apart by the server's own words, because redis-py has a class for few of them, cuts the error code off for
those, and buries the cause in text when a cluster is concerned. Words were checked with Redis 7.0 and Valkey 9.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from resweep_scheduler.store.connect import redact
from resweep_scheduler.store.errors import StoreError, StoreRefusedError, StoreUnavailableError

if TYPE_CHECKING:
    from redis.exceptions import RedisClusterException, RedisError


class _Kind(Enum):
    UNAVAILABLE = auto()
    REFUSED = auto()
    REFUSED_FOR_NOW = auto()


@dataclass(frozen=True, slots=True)
class _Fault:
    words: str  # a regular expression, found in the server's or redis-py's text whatever the case
    kind: _Kind
    rule: str
    cure: str


_OUR_FAULT = ("refused a command", "if nobody else writes keys that begin with resweep:, report it as a bug")

# The first that fits counts.
_FAULTS = (
    _Fault(
        r"authentication required|\bNOAUTH\b|called without any password configured",
        _Kind.REFUSED,
        "and the URL disagree about a password",
        "give the URL a password as redis://user:password@host if the server asks for one, and none if it has none",
    ),
    _Fault(
        r"invalid username-password|\bWRONGPASS\b|invalid password|user is disabled",
        _Kind.REFUSED,
        "refuses the user or the password",
        "check both in the URL, with special characters percent-encoded (@ is %40, / is %2F)",
    ),
    _Fault(
        r"certificate.verify.failed|certificate verify failed|hostname mismatch",
        _Kind.REFUSED,
        "shows a certificate that is not trusted",
        "name the file of your authority by ?ssl_ca_certs=FILE in the URL or by SSL_CERT_FILE",
    ),
    _Fault(r"wrong.version.number", _Kind.REFUSED, "does not speak TLS", "write redis:// instead of rediss://"),
    _Fault(
        r"no permissions to run the '(eval|script)",
        _Kind.REFUSED,
        "does not let this user run Lua scripts",
        "have it allowed by ACL SETUSER … +@scripting",
    ),
    _Fault(
        r"no permissions|\bNOPERM\b|ACL failure in script|user executing the script can't",
        _Kind.REFUSED,
        "does not allow this user what is needed",
        "have it allowed by ACL SETUSER … ~resweep:* +@all -@admin -@dangerous +info; `resweep doctor` says what lacks",
    ),
    _Fault(
        r"used memory > 'maxmemory'|\bOOM\b",
        _Kind.REFUSED_FOR_NOW,
        "has reached its memory limit",
        "raise maxmemory, or remove old sweeps with `resweep rm`",
    ),
    _Fault(
        r"read.?only replica|\bREADONLY\b|previous master is now a slave",
        _Kind.REFUSED_FOR_NOW,
        "is a read-only replica",
        "use its master's address, or redis+sentinel:// to follow the master",
    ),
    _Fault(
        r"\bMISCONF\b|unable to persist|errors writing to the AOF",
        _Kind.REFUSED_FOR_NOW,
        "cannot write its data to disk and takes no writes",
        "make room on its disk",
    ),
    _Fault(
        r"\bNOREPLICAS\b",
        _Kind.REFUSED_FOR_NOW,
        "has too few replicas and takes no writes",
        "wait for its replicas, or lower min-replicas-to-write",
    ),
    _Fault(
        r"loading the dataset|\bLOADING\b",
        _Kind.UNAVAILABLE,
        "is loading its data",
        "wait until it is done",
    ),
    _Fault(
        r"\bBUSY\b",
        _Kind.UNAVAILABLE,
        "is held up by somebody's Lua script",
        "wait, or end the script by SCRIPT KILL",
    ),
    _Fault(
        r"script killed",
        _Kind.REFUSED_FOR_NOW,
        "had the script killed by somebody",
        "try again",
    ),
    _Fault(
        r"max number of clients",
        _Kind.UNAVAILABLE,
        "has no connection left",
        "raise its maxclients, or run fewer agents",
    ),
    _Fault(
        r"unknown (sub)?command '?sentinel",
        _Kind.REFUSED,
        "is a server and no sentinel",
        "write redis://, or the sentinels' addresses (port 26379)",
    ),
    _Fault(
        r"unknown (sub)?command|Unknown Redis command called from script",
        _Kind.REFUSED,
        "lacks a command",
        "use Redis 6.2 or later, or Valkey, with Lua scripts and no renamed commands",
    ),
    _Fault(
        r"cluster mode is not enabled|cluster support disabled",
        _Kind.REFUSED,
        "is no cluster",
        "write redis:// instead of redis+cluster://",
    ),
    # redis-py's own checks, whose classes differ from version to version, and the server's CROSSSLOT.
    _Fault(r"same (key |hash )?slot", _Kind.REFUSED, *_OUR_FAULT),
    _Fault(
        r"DB index is out of range|invalid DB index",
        _Kind.REFUSED,
        "does not have the database that the URL names",
        "use a lower number at the end of the URL, as /0",
    ),
    _Fault(
        r"no master found",
        _Kind.UNAVAILABLE,
        "has no sentinel that names a master now",
        "wait for the failover, or check the sentinels' addresses and the master's name at the end of the URL",
    ),
    _Fault(
        r"name or service not known|nodename nor servname|name resolution|no address associated",
        _Kind.UNAVAILABLE,
        "has a host name that cannot be resolved",
        "check the name",
    ),
)


def translate(error: RedisError | RedisClusterException | OSError, url: str) -> StoreError:
    """Return what `error` means to a caller of the store, with the server's `url` (its password hidden) and the cure.

    A server that cannot be reached, or not now, is a StoreUnavailableError; an answer that says no is a
    StoreRefusedError.
    """
    text = " ".join(str(error).split())
    for fault in _FAULTS:
        if re.search(fault.words, text, re.IGNORECASE):
            break
    else:
        fault = _by_class(error)
    message = f"{redact(url)} {fault.rule} ({_detail(text) or type(error).__name__}): {fault.cure}"
    if fault.kind is _Kind.UNAVAILABLE:
        return StoreUnavailableError(message)
    return StoreRefusedError(message, temporary=fault.kind is _Kind.REFUSED_FOR_NOW)


def split_cure(error: StoreError) -> tuple[str, str]:
    """Return what is wrong and the cure, for those who print them apart; messages are "… (detail): cure"."""
    wrong, mark, cure = str(error).rpartition("): ")
    return (f"{wrong})", cure) if mark else (cure, "")


def _by_class(error: Exception) -> _Fault:
    """What can be said when the words are unknown; the first class that fits counts."""
    from redis import exceptions as redis

    refused, unavailable = _Kind.REFUSED, _Kind.UNAVAILABLE
    reach = "see whether it runs, and whether host, port and TLS are right"
    by_class: tuple[tuple[tuple[type[Exception], ...], _Kind, str, str], ...] = (
        ((redis.AuthenticationError,), refused, "refuses the user or the password", "check both in the URL"),
        # A cluster's client follows MOVED and ASK itself, so this is the client for a single server.
        ((redis.AskError,), refused, "is a node of a cluster", "write redis+cluster:// instead of redis://"),
        ((redis.ClusterError, redis.TryAgainError), unavailable, "is a cluster that is being changed", "try again"),
        ((redis.TimeoutError, TimeoutError), unavailable, "does not answer in time", "see whether it is overloaded"),
        # A cluster of which no node answers, or whose shard is away, has no class of its own.
        ((redis.ConnectionError, OSError, redis.RedisClusterException), unavailable, "cannot be reached", reach),
        ((redis.InvalidResponse,), refused, "does not speak Redis' protocol", "check host and port"),
    )
    for classes, kind, rule, cure in by_class:
        if isinstance(error, classes):
            return _Fault("", kind, rule, cure)
    return _Fault("", refused, *_OUR_FAULT)


def _detail(text: str) -> str:
    """The text without what is of no use in a message: echoed arguments, hashes of scripts, dumps of objects."""
    for noise in (r",? with args beginning with.*", r",? script: (\w{40}, )?on @.*", r" ?: <redis\..*"):
        text = re.sub(noise, "", text)
    return text.rstrip(" .:")[:200]
