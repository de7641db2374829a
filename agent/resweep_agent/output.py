"""What the children print: to the terminal, to a file per attempt, and its tail to Redis.

One thread reads the pipes of all children, so that a terminal that does not take any more holds up the children's
output and nothing else.
"""

from __future__ import annotations

import codecs
import contextlib
import logging
import os
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from resweep_agent.logs import event
from resweep_agent.streams import write_through

_log = logging.getLogger(__name__)

CHUNK = 65536
"""Bytes read from a pipe at once: what a pipe of Linux holds."""
TAIL = 65536
"""Characters that wait for Redis; older ones are in the file only."""
LONGEST_LINE = 8192
"""Bytes of an unfinished line that wait for its end before they go to a terminal with prefixes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the output on its way to Redis; sent again as it was, so that Redis can tell that it has it."""

    number: int  # within the attempt, from 1
    text: str


class Terminal(Protocol):
    """Where output is shown. Called from the output thread only."""

    def write(self, data: bytes) -> None:
        """Show `data`. Errors are the terminal's own business: it says nothing and goes on."""


class StandardOutput:
    """The standard output of this process, also where it is no file (notebooks)."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._closed = False

    def write(self, data: bytes) -> None:
        """Show `data`; a reader that went away ends the showing, not the agent."""
        if self._closed or sys.stdout is None:  # None: it was closed before we were started
            return
        try:
            if hasattr(sys.stdout, "buffer"):
                write_through(sys.stdout, data)
            else:
                sys.stdout.write(self._decoder.decode(data))
                sys.stdout.flush()
        except (OSError, ValueError):
            self._closed = True
            self._silence()

    def _silence(self) -> None:
        # The interpreter flushes standard output at its end and would complain about the reader that went away.
        if sys.stdout is None:
            return
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


class OutputStream:
    """The output of one attempt.

    Attributes:
        descriptor: The pipe that it comes from.
        path: The file that it goes to.
        closed: Set at its end.
        failed: A fault of ours with it was logged.
    """

    def __init__(self, descriptor: int, path: Path, terminal: Terminal, prefix: str) -> None:
        self.descriptor = descriptor
        self.path = path
        self.closed = threading.Event()
        self.failed = False
        self._terminal = terminal
        self._prefix = prefix.encode()
        self._unfinished = b""
        self._file: BinaryIO | None = None
        self._file_failed = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail: deque[str] = deque()
        self._tail_length = 0
        self._pieces = 0
        self._unsent: deque[Piece] = deque()
        self._lock = threading.Lock()

    @property
    def has_tail(self) -> bool:
        """True when there is text for Redis."""
        return bool(self._tail or self._unsent)

    def take_tail(self) -> Piece | None:
        """Take what Redis has not got yet, at most the last `TAIL` characters; None for nothing. Any thread."""
        with self._lock:
            if self._unsent:
                return self._unsent.popleft()
            text = "".join(self._tail)[-TAIL:]
            self._tail.clear()
            self._tail_length = 0
            if not text:
                return None
            self._pieces += 1
            return Piece(self._pieces, text)

    def put_back(self, piece: Piece) -> None:
        """Put a piece back that may not have been stored."""
        with self._lock:
            self._unsent.append(piece)

    def add(self, data: bytes) -> None:
        """Take in what the child printed. Output thread only."""
        self._to_file(data)
        self._to_tail(self._decoder.decode(data))
        self._to_terminal(data)

    def finish(self) -> None:
        """No more will come. Output thread only."""
        try:
            self._to_tail(self._decoder.decode(b"", final=True))
            if self._unfinished:
                self._terminal.write(self._prefix + self._unfinished + b"\n")
                self._unfinished = b""
        finally:
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.close()
            os.close(self.descriptor)
            self.closed.set()

    def _to_file(self, data: bytes) -> None:
        if self._file_failed:
            return
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            self._file.write(data)
        except OSError as error:
            self._file_failed = True
            event(
                _log,
                logging.WARNING,
                "output-file-failed",
                path=self.path,
                error=error,
                next="the run goes on; its output goes to the terminal and its tail to Redis",
            )

    def _to_tail(self, text: str) -> None:
        if not text:
            return
        with self._lock:
            self._tail.append(text)
            self._tail_length += len(text)
            self._shorten_tail()

    def _shorten_tail(self) -> None:
        while self._tail_length > 2 * TAIL and len(self._tail) > 1:
            self._tail_length -= len(self._tail.popleft())

    def _to_terminal(self, data: bytes) -> None:
        if not self._prefix:
            self._terminal.write(data)
            return
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        if len(self._unfinished) > LONGEST_LINE:
            lines.append(self._unfinished)
            self._unfinished = b""
        if lines:
            self._terminal.write(b"".join(self._prefix + line + b"\n" for line in lines))


class OutputPump:
    """The thread that reads the pipes."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._selector = selectors.DefaultSelector()
        self._wake_receiver, self._wake_sender = os.pipe()
        os.set_blocking(self._wake_receiver, False)
        os.set_blocking(self._wake_sender, False)
        self._orders: deque[tuple[str, OutputStream | None]] = deque()
        self._thread = threading.Thread(target=self._run, name="resweep-output", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)
        self._thread.start()

    def attach(self, descriptor: int, path: Path, prefix: str = "") -> OutputStream:
        """Read `descriptor`, which is ours from now on, into `path` and, behind `prefix`, to the terminal.

        The file and its folder are made with the first output; a file that cannot be written is said once.
        """
        os.set_blocking(descriptor, False)
        stream = OutputStream(descriptor, path, self._terminal, prefix)
        self._order("open", stream)
        return stream

    def finish(self, stream: OutputStream) -> None:
        """The child ended: read what is there and close, whoever else still holds the other end of the pipe."""
        self._order("finish", stream)

    def close(self, timeout: float = 2.0) -> None:
        """End the thread, after what is there has been read."""
        self._order("close", None)
        self._thread.join(timeout)
        os.close(self._wake_sender)

    def _order(self, what: str, stream: OutputStream | None) -> None:
        self._orders.append((what, stream))
        # The thread may see the order before it is woken; if that was the last one, nobody reads the pipe any more.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._wake_sender, b"!")

    def _run(self) -> None:
        try:
            while self._step():
                pass
        finally:
            self._selector.close()
            os.close(self._wake_receiver)

    def _step(self) -> bool:
        for key, _ in self._selector.select():
            if isinstance(key.data, OutputStream):
                self._read(key.data)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_receiver, CHUNK)
        while self._orders:
            what, stream = self._orders.popleft()
            if stream is None:
                self._finish_all()
                return False
            if what == "open":
                self._selector.register(stream.descriptor, selectors.EVENT_READ, stream)
            else:
                self._finish(stream)
        return True

    def _read(self, stream: OutputStream) -> bool:
        """Read once; return whether there may be more now."""
        try:
            data = os.read(stream.descriptor, CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._guarded(stream, lambda: stream.add(data))
            return True
        # Everybody closed the other end. The descriptor stays ours until `finish`, so that its number is not reused.
        self._selector.unregister(stream.descriptor)
        return False

    def _finish(self, stream: OutputStream) -> None:
        if stream.closed.is_set():
            return
        if stream.descriptor in self._selector.get_map():
            while self._read(stream):
                pass
        if stream.descriptor in self._selector.get_map():
            self._selector.unregister(stream.descriptor)
        self._guarded(stream, stream.finish)

    def _guarded(self, stream: OutputStream, call: Callable[[], None]) -> None:
        """A fault of ours must not end the thread: every child would wait for somebody who reads what it prints."""
        try:
            call()
        except Exception:
            if not stream.failed:
                stream.failed = True
                _log.exception("output-fault")

    def _finish_all(self) -> None:
        streams = [key.data for key in self._selector.get_map().values() if isinstance(key.data, OutputStream)]
        for stream in streams:
            self._finish(stream)
