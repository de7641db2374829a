"""What the agent was asked to do, and what follows from it together with the sweep's config."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.flapping import FlappingLimits
from resweep_scheduler.config import SweepConfig

DEFAULT_DIRECTORY = Path("resweep-runs")
SHORTEST_LEASE = 1.0
"""The shortest lease, in seconds; a shorter one would be lost to any hiccup of the machine."""


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """The options of `sweep-agent`, as given. None: the sweep's config decides."""

    sweep: str  # [entity/][project/]SWEEP
    url: str | None = None
    entity: str | None = None
    project: str | None = None
    name: str | None = None
    count: int | None = None  # runs to take
    slots: int | None = None  # runs side by side; None: as many as gpus_per_run allows, or 1
    gpus_per_run: int | None = None  # None: the slots share them
    preemptible: bool | None = None
    notice: str | None = None  # "auto", "none" or names of sources; None: RESWEEP_NOTICE
    grace: float | None = None  # seconds
    lease: float | None = None  # seconds
    heartbeat: float | None = None  # seconds
    max_consecutive_failed_runs: int = 0  # 0: no limit
    max_wait: float | None = None  # seconds without any work; None: until the sweep is finished
    slurm_requeue: bool = False  # requeue the own SLURM job when SLURM will not
    directory: Path = field(default=DEFAULT_DIRECTORY)
    sources: tuple[Path, ...] = ()  # Python files whose functions may direct the search
    wandb: bool = False  # children find a gateway for W&B's client
    gateway: str | None = None  # the address of one that runs already


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that one agent works by."""

    lease_ms: int
    heartbeat: float  # seconds
    grace: float  # seconds between the signal and SIGKILL
    signal: signal.Signals | None  # what tells a child that its machine goes; None: its notice file alone
    marks: bool  # a notice puts the runs on the run queue
    preemptible: bool | None  # a run whose agent vanishes goes to the run queue, too; None: if a source says spot
    flapping: FlappingLimits

    @property
    def store_timeout(self) -> float:
        """Seconds to wait for an answer of Redis: three tries fit into a lease."""
        return min(5.0, self.lease_ms / 3000)


def make_policy(options: AgentOptions, config: SweepConfig, environ: Mapping[str, str]) -> Policy:
    """Merge options, config and environment.

    Raises:
        AgentError: Lease and heartbeat do not fit together, or a variable has a value that it cannot have.
    """
    lease, heartbeat = _lease_and_heartbeat(options, config)
    try:
        flapping = FlappingLimits.from_environment(environ, consecutive=options.max_consecutive_failed_runs)
    except ValueError as error:
        raise AgentError(str(error), ExitCode.USAGE) from None
    wanted = options.preemptible if options.preemptible is not None else config.preemption.auto
    return Policy(
        lease_ms=round(lease * 1000),
        heartbeat=heartbeat,
        grace=config.preemption.grace if options.grace is None else options.grace,
        signal=signal.Signals.__members__.get(config.preemption.signal),
        marks=wanted is not False,
        preemptible=True if wanted is None and "SLURM_JOB_ID" in environ else wanted,
        flapping=flapping,
    )


def _lease_and_heartbeat(options: AgentOptions, config: SweepConfig) -> tuple[float, float]:
    lease = config.lease.duration if options.lease is None else options.lease
    if options.heartbeat is not None:
        heartbeat = options.heartbeat
    elif options.lease is not None:
        heartbeat = min(config.lease.heartbeat, lease / 3)
    else:
        heartbeat = config.lease.heartbeat
    if lease < SHORTEST_LEASE:
        raise AgentError(f"a lease lasts 1 second or more, got {lease:g}; give a longer --lease", ExitCode.USAGE)
    if not 0 < heartbeat <= lease / 3:
        raise AgentError(
            f"three heartbeats must fit into a lease, got --heartbeat {heartbeat:g} with a lease of {lease:g} s;"
            f" give --heartbeat {lease / 3:g} or less, or a longer --lease",
            ExitCode.USAGE,
        )
    return lease, heartbeat
