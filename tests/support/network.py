"""A network namespace for agents, joined to this machine by a link that is cut and healed at will."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from resweep_scheduler.service.server import find_binary
from support.servers import Server, free_port

_TIMEOUT = 20  # seconds for one command of iproute2
_CAP_SYS_ADMIN = 21  # capabilities(7)


class Network:
    """A namespace whose processes reach this machine as `server_address` only.

    Attributes:
        name: Of the namespace.
        server_address: This machine as seen from inside; servers must listen there.
    """

    def __init__(self, name: str, server_address: str, link: str) -> None:
        self.name = name
        self.server_address = server_address
        self._link = link

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` inside, as the same process."""
        return [_program("ip"), "netns", "exec", self.name, *argv]

    def cut(self) -> None:
        """Drop every packet in both directions, without a word to either side."""
        for chain, direction in (("INPUT", "-i"), ("OUTPUT", "-o")):
            _run(*self.inside([_program("iptables"), "-w", "-A", chain, direction, self._link, "-j", "DROP"]))

    def heal(self) -> None:
        """Let packets through again."""
        _run(*self.inside([_program("iptables"), "-w", "-F"]))


def require_namespaces() -> None:
    """Skip the test with a reason where namespaces cannot be made; under CI=true that is a failure."""
    reason = _what_lacks()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must have it")
    if reason:
        pytest.skip(reason)


def _what_lacks() -> str:
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    missing = [name for name in ("ip", "iptables") if not _find(name)]
    if missing:
        return f"not installed: {', '.join(missing)} (packages iproute2, iptables)"
    held = int(
        next(line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line).split()[1], 16
    )
    return "" if held >> _CAP_SYS_ADMIN & 1 else "network namespaces need root (or `unshare -Urnm`)"


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _program(name: str) -> str:
    path = _find(name)
    assert path is not None, f"{name} is not installed; call require_namespaces first"
    return path


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr.strip()}"


@contextmanager
def separate_network() -> Iterator[Network]:
    """A namespace of its own with a working link, gone at the end of the block."""
    require_namespaces()
    tag = os.urandom(3).hex()
    name, outer, inner = f"rs-{tag}", f"rso{tag}", f"rsi{tag}"
    # 198.18.0.0/15 is set aside for tests of networks (RFC 2544): nobody routes it.
    third, fourth = int(tag[:2], 16), int(tag[2:4], 16) & 0xFC
    ours, theirs = f"198.18.{third}.{fourth + 1}", f"198.18.{third}.{fourth + 2}"
    ip = _program("ip")
    with ExitStack() as stack:
        _run(ip, "netns", "add", name)
        # The pair of links goes with the namespace.
        stack.callback(_run, ip, "netns", "del", name)
        _run(ip, "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
        _run(ip, "addr", "add", f"{ours}/30", "dev", outer)
        _run(ip, "-n", name, "addr", "add", f"{theirs}/30", "dev", inner)
        _run(ip, "link", "set", outer, "up")
        for link in ("lo", inner):
            _run(ip, "-n", name, "link", "set", link, "up")
        yield Network(name, ours, inner)


@contextmanager
def server_in(directory: Path, network: Network) -> Iterator[Server]:
    """A server that listens on loopback for us and on the network's address for those inside."""
    home = directory / f"server-{os.urandom(4).hex()}"
    home.mkdir()
    port = free_port()
    arguments = [
        *(str(find_binary()), "--dir", str(home), "--save", "", "--appendonly", "yes", "--appendfsync", "always"),
        *("--port", str(port), "--bind", "127.0.0.1", network.server_address, "--protected-mode", "no"),
    ]
    server = Server(home, url=f"redis://127.0.0.1:{port}/0", port=port, arguments=arguments)
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        yield server
