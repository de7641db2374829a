"""Keras: the whole model with its optimizer, saved at the end of epochs.

from resweep.integrations.keras import ResweepCheckpoint

with resweep.init() as run:
    checkpoint = run.restore_checkpoint()
    model = keras.saving.load_model(checkpoint) if checkpoint else build_model()
    model.fit(…, initial_epoch=run.step, callbacks=[ResweepCheckpoint(run)])
"""

from __future__ import annotations

from typing import Any

import keras

from resweep.runs import Run
from resweep.states import state_folder

FILE = "model.keras"


class ResweepCheckpoint(keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the results of each epoch, and saves a checkpoint at the end of every n-th.

    Args:
        every_n_epochs: How often.
        log: Whether results go to the run, the epoch as their step.
        wait: Whether the training waits until a checkpoint is saved; else it is sent in the background.
    """

    def __init__(self, run: Run, *, every_n_epochs: int = 1, log: bool = True, wait: bool = False) -> None:
        super().__init__()
        self._run = run
        self._every = every_n_epochs
        self._log = log
        self._wait = wait

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Called by ``fit``."""
        if self._log and logs:
            self._run.log(logs, step=epoch)
        if (epoch + 1) % self._every:
            return
        with state_folder(self._run) as folder:
            path = folder / FILE
            self.model.save(path)
            self._run.save_checkpoint(path, step=epoch, metadata={"epoch": epoch}, wait=self._wait)
