"""Which processes live, and which were left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

# Helpers that Python's own libraries start once and keep for the life of the session.
LASTING = ("multiprocessing.resource_tracker", "multiprocessing.forkserver", "loky.backend.resource_tracker")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    state: str

    @property
    def command(self) -> str:
        """Its command line; empty when it has ended."""
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return ""


def alive(pid: int) -> bool:
    """Whether the process lives; a zombie, which nobody has waited for yet, does not."""
    if sys.platform != "linux":
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    found = _read(pid)
    return found is not None and found.state not in "ZX"


def adopt_orphans() -> None:
    """Make this process the parent of every orphaned descendant, so that `descendants` finds daemons, too (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> dict[int, Process]:
    """All processes below this one, by pid, zombies included; nothing where there is no /proc."""
    if sys.platform != "linux" or not _has_children():
        return {}
    everything = [process for entry in Path("/proc").glob("[0-9]*") if (process := _read(int(entry.name)))]
    found: dict[int, Process] = {}
    parents = {os.getpid()}
    while parents:
        level = [process for process in everything if process.parent in parents and process.pid not in found]
        found |= {process.pid: process for process in level}
        parents = {process.pid for process in level}
    return found


def living(processes: Iterable[Process]) -> list[Process]:
    """Those that can be left behind: neither ended nor of Python's own lasting helpers."""
    return [
        process for process in processes if process.state not in "ZX" and not any(n in process.command for n in LASTING)
    ]


def reap(processes: Iterable[Process]) -> None:
    """Take zombies out of the process table."""
    for process in processes:
        if process.state == "Z":
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:  # its own parent lives, or has waited meanwhile
                continue


def kill(processes: Iterable[Process]) -> None:
    for process in processes:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _read(pid: int) -> Process | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name stands in parentheses, and may hold some itself (proc(5)).
    state, parent = stat.rpartition(")")[2].split()[:2]
    return Process(pid, int(parent), state)
