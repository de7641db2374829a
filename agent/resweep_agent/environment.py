"""What a child is told: its environment, its parameter file, its folders."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from resweep_agent.devices import ONE_PLACE, Places
from resweep_agent.noticefile import NoticeFile
from resweep_scheduler.store.credentials import attempt_key
from resweep_scheduler.store.keys import DEFAULT_ENTITY, Scope
from resweep_scheduler.store.records import ClaimedRun

FOREIGN = (
    "WANDB_SERVICE",
    "WANDB_SWEEP_ID",
    "WANDB_RUN_ID",
    "WANDB_RESUME",
    "RESWEEP_CLAIM",
    "RESWEEP_RUN_ID",
    "RESWEEP_AGENT_RANK",
    "RESWEEP_CHECKPOINT_DIR",
    "RESWEEP_CHECKPOINT_URL",
)
"""Variables of another run or another agent that must not leak into a child."""

RANKS = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "LOCAL_RANK", "SLURM_STEP_ID")
"""Which process of several this is, and in which step. The agent's own are told to its children, whose they are not."""


WANDB_DEFAULTS = {"WANDB_ERROR_REPORTING": "false", "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "2"}
"""With our gateway: nothing is told to W&B, and a script that is killed loses two seconds of rows, not fifteen."""


@dataclass(frozen=True, slots=True)
class WandbGateway:
    """Where children that use `wandb` send what they log.

    Attributes:
        secret: What the keys of attempts are made with.
    """

    url: str
    secret: bytes


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all children of an agent.

    Attributes:
        environ: The agent's own environment.
        url: The address of the store, with its password.
        directory: Below it are the folders of the attempts.
        checkpoints: The folder or the URL for checkpoints, shared by all attempts of all runs of the sweep.
        keep: How many checkpoints of a run are kept.
        places: The places for runs side by side, and their GPUs.
        signal: The name of the signal that a child gets after a notice; "none" for none.
    """

    environ: Mapping[str, str]
    url: str
    scope: Scope
    sweep_id: str
    directory: Path
    checkpoints: Path | str
    keep: int = 2
    places: Places = ONE_PLACE
    signal: str = "SIGTERM"
    gateway: WandbGateway | None = None

    @cached_property
    def wandb_directory(self) -> str:
        """WANDB_DIR, by default the agent's working directory."""
        return os.path.abspath(self.environ.get("WANDB_DIR") or os.getcwd())

    def attempt_directory(self, run: ClaimedRun) -> Path:
        """Where the files of this attempt are."""
        return self.directory / self.sweep_id / run.token.run_id / f"attempt-{run.token.attempt}"

    def notice_file(self, run: ClaimedRun) -> NoticeFile:
        """What tells the processes of this attempt that their machine goes; no other attempt has the same."""
        return NoticeFile(self.attempt_directory(run) / f"notice-{run.token.nonce}")

    def parameter_file(self, run: ClaimedRun) -> str:
        """Where W&B's agent puts the run's parameters, too."""
        return f"{self._parameter_folder}/config-{run.token.run_id}.yaml"

    @cached_property
    def _parameter_folder(self) -> str:
        return os.path.join(self.wandb_directory, "wandb", f"sweep-{self.sweep_id}")

    @cached_property
    def _common(self) -> dict[str, str]:
        """What all children are told."""
        common = {name: value for name, value in self.environ.items() if name not in FOREIGN}
        common |= {
            "WANDB_RESUME": "allow",
            "WANDB_PROJECT": self.scope.project,
            "WANDB_ENTITY": self.scope.entity,
            "WANDB_DIR": self.wandb_directory,
            "RESWEEP_URL": self.url,
            "RESWEEP_SWEEP_ID": self.sweep_id,
            "RESWEEP_CHECKPOINT_KEEP": str(self.keep),
            "RESWEEP_NOTICE_SIGNAL": self.signal,
        }
        in_folder = isinstance(self.checkpoints, Path)
        common["RESWEEP_CHECKPOINT_DIR" if in_folder else "RESWEEP_CHECKPOINT_URL"] = str(self.checkpoints)
        if ranks := [f"{name}={self.environ[name]}" for name in RANKS if name in self.environ]:
            common["RESWEEP_AGENT_RANK"] = ",".join(ranks)
        if self.gateway is not None:
            common = {**WANDB_DEFAULTS, **common, "WANDB_BASE_URL": self.gateway.url, "WANDB_SWEEP_ID": self.sweep_id}
        elif self.scope.entity == DEFAULT_ENTITY:
            # Our default is no entity of W&B's: a script with the real wandb must keep its own default.
            del common["WANDB_ENTITY"]
        return common

    def child_environment(self, run: ClaimedRun, agent: str, slot: int) -> dict[str, str]:
        """The environment of the child that executes `run` in the slot `slot` (from 0) of the agent `agent`."""
        environment = {
            **self._common,
            "WANDB_RUN_ID": run.token.run_id,
            "WANDB_SWEEP_PARAM_PATH": self.parameter_file(run),
            "RESWEEP_AGENT_ID": agent,
            "RESWEEP_ATTEMPT": str(run.token.attempt),
            "RESWEEP_CLAIM": run.token.encode(),
            "RESWEEP_NOTICE_FILE": str(self.notice_file(run).path),
        }
        if self.gateway is not None:
            environment["WANDB_API_KEY"] = attempt_key(self.gateway.secret, self.scope, run.token)
        return environment | self.places.environment(slot)


def write_parameter_file(path: str, params: Mapping[str, object]) -> None:
    """Write the parameters as W&B's agent does: YAML with `key: {value: …}`.

    Raises:
        OSError: The file cannot be written.
    """
    lines = ["wandb_version: 1"]
    lines += [f"{_quoted(name)}: {{value: {_yaml(value)}}}" for name, value in params.items()]
    data = ("\n".join(lines) + "\n").encode()
    try:
        _write(path, data)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write(path, data)


def _write(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(data)


def _yaml(value: object) -> str:
    """One line of YAML 1.1, which for plain values is JSON but in floats: 1e-05 would be read as a text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(str(key))}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
        mantissa, exponent, power = repr(value).partition("e")
        return mantissa + (".0" if "." not in mantissa else "") + exponent + power
    return _quoted(value) if isinstance(value, str) else json.dumps(value)


def _quoted(text: str) -> str:
    """A double-quoted text: JSON's, but where YAML knows no pairs of surrogates and allows no DEL."""
    if text.isascii():
        return json.dumps(text).replace("\x7f", "\\x7f")
    return "".join(f"\\U{ord(mark):08x}" if ord(mark) > 0x7E else json.dumps(mark)[1:-1] for mark in text).join('""')
