"""Fixtures of several files of integration tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import Say
from support.gateways import Gateway, gateway_to
from support.servers import Server

from resweep_scheduler.cli.main import run


@pytest.fixture
def gateway(shared_server: Server, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that asks for no key."""
    with gateway_to(shared_server.url, tmp_path, "--no-auth") as gateway:
        yield gateway


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command line that must succeed, and returns its stdout."""

    def call(*words: str) -> str:
        capsys.readouterr()
        status = run(words)
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out

    return call
