"""A TCP proxy between clients and a Redis server that delays, holds, resets or loses what passes through it.

Faults of the whole link are modes (`pass`, `delay`, `stall`, `rst`, `drop-replies`, `cut-reply`); faults of one single
call are armed by the name of a script of the store, which is recognised by its SHA1 in EVALSHA. So the scripts must be
known to the server: call `load_scripts` first, and again after a restart of the server.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import files
from types import TracebackType
from typing import Any, Self

from resweep_scheduler.store.connect import Client
from resweep_scheduler.store.scripts import load_script

_CHUNK = 65536
_PAUSE = 0.01  # seconds between two looks at the mode of a held link
_UNKNOWN_SCRIPT = b"-NOSCRIPT"


def script_names() -> list[str]:
    """The names of all transitions of the store."""
    folder = files("resweep_scheduler.store") / "lua"
    return sorted(entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua"))


def load_scripts(client: Client) -> None:
    """Make the server know every script, so that each call of one is an EVALSHA that it executes."""
    for name in script_names():
        client.script_load(load_script(name).text)


class Mode(StrEnum):
    """What the proxy does with all links."""

    PASS = "pass"  # nothing but forwarding
    DELAY = "delay"  # every piece, in both directions, waits `seconds`
    STALL = "stall"  # holds everything, and delivers it when the mode ends, even if the client has gone meanwhile
    RST = "rst"  # open links are reset, new ones too
    DROP_REPLIES = "drop-replies"  # requests arrive, replies vanish
    CUT_REPLY = "cut-reply"  # the next reply becomes a reset; then pass


class _Link:
    """One client's connection and the one that it has to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.tail = b""  # the end of the last request piece: a SHA1 may lie across two pieces
        self.cut_for: str | None = None  # the script whose reply is to be lost


class FaultProxy:
    """Listens on a port of the loopback interface; its event loop has a thread of its own.

    Attributes:
        port: Where it listens.
        lost: How many replies of each script were lost by `cut_reply_of`.
        held: How many requests of each script were caught by `hold_request_of`.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.lost: Counter[str] = Counter()
        self.held: Counter[str] = Counter()
        self._upstream = (host, port)
        self._mode = Mode.PASS
        self._seconds = 0.0
        self._cut: dict[str, bytes] = {}
        self._hold: dict[str, bytes] = {}
        self._held_back = False
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._await(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._await(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    @property
    def url(self) -> str:
        """The server's address as seen through the proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def mode(self) -> Mode:
        return self._mode

    def set_mode(self, mode: Mode, *, seconds: float = 0.0) -> None:
        """Change what happens to open and new links, before this returns. `seconds` is for DELAY."""
        self._await(self._set_mode(mode, seconds))

    def cut_reply_of(self, name: str) -> None:
        """Lose the reply of exactly the next call of a script: it is executed, its client sees a reset."""
        self._await(self._arm(self._cut, name))

    def hold_request_of(self, name: str) -> None:
        """Keep the next call of a script, and its link, until `release_held`; its client waits in vain."""
        self._held_back = True
        self._await(self._arm(self._hold, name))

    def release_held(self) -> None:
        """Deliver the requests that were kept, whether their clients are still there or not."""
        self._held_back = False

    def _await(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    async def _arm(self, armed: dict[str, bytes], name: str) -> None:
        armed[name] = load_script(name).sha.encode()

    async def _set_mode(self, mode: Mode, seconds: float) -> None:
        self._mode, self._seconds = mode, seconds
        if mode is Mode.RST:
            for link in list(self._links):
                _reset(link.client)
                link.server.transport.abort()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        self._mode, self._held_back = Mode.PASS, False
        for link in list(self._links):
            link.client.transport.abort()
            link.server.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.RST:
            return _reset(writer)
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            return writer.transport.abort()
        link = _Link(writer, server_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._requests(link, reader), self._replies(link, server_reader))
        except asyncio.CancelledError:
            pass  # the end of the proxy; asyncio would log a task that ends as cancelled
        finally:
            self._links.discard(link)
        return None

    async def _requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            while piece := await reader.read(_CHUNK):
                seen, link.tail = link.tail + piece, piece[-64:]
                for name in [name for name, sha in self._hold.items() if sha in seen]:
                    await self._hold_piece(name)
                for name in [name for name, sha in self._cut.items() if sha in seen]:
                    link.cut_for = name
                await self._linger()
                link.server.write(piece)
                await link.server.drain()
        except OSError:
            pass
        finally:
            link.server.close()

    async def _hold_piece(self, name: str) -> None:
        del self._hold[name]
        self.held[name] += 1
        while self._held_back:
            await asyncio.sleep(_PAUSE)

    async def _replies(self, link: _Link, reader: asyncio.StreamReader) -> None:
        try:
            while piece := await reader.read(_CHUNK):
                await self._linger()
                if self._mode is Mode.DROP_REPLIES:
                    continue
                if self._mode is Mode.CUT_REPLY:
                    self._mode = Mode.PASS
                    return _reset(link.client)
                name, link.cut_for = link.cut_for, None
                if name in self._cut and not piece.startswith(_UNKNOWN_SCRIPT):
                    del self._cut[name]
                    _reset(link.client)
                    self.lost[name] += 1
                    return None
                link.client.write(piece)
                await link.client.drain()
        except OSError:
            pass
        finally:
            link.client.close()
        return None

    async def _linger(self) -> None:
        if self._mode is Mode.DELAY:
            await asyncio.sleep(self._seconds)
        while self._mode is Mode.STALL:
            await asyncio.sleep(_PAUSE)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with an RST, which the other side sees at once and as a fault."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(port: int, *, host: str = "127.0.0.1") -> Iterator[FaultProxy]:
    """A proxy in front of the server on that port."""
    with FaultProxy(host, port) as proxy:
        yield proxy
