"""Small sweeps of small scripts, for tests of the agent: the script does what its parameters say."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import create_sweep
from resweep_scheduler.store import Run, Store
from support.agents import Agents, agents_of
from support.servers import Server
from support.waiting import wait_until

HELPERS = """
import json, os, signal, sys, time
from pathlib import Path

def trace(name, **facts):
    # A signal may come in the middle, whose handler tells the same.
    part = Path(f".{name}.{os.getpid()}.{time.monotonic_ns()}")
    part.write_text(json.dumps({"pid": os.getpid(), **facts}))
    part.rename(f"{name}.json")

def wait_for(name, seconds=30):
    deadline = time.monotonic() + seconds
    while not Path(name).exists():
        if time.monotonic() > deadline:
            sys.exit(f"waited {seconds} s for {name}")
        time.sleep(0.01)
"""
"""What a script tells the test, and how it waits for it."""

PRELUDE = (
    HELPERS
    + """
params = json.loads(sys.argv[1])
attempt = int(os.environ["RESWEEP_ATTEMPT"])
run_id = os.environ["WANDB_RUN_ID"]

def mark():
    from resweep_scheduler.store import ClaimToken, Scope, open_store
    token = ClaimToken.decode(run_id, os.environ["RESWEEP_CLAIM"])
    open_store(os.environ["RESWEEP_URL"], Scope()).mark_preempting(token, reason="script")
"""
)


PATIENCE = 60.0
"""Seconds in which a child begins, also on a busy machine."""


@dataclass(frozen=True, slots=True)
class Small:
    """A sweep over a script, and agents that work in its folder.

    Attributes:
        folder: Where the script runs and leaves its traces.
    """

    store: Store
    sweep_id: str
    folder: Path
    agents: Agents

    def runs(self) -> list[Run]:
        return self.store.runs(self.sweep_id)

    def states(self) -> list[str]:
        """The states of all runs, in the order of the search."""
        return [run.state.value for run in self.runs()]

    def kinds(self) -> list[str]:
        """What happened to runs, in order."""
        return [event.kind for event in self.store.events(self.sweep_id) if event.run_id is not None]

    def trace(self, name: str) -> dict[str, Any] | None:
        """What a child wrote down under this name, None as long as it has not."""
        path = self.folder / f"{name}.json"
        found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return found

    def wait_for(self, name: str) -> dict[str, Any]:
        """What a child wrote down under this name, as soon as it has."""
        wait_until(lambda: self.trace(name), timeout=PATIENCE, description=f"the trace {name} of a child")
        found = self.trace(name)
        assert found is not None
        return found

    def open(self, name: str) -> None:
        """Let children go on that wait for this file."""
        (self.folder / name).touch()


@contextmanager
def small_sweep(
    server: Server,
    folder: Path,
    script: str,
    *,
    values: Sequence[object] = (0,),
    environment: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    **config: object,
) -> Iterator[Small]:
    """A grid over the parameter `a` with these values; `script` follows `PRELUDE`."""
    folder.mkdir(exist_ok=True)
    (folder / "child.py").write_text(PRELUDE + script)
    checked = parse_sweep(
        {
            "method": "grid",
            "program": "child.py",
            "command": list(command or [sys.executable, "${program}", "${args_json}"]),
            "parameters": {"a": {"values": list(values)}},
            **config,
        }
    )
    store, sweep_id = create_sweep(server.url, checked, config_text="")
    with agents_of(folder, sweep_id, url=server.url, environment=environment or {}) as agents:
        yield Small(store, sweep_id, folder, agents)
