"""Hugging Face Trainer: its own checkpoints, sent on to where the run's next attempt finds them.

from resweep.integrations.huggingface import ResweepCallback

with resweep.init() as run:
    trainer = Trainer(…, callbacks=[ResweepCallback(run)])
    checkpoint = run.restore_checkpoint()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from resweep.runs import Run


class ResweepCallback(TrainerCallback):  # type: ignore[misc]
    """Saves what the Trainer saves, as often as it does (``save_strategy``), and logs what it logs.

    Args:
        log: Whether the Trainer's logs go to the run, under its global step.
        wait: Whether the training waits until a checkpoint is saved; else it is sent in the background.
    """

    def __init__(self, run: Run, *, log: bool = True, wait: bool = False) -> None:
        self._run = run
        self._log = log
        self._wait = wait

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Called by the Trainer."""
        if self._log and logs and state.is_world_process_zero:
            self._run.log(logs, step=state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by the Trainer, when its checkpoint is on the disk."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            self._run.save_checkpoint(folder, state.global_step, {"epoch": state.epoch}, self._wait)
