"""The same training as train_digits.py, made to be killed: slow epochs, and a notice that is heard.

SIGTERM is the notice. The handler only sets a flag; the loop sees it after the batch it is in, says that the run is
preempting, saves what it has, and exits with a status that is not 0: so the run goes back on the sweep's run queue.
An agent forwards the notice that it gets itself; without one, `kill -TERM` the script.
"""

from __future__ import annotations

import pickle
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import resweep

DEFAULTS = {"lr": 0.001, "hidden": 64, "batch_size": 64, "epochs": 20}
PAUSE = 0.02  # seconds after each batch, in place of a larger network
EXIT_PREEMPTED = 75  # any status but 0 does it

notice = threading.Event()


def save(run: Any, progress: tuple[int, int, MLPClassifier]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "progress.pickle")
        saved.write_bytes(pickle.dumps(progress))
        run.save_checkpoint(saved, step=max(progress[0] - 1, 0))


def main() -> int:
    signal.signal(signal.SIGTERM, lambda number, frame: notice.set())
    images, digits = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(images / 16.0, digits, test_size=0.25, random_state=0)

    with resweep.init(config=DEFAULTS) as run:
        config = run.config
        model = MLPClassifier(hidden_layer_sizes=(config["hidden"],), learning_rate_init=config["lr"], random_state=0)
        first_epoch, first_batch = 0, 0
        if checkpoint := run.restore_checkpoint():
            first_epoch, first_batch, model = pickle.loads(checkpoint.read_bytes())
            print(f"attempt {run.attempt} goes on at epoch {first_epoch}, batch {first_batch}", flush=True)

        for epoch in range(first_epoch, config["epochs"]):
            order = np.random.default_rng(epoch).permutation(len(x_train))
            batches = np.array_split(order, len(order) // config["batch_size"])
            for number in range(first_batch, len(batches)):
                model.partial_fit(x_train[batches[number]], y_train[batches[number]], classes=range(10))
                # A flag is waited for, not time: the notice ends the pause at once.
                if notice.wait(PAUSE):
                    run.mark_preempting()
                    save(run, (epoch, number + 1, model))
                    print(f"preempted in epoch {epoch} after batch {number}", flush=True)
                    run.finish(exit_code=EXIT_PREEMPTED)
                    return EXIT_PREEMPTED
            first_batch = 0
            accuracy = float(model.score(x_test, y_test))
            run.log({"loss": model.loss_, "accuracy": accuracy}, step=epoch)
            save(run, (epoch + 1, 0, model))
            print(f"epoch {epoch}: loss {model.loss_:.4f}, accuracy {accuracy:.4f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
