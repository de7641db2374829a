"""PyTorch: the states of model, optimizer and scheduler in one file, with those of the random generators.

from resweep.integrations.torch import restore_state, save_state

with resweep.init() as run:
    restore_state(run, model=model, optimizer=optimizer, scheduler=scheduler)
    for epoch in range(run.step, epochs):
        …
        run.log({"loss": loss})
        save_state(run, model=model, optimizer=optimizer, scheduler=scheduler)
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from resweep.runs import Run
from resweep.saving import Saving
from resweep.states import state_folder

FILE = "checkpoint.pt"
RANDOM = "resweep_random"


def save_state(
    run: Run,
    *,
    step: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    wait: bool = True,
    **objects: Any,
) -> Path | Saving:
    """``run.save_checkpoint`` of one file with the objects.

    Args:
        step, metadata, wait: As of ``run.save_checkpoint``.
        objects: By name: whatever has ``state_dict()``, and plain values such as ``best=0.9``.

    Raises:
        OSError: The file cannot be written.
    """
    states = {name: one.state_dict() if hasattr(one, "state_dict") else one for name, one in objects.items()}
    with state_folder(run) as folder:
        path = folder / FILE
        torch.save({**states, RANDOM: random_states()}, path)
        return run.save_checkpoint(path, step, metadata, wait)


def restore_state(
    run: Run, *, map_location: Any = "cpu", weights_only: bool = True, **objects: Any
) -> dict[str, Any] | None:
    """``run.restore_checkpoint`` of what `save_state` saved, loaded into the objects that have ``load_state_dict``.

    The next ``log`` then continues after the checkpoint. The random generators go on where they stood, but on ranks
    other than 0, which are to draw other numbers than rank 0.

    Args:
        map_location, weights_only: As of ``torch.load``. Without ``weights_only``, loading runs what the file says.

    Returns:
        What was saved under names that are not among `objects`; None when there is no checkpoint.

    Raises:
        CommError: The object store cannot be reached.
    """
    path = run.restore_checkpoint()
    if path is None:
        return None
    states = torch.load(path, map_location=map_location, weights_only=weights_only)
    generators = states.pop(RANDOM)
    for name, one in objects.items():
        one.load_state_dict(states.pop(name))
    if os.environ.get("RANK", "0") in ("", "0"):
        set_random_states(generators)
    return dict(states)


def random_states() -> dict[str, Any]:
    """The states of the generators of Python, numpy (where it is loaded), torch and CUDA, as plain values."""
    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        name, keys, *rest = sys.modules["numpy"].random.get_state()
        states["numpy"] = (name, keys.tolist(), *rest)
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """Put the generators where `random_states` found them; those of CUDA where there are as many devices as then."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    torch.set_rng_state(states["torch"].cpu())
    if "numpy" in states:
        import numpy as np

        name, keys, *rest = states["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    devices = [state.cpu() for state in states.get("cuda", [])]
    if devices and torch.cuda.is_available() and torch.cuda.device_count() == len(devices):
        torch.cuda.set_rng_state_all(devices)
