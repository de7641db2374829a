"""The GPUs of this machine, and which of them each run gets. No library of any vendor is needed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resweep_agent.exitcodes import AgentError, ExitCode

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""The first that is set says what may be used here, and is what children get. SLURM sets them for its jobs."""

NONE = ("-1", "NoDevFiles", "")
"""What a list holds where no GPU may be used; CUDA reads no further than that."""


@dataclass(frozen=True, slots=True)
class Devices:
    """The GPUs that may be used here.

    Attributes:
        variable: Chooses among them in a child's environment.
        names: Indices, UUIDs or names of MIG slices, as the variable takes them.
        origin: Where that is known from, for people.
    """

    variable: str
    names: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class Places:
    """The places for runs side by side.

    Attributes:
        number: How many.
        variable: What chooses the GPUs of a child.
        shares: Its value for each place; empty: the variable is left as it is.
    """

    number: int = 1
    variable: str = VARIABLES[0]
    shares: tuple[str, ...] = ()

    def environment(self, place: int) -> dict[str, str]:
        """What the child in this place (from 0) is told."""
        return {self.variable: self.shares[place]} if self.shares else {}


ONE_PLACE = Places()


def find_devices(environ: Mapping[str, str], root: Path = Path("/")) -> Devices:
    """Look at the environment, then at what the driver shows below `root`."""
    for variable in VARIABLES:
        if variable in environ:
            value = environ[variable]
            return Devices(variable, _names(value), f"{variable}={value}")
    count = _count_nvidia(root)
    return Devices(VARIABLES[0], tuple(str(index) for index in range(count)), "/dev/nvidia*")


def make_places(
    slots: int | None, gpus_per_run: int | None, environ: Mapping[str, str], root: Path = Path("/")
) -> Places:
    """Divide the GPUs.

    Args:
        slots: Runs side by side; None: as many as `gpus_per_run` allows, or 1.
        gpus_per_run: Every run gets that many for itself. None: the slots share what there is evenly, and in turn where
            there are more slots than GPUs.

    Raises:
        AgentError: There are too few.
    """
    if gpus_per_run is None:
        return _even_shares(slots or 1, environ, root)
    devices = find_devices(environ, root)
    most = len(devices.names) // gpus_per_run
    number = slots or max(1, most)
    if number > most:
        raise _too_few(devices, number, gpus_per_run)
    names = devices.names
    shares = [names[place * gpus_per_run : (place + 1) * gpus_per_run] for place in range(number)]
    return Places(number, devices.variable, tuple(",".join(share) for share in shares))


def _even_shares(slots: int, environ: Mapping[str, str], root: Path) -> Places:
    if slots == 1:
        return ONE_PLACE
    devices = find_devices(environ, root)
    names, count = devices.names, len(devices.names)
    if not names:
        return Places(slots)
    if count < slots:
        return Places(slots, devices.variable, tuple(names[place % count] for place in range(slots)))
    cuts = [count * place // slots for place in range(slots + 1)]
    shares = [",".join(names[cuts[place] : cuts[place + 1]]) for place in range(slots)]
    return Places(slots, devices.variable, tuple(shares))


def _names(value: str) -> tuple[str, ...]:
    names = []
    for name in value.split(","):
        if name.strip() in NONE:
            break
        names.append(name.strip())
    return tuple(names)


def _count_nvidia(root: Path) -> int:
    """A container may show all cards of its host in one of the two places, and its own in the other."""
    cards = _entries(root / "proc/driver/nvidia/gpus", r".+")
    nodes = _entries(root / "dev", r"nvidia\d+")
    return min(cards or nodes, nodes or cards)


def _entries(folder: Path, pattern: str) -> int:
    try:
        return sum(bool(re.fullmatch(pattern, name)) for name in os.listdir(folder))
    except OSError:
        return 0


def _too_few(devices: Devices, number: int, gpus_per_run: int) -> AgentError:
    found = len(devices.names)
    if found == 0:
        cure = f"set {devices.variable} to those that may be used, or leave --gpus-per-run out"
    elif found < gpus_per_run:
        cure = f"give --gpus-per-run {found} or less"
    else:
        cure = f"give --slots {found // gpus_per_run} or less, or leave it out"
    return AgentError(
        f"--slots {number} with --gpus-per-run {gpus_per_run} takes {number * gpus_per_run} GPUs, and {found} may be"
        f" used here ({devices.origin}); {cure}",
        ExitCode.USAGE,
    )
