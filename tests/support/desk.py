"""A user's folder: configs and scripts in it, and the commands that a user would type there, as processes."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resweep_scheduler.cli.main import run as run_command
from support.agents import AgentProcess, agent_command, thaw

Say = Callable[..., str]
"""A `resweep` command line in this process, word by word, to its stdout."""

LIMIT = 60.0
"""Seconds that no command of these tests may take."""


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def line(self) -> str:
        """The one line on stderr, which is all that it printed."""
        assert self.out == "", self
        assert self.err.count("\n") == 1, self
        return self.err.strip()

    def json(self) -> Any:
        return json.loads(self.out)


class Desk:
    """Runs `resweep`, `sweep-agent` and scripts in one folder, with one server.

    Attributes:
        folder: Where everything runs.
        url: Of the server; every command finds it in RESWEEP_URL.
        environment: Set for every command.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.environment = {**os.environ, "RESWEEP_URL": url, "PATH": f"{_programs()}:{os.environ.get('PATH', '')}"}
        self._agents: list[AgentProcess] = []

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def lines(self, name: str) -> list[str]:
        """Lines of a file that scripts append to; none when nobody has yet."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def call(self, *words: str, env: Mapping[str, str] | None = None, text: str = "", code: int | None = 0) -> Done:
        """Run a command to its end; `code` is what it must end with, None for anything."""
        ended = subprocess.run(
            words, cwd=self.folder, env={**self.environment, **(env or {})}, input=text, capture_output=True,
            text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        done = Done(ended.returncode, ended.stdout, ended.stderr)
        assert "Traceback" not in done.err or code not in (0, None), f"{words}: {done}"
        assert code is None or done.code == code, f"{words} ended with {done.code}, not {code}: {done}"
        return done

    def resweep(self, *words: str, env: Mapping[str, str] | None = None, text: str = "", code: int | None = 0) -> Done:
        return self.call(str(_programs() / "resweep"), *words, env=env, text=text, code=code)

    def agent(self, sweep: str, *words: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
        """Run an agent to its end."""
        return self.call(*agent_command(), sweep, *words, env=env, code=code)

    def start_agent(self, sweep: str, *words: str, env: Mapping[str, str] | None = None) -> AgentProcess:
        """Start an agent, and go on."""
        log = self.folder / f"agent-{len(self._agents)}.log"
        agent = AgentProcess(
            log.stem,
            [*agent_command(), sweep, *words],
            environment={**self.environment, **(env or {})}, directory=self.folder, log=log,
        )  # fmt: skip
        self._agents.append(agent)
        return agent

    def python(self, script: str, *words: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
        """Run a script of the folder by itself, outside every sweep."""
        return self.call(sys.executable, script, *words, env=env, code=code)

    def create(self, config: Mapping[str, object] | str, *words: str) -> str:
        """Create a sweep as `resweep create -q` does; returns its id."""
        text = config if isinstance(config, str) else json.dumps(config)
        path = self.write(f".sweep-{os.urandom(4).hex()}.yaml", text)
        sweep_id = self.read_by("create", "-q", str(path), *words).strip()
        assert sweep_id.isalnum(), sweep_id
        return sweep_id

    def read_by(self, *words: str) -> str:
        """What a `resweep` command prints; it runs in this process, which is quicker."""
        printed = io.StringIO()
        with redirect_stdout(printed):
            code = run_command(["--url", self.url, *words])
        assert code == 0, f"resweep {words} ended with {code}"
        return printed.getvalue()

    def show(self, sweep: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read_by("show", sweep, "--json"))
        return found

    def runs(self, sweep: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.read_by("runs", sweep, "--json"))
        return found

    def only_run(self, sweep: str) -> dict[str, Any]:
        (run,) = self.runs(sweep)
        return run

    def history(self, run: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.read_by("history", run, "--json"))
        return rows

    def events(self, sweep: str) -> list[dict[str, Any]]:
        """All that happened to a sweep, in its order."""
        return [json.loads(line) for line in self.read_by("export", sweep, "--events").splitlines()]

    def end(self) -> None:
        """Kill every agent that is left."""
        for agent in self._agents:
            if agent.running:
                thaw(agent.tree())
                agent.kill()


def _programs() -> Path:
    return Path(sys.executable).parent


@contextmanager
def desk_in(folder: Path, url: str) -> Iterator[Desk]:
    """A desk whose agents are gone at the end of the block."""
    folder.mkdir(exist_ok=True)
    desk = Desk(folder, url)
    try:
        yield desk
    finally:
        desk.end()
