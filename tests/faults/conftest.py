"""What fault tests of the store begin with: a server that knows all scripts, and a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis
from support.proxy import FaultProxy, fault_proxy, load_scripts
from support.servers import Server


@pytest.fixture
def client(shared_server: Server) -> Iterator[Redis]:
    with shared_server.client() as client:
        load_scripts(client)
        yield client


@pytest.fixture
def proxy(shared_server: Server) -> Iterator[FaultProxy]:
    with fault_proxy(shared_server.port) as proxy:
        yield proxy
