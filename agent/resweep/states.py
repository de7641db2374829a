"""The folder in which a framework writes its state, before it is saved as a checkpoint."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resweep.runs import Run


@contextmanager
def state_folder(run: Run) -> Iterator[Path]:
    """An empty folder ``<dir>/resweep/state-<run id>-<attempt>-…`` that is removed at the end of the block.

    So are those that earlier attempts of the run left here when they were killed in such a block.
    """
    base = Path(run.dir) / "resweep"
    base.mkdir(parents=True, exist_ok=True)
    of_run = re.compile(rf"state-{re.escape(run.id)}-(?P<attempt>\d+)-[a-z0-9_]+")
    for folder in base.glob("state-*"):
        match = of_run.fullmatch(folder.name)
        if match and int(match["attempt"]) < run.attempt:
            shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"state-{run.id}-{run.attempt}-", dir=base) as folder_name:
        yield Path(folder_name)
