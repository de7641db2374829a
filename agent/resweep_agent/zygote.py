"""The zygote: a process with one thread, forked early, that forks a child for each call of a Python function.

So closures, lambdas and notebooks work, each run has a process of its own (GPU memory is freed, signals work), and
nothing is forked from a process with threads of ours.

On its socket it gets, for each run, the two descriptors of `SCM_RIGHTS` (output, status) with the length of the
environment as JSON, which follows. To the status descriptor the child writes `began PID` when it has a session of its
own, and the zygote `ended WAIT-STATUS` at its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Mapping

PR_SET_PDEATHSIG = 1
LENGTH = struct.Struct("!I")
RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
"""Signals that have their default action again in each child."""


class Zygote:
    """The agent's side: forks the zygote when it is made, so make it before any thread is started.

    Args:
        function: Called without arguments, in a process of its own for each run.
        finish: Called in that process after the function, with the exit status; for what must be flushed.
    """

    def __init__(self, function: Callable[[], object], finish: Callable[[int], None]) -> None:
        self._socket, other = socket.socketpair()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()  # what is buffered would be printed twice
        self._pid = os.fork()
        if self._pid == 0:
            status = 1
            try:
                self._socket.close()
                _serve(other, function, finish)
                status = 0
            finally:
                os._exit(status)
        other.close()

    @property
    def pid(self) -> int:
        """The process id of the zygote."""
        return self._pid

    def spawn(self, environment: Mapping[str, str], output: int, status: int) -> None:
        """Call the function in a new process with this environment; both descriptors stay ours.

        Raises:
            OSError: The zygote is gone.
        """
        text = json.dumps(dict(environment)).encode()
        socket.send_fds(self._socket, [LENGTH.pack(len(text))], [output, status])
        self._socket.sendall(text)

    def close(self) -> None:
        """End the zygote, and with it what still runs."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def die_with_parent() -> None:
    """On Linux: SIGKILL when the thread that forked us ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _serve(requests: socket.socket, function: Callable[[], object], finish: Callable[[int], None]) -> None:
    os.setsid()
    die_with_parent()
    for number in RESET:
        signal.signal(number, signal.SIG_IGN)
    receiver, sender = os.pipe()
    os.set_blocking(receiver, False)
    os.set_blocking(sender, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), receiver], [], [])
        if receiver in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(receiver, 4096)
            _reap(children)
        if requests.fileno() not in ready:
            continue
        request = _receive(requests)
        if request is None:
            for pid in children:
                _kill_group(pid)
            return
        environment, output, status = request
        pid = _fork_child(environment, output, status, function, finish, close=(requests.fileno(), receiver, sender))
        os.close(output)
        children[pid] = status


def _receive(requests: socket.socket) -> tuple[dict[str, str], int, int] | None:
    head, descriptors, _, _ = socket.recv_fds(requests, LENGTH.size, 2)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    text = b""
    while len(text) < length:
        part = requests.recv(length - len(text))
        if not part:
            return None
        text += part
    output, status = descriptors
    return json.loads(text), output, status


def _fork_child(
    environment: dict[str, str],
    output: int,
    status: int,
    function: Callable[[], object],
    finish: Callable[[int], None],
    *,
    close: tuple[int, ...],
) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for descriptor in close:
                os.close(descriptor)
            _become_run(environment, output, parent)
            _say(status, "began", os.getpid())
            os.close(status)
            code = _call(function, finish)
        except BaseException:
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)
    return pid


def _become_run(environment: dict[str, str], output: int, parent: int) -> None:
    os.setsid()
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(null)
    os.close(output)
    # In notebooks the two are no files; here they must be what a script would have.
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8", line_buffering=True)
    sys.stderr = io.TextIOWrapper(
        os.fdopen(2, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )
    os.environ.clear()
    os.environ.update(environment)
    for number in RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _seed_numpy()


def _seed_numpy() -> None:
    """All runs are forked from one state. Python seeds its own generator after a fork, NumPy does not."""
    loaded = sys.modules.get("numpy.random")
    if loaded is not None:
        loaded.seed()


def _call(function: Callable[[], object], finish: Callable[[int], None]) -> int:
    """Call the function; return the exit status as the interpreter would have it."""
    code = 0
    try:
        function()
    except SystemExit as error:
        code = _status(error)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 255
    except BaseException:
        traceback.print_exc()
        code = 1
    finish(code)
    return code


def _status(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _reap(children: dict[int, int]) -> None:
    for pid in list(children):
        if hasattr(os, "waitid"):
            # While the dead child is not reaped its number belongs to nobody else: kill its group first.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            _kill_group(pid)
        ended, wait_status = os.waitpid(pid, os.WNOHANG)
        if ended:
            status = children.pop(pid)
            _say(status, "ended", wait_status)
            os.close(status)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _say(status: int, what: str, number: int) -> None:
    with contextlib.suppress(OSError):
        os.write(status, f"{what} {number}\n".encode())
