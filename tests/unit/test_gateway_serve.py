"""The gateway as a process: how its connections are."""

from __future__ import annotations

import asyncio
import socket

from resweep_scheduler.gateway.serve import as_tcp


def test_small_answers_are_sent_at_once() -> None:
    """Head and body of an answer are two packets; without TCP_NODELAY the second waits for the client."""

    async def accepted(listener: socket.socket) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            found.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(take, sock=listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            without_delay = await asyncio.wait_for(found, 20)
            writer.close()
            await writer.wait_closed()
        return without_delay

    assert asyncio.run(accepted(as_tcp(socket.create_server(("127.0.0.1", 0))))) == 1


def test_other_listeners_stay_as_they_are() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        assert as_tcp(listener) is listener
