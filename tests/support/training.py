"""Sweeps over the training script of the fault tests, and what its children leave behind to be looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import create_sweep
from resweep_scheduler.store import Store

PROGRAM = Path(__file__).with_name("training_script.py")
PLAIN_PROGRAM = Path(__file__).with_name("plain_script.py")


@dataclass(frozen=True, slots=True)
class Trace:
    """What one child wrote down when it began."""

    run_id: str
    attempt: int
    pid: int
    agent_pid: int
    grandchildren: tuple[int, ...]


@dataclass(slots=True)
class Training:
    """What the children of a test do.

    Attributes:
        folder: Where children leave their traces.
        steps: Steps of each run, from 0.
        step_seconds: How long one takes at least.
        mark: When the script calls mark_preempting: at its start, on SIGTERM, or never; "ignore": SIGTERM does nothing.
        saves: Whether it saves a checkpoint after each step.
        gate_step: The step before which children wait for `open_gate`; None for no gate.
        babble: Characters that it prints besides, before its first step.
        largest_file: Bytes that a file of the script can have, as if the disk were full then; None for any number.
        grandchildren: Processes that it starts and leaves alone, each in its "group" or in a "session" of its own.
    """

    folder: Path
    steps: int = 5
    step_seconds: float = 0.0
    mark: Literal["start", "sigterm", "never", "ignore"] = "never"
    saves: bool = True
    gate_step: int | None = None
    grandchildren: Sequence[Literal["group", "session"]] = field(default=())
    exit_code: int = 0
    babble: int = 0
    largest_file: int | None = None
    mark_timeout: float = 0.5
    """Seconds; a checkpoint after every step is saved so often that an outage would be felt in each of them."""

    def environment(self) -> dict[str, str]:
        """What the agents' environment must hold."""
        self.folder.mkdir(exist_ok=True)
        order = {
            "trace": str(self.folder),
            "steps": str(self.steps),
            "step_seconds": str(self.step_seconds),
            "mark": self.mark,
            "saves": "yes" if self.saves else "no",
            "gate": str(self._gate),
            "gate_step": str(-1 if self.gate_step is None else self.gate_step),
            "grandchildren": json.dumps(list(self.grandchildren)),
            "exit_code": str(self.exit_code),
            "babble": str(self.babble),
            "largest_file": str(-1 if self.largest_file is None else self.largest_file),
        }
        return {"TRAINING_ORDER": json.dumps(order), "RESWEEP_MARK_TIMEOUT": str(self.mark_timeout)}

    @property
    def _gate(self) -> Path:
        return self.folder / "gate-is-open"

    def open_gate(self) -> None:
        """Let the children that wait go on, and later ones pass."""
        self.folder.mkdir(exist_ok=True)
        self._gate.touch()

    def traces(self) -> list[Trace]:
        """All children so far, by run and attempt."""
        found = []
        for path in sorted(self.folder.glob("*-*")):
            run_id, _, number = path.name.rpartition("-")
            if path.name.startswith(".") or not number.isdigit():
                continue
            facts = json.loads(path.read_text())
            found.append(Trace(run_id, int(number), facts["pid"], facts["agent"], tuple(facts["grandchildren"])))
        return found

    def at_gate(self) -> list[Trace]:
        """The children that have reached the gate."""
        return [t for t in self.traces() if (self.folder / f"{t.run_id}-{t.attempt}.gate").exists()]

    def done(self) -> list[Trace]:
        """The children that have made all their steps; they may still be sending what they logged."""
        return [t for t in self.traces() if (self.folder / f"{t.run_id}-{t.attempt}.done").exists()]


def make_sweep(
    url: str,
    *,
    points: int = 1,
    lease: float = 3.0,
    heartbeat: float | None = None,
    preemption: dict[str, Any] | None = None,
    retry: dict[str, int] | None = None,
    grid: bool = True,
    plain: Path | None = None,
    checkpoint: dict[str, Any] | None = None,
) -> tuple[Store, str]:
    """Create a sweep over the training script with `points` runs; returns its store and its id.

    Args:
        url: Of the server.
        points: Runs that it has, all in all.
        lease: Seconds; must be long against the hiccups of a busy machine.
        heartbeat: Seconds; a sixth of the lease when None.
        grid: Whether the points are a grid's; random ones otherwise.
        plain: The folder of the script that knows nothing of resweep, which is then the program.
        checkpoint: Where checkpoints go, when it is not the agents' directory.
    """
    parameter: dict[str, Any] = {"values": list(range(points))} if grid else {"min": 0.0, "max": 1.0}
    settings: dict[str, Any] = {
        "program": str(PLAIN_PROGRAM if plain else PROGRAM),
        "method": "grid" if grid else "random",
        "parameters": {"point": parameter},
        "command": ["${env}", "${interpreter}", "${program}", *(["--folder", str(plain), "${args}"] if plain else [])],
        "metric": {"name": "score", "goal": "maximize"},
        # So lenient that nobody is stopped: what is kept for it is checked like the rest.
        "early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 1.0000001},
        "lease": {"duration": lease, "heartbeat": heartbeat or lease / 6},
        "preemption": {"max_attempts_without_progress": 0, **(preemption or {})},
        "retry": retry or {},
        "checkpoint": checkpoint or {},
    }
    if not grid:
        settings["run_cap"] = points
    return create_sweep(
        url, parse_sweep(settings), config_text=json.dumps(settings), sweep_id=f"s{os.urandom(4).hex()}"
    )


def expected_total(step: int) -> int:
    """What the script logs as `total` at a step, if no step was left out or done twice since the last checkpoint."""
    return step * (step + 1) // 2


def check_totals(store: Store, run_ids: Sequence[str]) -> None:
    """Every row of these runs was computed from the right checkpoint."""
    for run_id in run_ids:
        wrong = {
            row.step: row.values["total"]
            for row in store.history(run_id)
            if row.values["total"] != expected_total(row.step)
        }
        assert not wrong, f"run {run_id} went on from a wrong checkpoint: total by step {wrong}"
