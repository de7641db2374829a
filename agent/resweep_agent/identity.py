"""Who an agent is: an id per slot that stays the same when the agent is started again.

The same id again means that the old agent is gone: what it held is given back at once. So two agents that live side by
side must never get the same id, and one that was killed and is started again should get its old one.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resweep_agent.exitcodes import AgentError, ExitCode

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")
"""What an agent may be called."""
MOST_AGENTS = 10_000
"""Agents of one user on one machine."""
NO_STEPS = 0xFFFFFF00
"""Numbers of steps from here on are SLURM's own: the batch script, the external step."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The name of a `sweep-agent` process."""

    name: str
    session: str  # random per process: tells this process from the one that had the name before
    host: str
    pid: int
    lock: int | None = None  # the descriptor whose lock says that the name is in use on this machine

    def of_slot(self, number: int) -> str:
        """The agent id of the slot `number`, from 0."""
        return self.name if number == 0 else f"{self.name}.{number}"

    def release(self) -> None:
        """Give the name back to the next agent on this machine."""
        if self.lock is not None:
            os.close(self.lock)


def identify(name: str | None, environ: Mapping[str, str], directory: Path | None = None) -> Identity:
    """Return who this process is: `name`, else by the SLURM job, else by the host.

    A name that was given is taken as it is. The others are numbered by lock files in `directory` (default: a folder of
    the user below the system's temporary folder), so that several agents in one job or on one host differ.

    Raises:
        AgentError: The name has characters that a key does not allow, or the folder is not ours alone.
    """
    host = socket.gethostname()
    session = secrets.token_hex(4)
    if name is not None:
        if not NAME.fullmatch(name):
            raise AgentError(
                "an agent's name is up to 100 letters, digits and _.@- and starts with a letter or digit,"
                f" got {name!r}; choose another --name",
                ExitCode.USAGE,
            )
        return Identity(name, session, host, os.getpid())
    base = slurm_name(environ)
    folder = directory or agents_folder()
    _make_private(folder)
    # Machines may share a host name (containers on the host's network, users of one machine): a random part, kept
    # in the lock file, tells them apart. A SLURM job must be the same agent wherever it is restarted, so it has none.
    stem = base or re.sub(r"[^A-Za-z0-9_.-]", "-", host)[:60] or "host"
    for number in range(MOST_AGENTS):
        lock = _lock(folder / f"{stem}-{number}")
        if lock is None:
            continue
        if base is not None:
            return Identity(base if number == 0 else f"{base}-{number}", session, host, os.getpid(), lock)
        return Identity(f"{stem}-{_kept_suffix(lock)}-{number}", session, host, os.getpid(), lock)
    raise AgentError(f"{MOST_AGENTS} agents hold a lock in {folder}; give this one a --name", ExitCode.USAGE)


def agents_folder() -> Path:
    """Where the agents of one user on one machine see each other."""
    return Path(tempfile.gettempdir()) / f"resweep-agents-{os.getuid()}"


def slurm_name(environ: Mapping[str, str]) -> str | None:
    """The name that SLURM's environment gives, None outside SLURM. A requeued job has its old name."""
    job = environ.get("SLURM_JOB_ID")
    if not job:
        return None
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    name = f"slurm-{array}_{task}" if array and task else f"slurm-{job}"
    # Steps of one job may be on different nodes, where no lock tells them apart; the batch script has no such number.
    step = environ.get("SLURM_STEP_ID", "")
    if step.isdecimal() and 0 < int(step) < NO_STEPS:
        name += f".s{step}"
    if environ.get("SLURM_NTASKS", "1") != "1" and environ.get("SLURM_PROCID"):
        name += f".p{environ['SLURM_PROCID']}"
    return name if NAME.fullmatch(name) else None


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise AgentError(
            f"{folder} must be a folder that only you can enter; remove it, or give the agent a --name", ExitCode.USAGE
        )


def _lock(path: Path) -> int | None:
    """Lock the file, or return None when another process has it."""
    # The descriptor is not inherited by children (Python's default): the lock ends with this process.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _kept_suffix(lock: int) -> str:
    kept = os.pread(lock, 16, 0).decode(errors="replace")
    if re.fullmatch(r"[0-9a-f]{4}", kept):
        return kept
    suffix = secrets.token_hex(2)
    os.ftruncate(lock, 0)
    os.pwrite(lock, suffix.encode(), 0)
    return suffix
