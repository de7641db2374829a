"""The SDK in tests: on a fake server, as an attempt of a sweep, and in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fakeredis
import pytest

from resweep import beginning, session, sync
from resweep_scheduler.store import Store, StoreUnavailableError
from support.stores import Agent, fake_store, make_offer, make_sweep


@contextmanager
def fake_sdk(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[Store]:
    """`resweep.init` in `directory` with a fake server, whose store is the value; ends the run that is left over."""
    server = fakeredis.FakeServer(version=(7, 0))

    def open_fake(entity: str, project: str, url: str | None = None) -> Store:
        store = fake_store(server)
        return Store(store.client, type(store.scope)(entity, project))

    for module in (beginning, sync):
        monkeypatch.setattr(module, "open_store", open_fake)
    monkeypatch.chdir(directory)
    with clean_session():
        yield fake_store(server)


@contextmanager
def clean_session() -> Iterator[None]:
    """No run is active at the start of the block, nor after it."""
    session.finish()
    try:
        yield
    finally:
        session.finish()


def attempt_environment(store: Store, agent: Agent) -> dict[str, str]:
    """What the agent would set for the run that it has."""
    run = agent.run
    return {
        "WANDB_RUN_ID": run.token.run_id,
        "WANDB_RESUME": "allow",
        "WANDB_PROJECT": store.scope.project,
        "RESWEEP_SWEEP_ID": agent.sweep_id,
        "RESWEEP_AGENT_ID": agent.name,
        "RESWEEP_ATTEMPT": str(run.token.attempt),
        "RESWEEP_CLAIM": run.token.encode(),
    }


def begin_attempt(store: Store, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Agent:
    """A sweep with one run, whose first attempt begins in this process."""
    make_sweep(store, **settings)
    agent = Agent(store)
    agent.take(make_offer(1, exhausted=True))
    enter_attempt(store, monkeypatch, agent)
    return agent


def enter_attempt(store: Store, monkeypatch: pytest.MonkeyPatch, agent: Agent) -> None:
    """This process is the child of `agent` from here on."""
    for name, value in attempt_environment(store, agent).items():
        monkeypatch.setenv(name, value)


class ScriptsLink:
    """What the run in this process reaches Redis by, in the thread that sends; all else reaches it all the time.

    Attributes:
        loses: Of which request the answer is lost: Redis executes it, and from then on the link is cut.
        cut: Whether nothing gets through.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, loses: str = "") -> None:
        self.loses = loses
        self.cut = False
        through = Store._run_script

        def run_script(store: Store, name: str, *arguments: Any, **named: Any) -> Any:
            sending = threading.current_thread().name == "resweep-sender"
            if sending and self.cut:
                raise StoreUnavailableError("away")
            answer = through(store, name, *arguments, **named)
            if sending and name == self.loses:
                self.cut = True
                raise StoreUnavailableError("no answer")
            return answer

        monkeypatch.setattr(Store, "_run_script", run_script)

    def mend(self) -> None:
        """Everything gets through."""
        self.loses, self.cut = "", False


def start_script(
    text: str, directory: Path, environment: Mapping[str, str] | None = None, *arguments: str
) -> subprocess.Popen[str]:
    """A Python process that runs `text` as a file of its own in `directory`."""
    path = directory / f"script-{abs(hash(text))}.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(path), *arguments],
        cwd=directory,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_script(
    text: str, directory: Path, environment: Mapping[str, str] | None = None, *arguments: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of such a process."""
    with start_script(text, directory, environment, *arguments) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors
