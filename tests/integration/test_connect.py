"""Connecting to real servers."""

from __future__ import annotations

from support.servers import Server


def test_a_tcp_url_reaches_its_server(server: Server) -> None:
    with server.client() as client:
        client.set("a", "1")
        assert client.get("a") == "1"


def test_acknowledged_writes_survive_a_kill(server: Server) -> None:
    with server.client() as client:
        client.set("a", "1")
        server.kill()
        server.start()
        assert client.get("a") == "1"
