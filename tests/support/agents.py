"""`sweep-agent` processes of a test: started, signalled, frozen, and all gone at its end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support import processes
from support.waiting import wait_until

GONE = 60.0
"""Seconds that a killed process may take to be gone on a busy machine."""


def agent_command() -> list[str]:
    """The `sweep-agent` of the environment that runs the tests."""
    beside = Path(sys.executable).with_name("sweep-agent")
    found = str(beside) if beside.exists() else shutil.which("sweep-agent")
    assert found is not None, (
        "sweep-agent is not installed beside the Python that runs the tests: pip install -e '.[test]'"
    )
    return [found]


def resweep_command() -> list[str]:
    """The `resweep` of the environment that runs the tests."""
    return [str(Path(agent_command()[0]).with_name("resweep"))]


class AgentProcess:
    """One `sweep-agent` process; what it prints goes to `log`, after what earlier ones of its name printed."""

    def __init__(
        self, name: str, argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as sink:
            self._begin = sink.tell()
            self._process = subprocess.Popen(
                argv, cwd=directory, env=dict(environment), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, to the agent alone."""
        self._process.kill()
        self._process.wait(GONE)

    def wait(self, timeout: float = 60.0) -> int:
        """Its exit status; what it printed is in the message when it does not end."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"sweep-agent has not ended in {timeout:g} s; it printed:\n{self.printed()}") from None

    def printed(self) -> str:
        """What it has printed itself."""
        return self.log.read_bytes()[self._begin :].decode(errors="replace")

    def tree(self) -> list[int]:
        """The agent and all processes below it."""
        below = processes.descendants()
        found = [self.pid]
        for pid in found:
            found += [child.pid for child in below.values() if child.parent == pid and child.pid not in found]
        return found

    def freeze(self) -> list[int]:
        """Stop the agent and everything below it at once, as a paused machine would; returns their ids for `thaw`."""
        frozen: list[int] = []
        while fresh := [pid for pid in self.tree() if pid not in frozen]:
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            frozen += fresh
        return frozen


def thaw(frozen: Sequence[int]) -> None:
    """Let frozen processes go on."""
    for pid in frozen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def wait_for_death(pids: Sequence[int], *, timeout: float = GONE) -> None:
    """Wait until none of the processes lives any more."""
    wait_until(
        lambda: not [pid for pid in pids if processes.alive(pid)],
        timeout=timeout,
        description=f"the end of {list(pids)}",
    )


class Agents:
    """Starts agents for one sweep in one working directory, as on machines that share their file system.

    Without a `url` they use the embedded server.
    """

    def __init__(self, directory: Path, sweep_id: str, *, url: str | None, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self.sweep_id = sweep_id
        self.url = url
        self.environment = dict(environment)
        self.all: list[AgentProcess] = []
        directory.mkdir(exist_ok=True)

    def start(
        self,
        name: str,
        *options: str,
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> AgentProcess:
        """Start an agent called `name`; `prefix` stands before its command."""
        where = url or self.url
        address = ["--url", where] if where else []
        argv = [*prefix, *agent_command(), self.sweep_id, *address, "--name", name, *options]
        agent = AgentProcess(
            name,
            argv,
            environment={**os.environ, **self.environment, **(environment or {})},
            directory=self.directory,
            log=self.directory / f"agent-{name}.log",
        )
        self.all.append(agent)
        return agent

    def end(self) -> None:
        """Kill every agent that is left; their guards end what they had started."""
        for agent in self.all:
            if agent.running:
                thaw(agent.tree())
                agent.kill()


@contextmanager
def agents_of(directory: Path, sweep_id: str, *, url: str | None, environment: Mapping[str, str]) -> Iterator[Agents]:
    """Agents that are gone at the end of the block, whatever happened in it."""
    agents = Agents(directory, sweep_id, url=url, environment=environment)
    try:
        yield agents
    finally:
        agents.end()
