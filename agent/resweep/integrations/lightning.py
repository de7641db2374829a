"""Lightning: its own checkpoints, sent on to where the run's next attempt finds them.

from resweep.integrations.lightning import ResweepCheckpoint

with resweep.init() as run:
    trainer = Trainer(callbacks=[ResweepCheckpoint(run)])
    trainer.fit(module, ckpt_path=run.restore_checkpoint())
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch import Callback
except ImportError:
    from pytorch_lightning import Callback

from resweep.runs import Run


class ResweepCheckpoint(Callback):  # type: ignore[misc]
    """Saves a checkpoint at the end of every n-th epoch of the training.

    Args:
        every_n_epochs: How often.
        wait: Whether the training waits until it is saved; else it is sent in the background.
    """

    def __init__(self, run: Run, *, every_n_epochs: int = 1, wait: bool = False) -> None:
        super().__init__()
        self._run = run
        self._every = every_n_epochs
        self._wait = wait

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Called by the trainer, on every rank."""
        epoch = trainer.current_epoch
        if (epoch + 1) % self._every:
            return
        path = Path(self._run.dir) / "resweep" / "lightning" / self._run.id / "checkpoint.ckpt"
        trainer.save_checkpoint(path)  # every rank takes part
        if trainer.is_global_zero:
            self._run.save_checkpoint(path, metadata={"epoch": epoch}, wait=self._wait)
            shutil.rmtree(path.parent, ignore_errors=True)
