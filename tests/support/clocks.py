"""Processes whose clock jumps at will, by libfaketime; the clocks of all others stay as they are."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


class FakeClock:
    """A wall clock that differs from the real one; monotonic clocks are real."""

    def __init__(self, library: Path, file: Path) -> None:
        self._library = library
        self._file = file
        self.jump(0)

    def environment(self) -> dict[str, str]:
        """What a process must be started with to have this clock; its children have it, too."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: float) -> None:
        """From now on the clock is `seconds` ahead of the real one, or behind it."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+g}s\n")
        fresh.replace(self._file)


def fake_clock(directory: Path) -> FakeClock:
    """A clock that is right as yet; without libfaketime the test is skipped, or fails under CI=true."""
    found = find_spec("libfaketime") if sys.platform == "linux" else None
    if found is None or found.origin is None:
        reason = "libfaketime is not installed (pip install libfaketime, Linux only)"
        if os.environ.get("CI") == "true" and sys.platform == "linux":
            pytest.fail(f"{reason}, and CI must have it")
        pytest.skip(reason)
    library = Path(found.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"
    assert library.exists(), f"libfaketime has no library at {library}; install a release of 3.0 or later"
    return FakeClock(library, directory / f"clock-{os.urandom(4).hex()}")
