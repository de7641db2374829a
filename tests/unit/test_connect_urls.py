"""What a URL means, and what never gets out of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from redis.connection import SSLConnection

from resweep_scheduler.store.connect import connect, redact, resolve_url
from resweep_scheduler.store.errors import InvalidUrlError, StoreError


def arguments(url: str) -> dict[str, object]:
    """What the connections of the client for `url` are made with; nothing is sent."""
    client = connect(url)
    assert isinstance(client, Redis)
    return dict(client.connection_pool.connection_kwargs)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0}),
        ("redis://h:1/3", {"host": "h", "port": 1, "db": 3}),
        ("redis://h?db=4", {"host": "h", "db": 4}),
        ("redis://h/?db=4", {"host": "h", "db": 4}),
        ("redis://[::1]:7", {"host": "::1", "port": 7}),
        ("redis://:p%40%2F%3A@h", {"password": "p@/:", "username": None}),
        ("redis://ann:p@h", {"password": "p", "username": "ann"}),
        ("redis://h?username=ann&password=p", {"password": "p", "username": "ann"}),
        ("rediss://h?ssl_ca_certs=/ca&ssl_check_hostname=no", {"ssl_ca_certs": "/ca", "ssl_check_hostname": False}),
        ("unix:///a%20b/s?db=2", {"path": "/a b/s", "db": 2}),
        ("unix://ann:p@/s", {"path": "/s", "username": "ann", "password": "p"}),
        ("redis+sentinel://ann:p@a,b:7/mymaster/2", {"username": "ann", "password": "p", "db": 2}),
        ("redis://h?socket_timeout=0.5", {"socket_timeout": 0.5}),
        ("redis://h", {"socket_timeout": 5.0, "socket_connect_timeout": 2.0, "decode_responses": True, "protocol": 2}),
    ],
)
def test_a_url_gives_these_connections(url: str, expected: dict[str, object]) -> None:
    found = arguments(url)
    assert {name: found.get(name) for name in expected} == expected


def test_rediss_is_tls() -> None:
    client = connect("rediss://h")
    assert isinstance(client, Redis)
    assert client.connection_pool.connection_class is SSLConnection


@pytest.mark.parametrize("url", ["redis://h", "unix:///s", "rediss://h", "redis+sentinel://h/m"])
def test_nothing_is_retried_by_the_client(url: str) -> None:
    client = connect(url)
    assert isinstance(client, Redis)
    retry = client.get_retry() or client.connection_pool.connection_kwargs["retry"]
    assert retry._retries == 0


def test_sentinels_have_credentials_and_timeouts_of_their_own() -> None:
    client = connect("redis+sentinel://ann:p@a,[::1]:7/m?sentinel_password=s", timeout=1.5)
    assert isinstance(client, Redis)
    manager = client.connection_pool.sentinel_manager  # type: ignore[attr-defined]
    found = [dict(sentinel.connection_pool.connection_kwargs) for sentinel in manager.sentinels]
    assert [(kwargs["host"], kwargs["port"]) for kwargs in found] == [("a", 26379), ("::1", 7)]
    assert {(kwargs["username"], kwargs["password"], kwargs["socket_timeout"]) for kwargs in found} == {
        (None, "s", 1.5)
    }
    assert {kwargs["retry"]._retries for kwargs in found} == {0}


def test_sentinels_over_tls() -> None:
    client = connect("rediss+sentinel://a/m?ssl_ca_certs=/ca")
    assert isinstance(client, Redis)
    manager = client.connection_pool.sentinel_manager  # type: ignore[attr-defined]
    assert issubclass(client.connection_pool.connection_class, SSLConnection)
    assert issubclass(manager.sentinels[0].connection_pool.connection_class, SSLConnection)
    assert manager.sentinels[0].connection_pool.connection_kwargs["ssl_ca_certs"] == "/ca"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "the scheme must be one of redis, rediss, unix"),
        ("http://h", "the scheme must be one of"),
        ("", "the scheme must be one of"),
        ("redis://h:99999", "each server is host or host:port"),
        ("redis://h:0", "each server is host or host:port"),
        ("redis://h:x", "each server is host or host:port"),
        ("redis://a,b", "only one host .* redis+sentinel"),
        ("redis://[::1", "it is not a URL"),
        ("redis://h/abc", "the database must be a number, not 'abc'"),
        ("redis://h?nonsense=1", "there is no option 'nonsense'.* the options are db"),
        ("redis://h?socket_timeout=soon", "socket_timeout cannot have that value"),
        ("redis://h?ssl_ca_certs=x", "ssl_ca_certs is for TLS only.*: write rediss://"),
        ("rediss://h?ssl_check_hostname=perhaps", "ssl_check_hostname cannot have that value"),
        ("redis://h?sentinel_password=x", "sentinel_password is for sentinels only"),
        ("unix://", "a unix URL names a socket"),
        ("redis+sentinel://h:1", "a sentinel URL names the master"),
        ("redis+sentinel://h:1/m/x", "the database must be a number"),
        ("redis+cluster://h:1/2", "a cluster has no database numbers"),
        ("redis+cluster://h:1?db=2", "a cluster has no database numbers"),
        ("redis://:a#b@h", "write %23 for a #"),
        ("redis://:s3cret/x@h", "each server is host or host:port.*as %2F"),
    ],
)
def test_a_bad_url_is_refused_with_rule_and_cure(url: str, words: str) -> None:
    with pytest.raises(InvalidUrlError, match=words.replace("+", r"\+")) as caught:
        connect(url)
    message = str(caught.value)
    assert isinstance(caught.value, StoreError)
    assert "\n" not in message
    assert "): " in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("url", "hidden"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://ann:s3cret@h:1/0", "redis://ann:***@h:1/0"),
        ("redis://:s3cret@h", "redis://:***@h"),
        ("redis://s3cret@h", "redis://***@h"),
        ("redis://ann:s3cr@et@h", "redis://ann:***@h"),
        ("redis://ann:s3/cr?e#t@h/0", "redis://ann:***@h/0"),
        ("unix:///run/a@b.sock?password=s3cret&db=1", "unix:///run/a@b.sock?password=***&db=1"),
        ("unix://ann:s3cret@/run/s", "unix://ann:***@/run/s"),
        ("redis+sentinel://ann:s3cret@a:1,b:2/m?sentinel_password=s3cret", "redis+sentinel://ann:***@a:1,b:2/m?sentinel_password=***"),
        ("rediss://h?ssl_password=s3cret", "rediss://h?ssl_password=***"),
        ("nonsense", "nonsense"),
    ],
)  # fmt: skip
def test_passwords_are_hidden(url: str, hidden: str) -> None:
    assert redact(url) == hidden


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.sampled_from(["redis", "rediss", "unix", "redis+cluster"]))
def test_no_password_survives_however_it_is_written(password: str, scheme: str) -> None:
    """A password that holds any character at all is hidden; the mark keeps it from being found by chance."""
    assert "MARK" not in redact(f"{scheme}://ann:MARK{password}MARK@host:1/0")


@pytest.mark.parametrize(
    ("explicit", "environ", "expected"),
    [
        ("a", {"RESWEEP_URL": "b", "REDIS_URL": "c"}, "a"),
        (None, {"RESWEEP_URL": "b", "REDIS_URL": "c"}, "b"),
        ("", {"RESWEEP_URL": "", "REDIS_URL": "c"}, "c"),
        (None, {}, None),
    ],
)
def test_the_nearest_url_counts(explicit: str | None, environ: dict[str, str], expected: str | None) -> None:
    assert resolve_url(explicit, environ) == expected


def test_importing_this_module_loads_no_redis() -> None:
    """The SDK imports it inside users' training scripts, and must stay light."""
    code = (
        "import sys, resweep_scheduler.store.connect, resweep_scheduler.store.faults;"
        "print([name for name in ('redis', 'asyncio', 'ssl', 'optuna', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
