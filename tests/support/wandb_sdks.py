"""The real `wandb` clients, each version in an environment of its own, installed once and kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

_ALL = ("0.31.0", "0.26.1", "0.22.3", "0.19.11")

VERSIONS = _ALL if os.environ.get("RESWEEP_TEST_ALL_SDKS") else (_ALL[0], _ALL[-1])
"""The newest first. All four take minutes: only with RESWEEP_TEST_ALL_SDKS=1, which .ci/run sets, it is all of them."""

NEWEST = VERSIONS[0]

FOLDER = Path(
    os.environ.get("RESWEEP_TEST_SDKS")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resweep-test-sdks"
)
"""Outside the tree, so that the next session finds them; RESWEEP_TEST_SDKS chooses another place."""

_LIMIT = 600
"""Seconds for one installation."""
_COMPLETE = ".complete"


@dataclass(frozen=True, slots=True)
class Sdk:
    """One version of the client."""

    version: str
    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def wandb(self) -> str:
        """Its command."""
        return str(self.folder / "bin" / "wandb")

    @property
    def programs(self) -> str:
        return str(self.folder / "bin")

    @property
    def number(self) -> tuple[int, ...]:
        """The version, for comparisons."""
        return tuple(int(part) for part in self.version.split("."))


def wandb_sdk(version: str) -> Sdk:
    """The client of a version, installed if it is not there; where it cannot be, the test is skipped, but under CI=true
    it fails.
    """
    folder = FOLDER / f"wandb-{version}"
    try:
        install(version)
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"wandb {version} cannot be installed into {folder}, and CI must have it: {error}")
        pytest.skip(f"wandb {version} cannot be installed into {folder}: {error}")
    return Sdk(version, folder)


def install(version: str) -> None:
    """Install a version, unless it is there.

    Raises:
        OSError: The folder cannot be written.
        subprocess.SubprocessError: pip failed, or took too long.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = FOLDER / f"wandb-{version}"
    with (FOLDER / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _COMPLETE).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=_LIMIT, capture_output=True)
        subprocess.run(
            [str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", f"wandb=={version}"],
            check=True,
            timeout=_LIMIT,
            capture_output=True,
        )
        (folder / _COMPLETE).touch()


if __name__ == "__main__":
    with ThreadPoolExecutor(len(VERSIONS)) as pool:
        list(pool.map(install, VERSIONS))
