"""A gateway as a process: `resweep serve`, and the one that `sweep-agent --wandb` starts for its children."""

from __future__ import annotations

import ipaddress
import os
import socket
import threading

from resweep_scheduler.gateway.app import make_app


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(
    url: str, listener: socket.socket, *, no_auth: bool = False, public_url: str = "", lifeline: int | None = None
) -> None:
    """Answer until SIGTERM or SIGINT.

    Args:
        url: The address of Redis.
        listener: Bound, listening.
        public_url: How clients reach the gateway, if not by the address to which their requests come.
        lifeline: A descriptor; when its other end is closed, this process ends.
    """
    import uvicorn

    config = uvicorn.Config(
        make_app(url, no_auth=no_auth, public_url=public_url),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=75,  # clients speak every 15 or 30 seconds
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    if lifeline is not None:
        threading.Thread(target=_end_with, args=(lifeline,), name="lifeline", daemon=True).start()
    server.run(sockets=[as_tcp(listener)])


def as_tcp(listener: socket.socket) -> socket.socket:
    """The same listener, known to be TCP: only then asyncio sends small answers at once (TCP_NODELAY).

    Else the second packet of an answer waits until the client acknowledges the first, which takes it 40 ms.
    """
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return listener
    family, kind = listener.family, listener.type
    return socket.socket(family, kind, socket.IPPROTO_TCP, fileno=listener.detach())


def _end_with(lifeline: int) -> None:
    while os.read(lifeline, 1):
        pass
    os._exit(0)
