"""The embedded server: one Valkey per user and machine, started by whoever comes first and found by all others.

Its home is a folder of mode 0700 on a local disk:

    start.lock        held (flock) by whoever starts or stops the server
    alive.lock        held by the server itself, which inherits it, for as long as it lives
    server.sock       where it listens (in /tmp/resweep-UID when that path is too long for a socket)
    server.pid, server.log, appendonlydir/

The kernel releases alive.lock when the server dies, be it by SIGKILL. So "nobody answers" and "nobody lives" are told
apart, and no second server ever comes to the data of a first one: it would take its socket away without a word, and
both would append to one file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from resweep_scheduler.service.binary import ServerError, find_binary
from resweep_scheduler.service.filesystems import network_filesystem
from resweep_scheduler.store.connect import connect, resolve_url

__all__ = [
    "ServerError",
    "ServerStatus",
    "default_home",
    "ensure_server",
    "find_binary",
    "open_store_url",
    "server_status",
    "stop_server",
]

LONGEST_SOCKET_PATH = 100  # bytes; Linux takes 107, macOS 103
LEAST_FREE_BYTES = 64 * 1024 * 1024
REPLY_TIMEOUT = 5.0  # seconds; a busy disk may hold up a server that syncs every write
SETTLE_TIMEOUT = 3.0  # seconds for a server that is just ending to let its lock go


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of the embedded server of one home.

    Attributes:
        running: Its process lives.
        url: Where it listens, or would.
        directory: Its home.
        data_bytes: Size of its data on disk.
        pid, version, uptime: Of the running server; None when it does not run or does not answer. Uptime in seconds.
        problem: Why a running server cannot be used; None when all is well.
    """

    running: bool
    url: str
    directory: Path
    data_bytes: int
    pid: int | None = None
    version: str | None = None
    uptime: float | None = None
    problem: str | None = None


def default_home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the server's home: RESWEEP_HOME, else resweep/server in XDG_DATA_HOME or ~/.local/share."""
    if given := environ.get("RESWEEP_HOME"):
        return Path(given).expanduser()
    data_home = environ.get("XDG_DATA_HOME", "")
    # The XDG specification: a path that is not absolute is invalid and must be ignored.
    base = Path(data_home) if os.path.isabs(data_home) else Path.home() / ".local" / "share"
    return base / "resweep" / "server"


def open_store_url(explicit: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the store: the given one, RESWEEP_URL, REDIS_URL, else that of the embedded server, started.

    Raises:
        ServerError: No URL is given, and the embedded server cannot run here.
    """
    return resolve_url(explicit, environ) or ensure_server(default_home(environ))


def ensure_server(home: Path | None = None, *, timeout: float = 30.0) -> str:
    """Return the URL of the server of `home`, starting it if it does not live; any number of callers may race.

    Args:
        home: Its folder, created if need be; None for `default_home()`.
        timeout: Seconds to wait for another starter, and for the server to load its data.

    Raises:
        ServerError: It cannot be started, or lives and does not answer.
    """
    deadline = time.monotonic() + timeout
    directory = _private_directory((home or default_home()).resolve())
    path = _socket_path(directory)
    if not _answers(path, deadline):
        with _start_lock(directory, deadline):
            _start(directory, path, deadline)
    return _url(path)


def stop_server(home: Path | None = None, *, timeout: float = 15.0) -> bool:
    """End the server of `home`; True when it lived. Its data stays.

    Raises:
        ServerError: It lives, and does not end within `timeout` seconds.
    """
    directory = (home or default_home()).resolve()
    if not directory.is_dir():
        return False
    deadline = time.monotonic() + timeout
    with _start_lock(directory, deadline):  # nobody starts another one meanwhile
        if not _lives(directory):
            return False
        if _ask(_socket_path(directory, create=False), b"SHUTDOWN NOSAVE") is None:
            _terminate(directory)
        while _lives(directory):
            if time.monotonic() > deadline:
                raise ServerError(_does_not_answer(directory))
            time.sleep(0.01)
    return True


def server_status(home: Path | None = None) -> ServerStatus:
    """Look at the server of `home`, and change nothing."""
    directory = (home or default_home()).resolve()
    path = _socket_path(directory, create=False)
    data_bytes = sum(
        _size(file) for pattern in ("appendonlydir/*", "*.aof", "*.rdb") for file in directory.glob(pattern)
    )
    seen = ServerStatus(running=False, url=_url(path), directory=directory, data_bytes=data_bytes)
    if not (directory.is_dir() and _lives(directory)):
        return seen
    from redis.exceptions import RedisError

    seen = replace(seen, running=True, pid=_recorded_pid(directory))
    try:
        with closing(connect(seen.url, timeout=REPLY_TIMEOUT)) as client:
            info = client.info("server") | client.info("persistence")
    except (RedisError, OSError):
        return replace(seen, problem=_does_not_answer(directory))
    return replace(
        seen,
        pid=info["process_id"],
        version=_version_of(info),
        uptime=float(info["uptime_in_seconds"]),
        problem="it is loading its data: wait" if info["loading"] else None,
    )


def _private_directory(directory: Path) -> Path:
    """Make sure of a folder that nobody else can enter, on a disk that can hold locks and data."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.lstat()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        raise ServerError(f"{directory} cannot be the server's home ({error.strerror}): {_OTHER_HOME}") from error
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise ServerError(f"{directory} must be a folder that belongs to you (uid {os.getuid()}): {_OTHER_HOME}")
    if info.st_mode & 0o077:
        raise ServerError(
            f"{directory} must be closed to other users, its mode is {stat.S_IMODE(info.st_mode):04o}: "
            f"run chmod 700 {directory}, or {_OTHER_HOME}"
        )
    if kind := network_filesystem(directory):
        raise ServerError(
            f"{directory} is on a network filesystem ({kind}), where locks and sockets do not work: {_OTHER_HOME}"
        )
    if free < LEAST_FREE_BYTES:
        raise ServerError(
            f"the disk of {directory} has {free >> 20} MiB left, the server needs {LEAST_FREE_BYTES >> 20}: "
            f"make room, or {_OTHER_HOME}"
        )
    return directory


_OTHER_HOME = "set RESWEEP_HOME to a folder of your own on a local disk, or RESWEEP_URL to a server that runs elsewhere"


def _socket_path(directory: Path, *, create: bool = True) -> Path:
    path = directory / "server.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    short = Path(f"/tmp/resweep-{os.getuid()}")
    if create:
        short = _private_directory(short)
    return short / (hashlib.sha256(os.fsencode(directory)).hexdigest()[:16] + ".sock")


def _url(path: Path) -> str:
    return f"unix://{quote(str(path))}"


@contextmanager
def _start_lock(directory: Path, deadline: float) -> Iterator[None]:
    """Hold start.lock: one process at a time starts or stops the server."""
    with _open_lock(directory / "start.lock") as lock:
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise ServerError(
                    f"another process has been starting or stopping the server in {directory} for too long: "
                    f"find it with `fuser {directory / 'start.lock'}`, end it, and try again"
                )
            time.sleep(0.01)
        yield


@contextmanager
def _open_lock(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ServerError(f"{path} cannot be opened ({error.strerror}): {_OTHER_HOME}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lives(directory: Path) -> bool:
    """Whether the server holds its lock. The look itself holds the lock for an instant; starters allow for that."""
    if not (directory / "alive.lock").exists():
        return False
    with _open_lock(directory / "alive.lock") as lock:
        return not _try_lock(lock)


def _start(directory: Path, path: Path, deadline: float) -> None:
    """Start the server, unless somebody did while we waited for start.lock, which the caller holds."""
    with _open_lock(directory / "alive.lock") as alive:
        settled = time.monotonic() + SETTLE_TIMEOUT
        while True:
            if _answers(path, deadline):
                return
            if _try_lock(alive):
                break
            if time.monotonic() > settled:
                raise ServerError(_does_not_answer(directory))
            time.sleep(0.01)
        _spawn(directory, path, alive)
    while not _answers(path, deadline):
        if not _lives(directory):
            raise ServerError(f"the server ended at once{_last_words(directory)}: see {directory / 'server.log'}")
        if time.monotonic() > deadline:
            raise ServerError(f"the server was started, and does not answer yet: see {directory / 'server.log'}")
        time.sleep(0.005)


def _spawn(directory: Path, path: Path, alive: int) -> None:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "600",
        "dir": str(directory),
        "pidfile": str(directory / "server.pid"),
        "appendonly": "yes",
        # With everysec, acknowledged writes are lost by a mere kill of the process while an fsync is under way.
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        # A stream's first entry takes a whole node: 4 KB by default for each run that logged one row or printed a line.
        "stream-node-max-bytes": "1024",
    }
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    (directory / "server.pid").unlink(missing_ok=True)  # so that it is always the living server's
    log = os.open(directory / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # The shell ends at once and leaves the server to init, so no caller has to wait for it. The session of its own
        # keeps it alive when the caller's terminal goes; the descriptor that it inherits keeps alive.lock held.
        subprocess.run(
            ["/bin/sh", "-c", '"$@" &', "sh", str(find_binary()), *words],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[alive],
            umask=0o077,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ServerError(f"the server cannot be started ({error}): see {directory / 'server.log'}") from error
    finally:
        os.close(log)


def _ask(path: Path, command: bytes) -> bytes | None:
    """The first bytes of the server's reply, or None when nobody answers."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(REPLY_TIMEOUT)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            return connection.recv(512)
        except OSError:
            return None


def _answers(path: Path, deadline: float) -> bool:
    """Whether a server answers; waits while it is loading its data."""
    while (reply := _ask(path, b"PING")) and reply.startswith(b"-LOADING"):
        if time.monotonic() > deadline:
            raise ServerError(f"the server on {path} is still loading its data: try again later")
        time.sleep(0.05)
    return reply is not None and reply.startswith(b"+PONG")


def _does_not_answer(directory: Path) -> str:
    pid = _recorded_pid(directory)
    end_it = f"end it with `kill -9 {pid}`" if pid else "end it"
    return f"a server owns {directory}, but does not answer on its socket: {end_it}, and try again; its data stays"


def _terminate(directory: Path) -> None:
    """Send SIGTERM to a living server whose socket is gone, as after a cleaning of /tmp."""
    pid = _recorded_pid(directory)
    # The working folder tells the server from a process of another container's, whose pid means nothing here.
    with suppress(OSError):
        if pid and Path(f"/proc/{pid}/cwd").readlink() == directory:
            os.kill(pid, signal.SIGTERM)


def _recorded_pid(directory: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int((directory / "server.pid").read_text())
    return None


def _last_words(directory: Path) -> str:
    with suppress(OSError):
        lines = (directory / "server.log").read_text(errors="replace").splitlines()
        if lines:
            return f" ({lines[-1].strip()[:200]})"
    return ""


def _size(file: Path) -> int:
    with suppress(OSError):  # a rewrite of the AOF may just have removed it
        return file.stat().st_size
    return 0


def _version_of(info: Mapping[str, object]) -> str:
    """As "Valkey 9.1.2"; Valkey reports the version of Redis that it is compatible with, too."""
    if valkey := info.get("valkey_version"):
        return f"Valkey {valkey}"
    return f"Redis {info['redis_version']}"
