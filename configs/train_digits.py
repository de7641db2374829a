"""Train a small network on scikit-learn's handwritten digits, one checkpoint after every epoch.

A run that was interrupted goes on at its last checkpoint, on whichever machine. Works outside a sweep as well:
`python configs/train_digits.py`.
"""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import resweep

DEFAULTS = {"lr": 0.001, "hidden": 64, "batch_size": 32, "alpha": 1e-4, "epochs": 8}


def main() -> None:
    images, digits = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(images / 16.0, digits, test_size=0.25, random_state=0)

    with resweep.init(config=DEFAULTS) as run:  # the parameters of the sweep win over the defaults
        config = run.config
        model = MLPClassifier(
            hidden_layer_sizes=(config["hidden"],),
            learning_rate_init=config["lr"],
            batch_size=config["batch_size"],
            alpha=config["alpha"],
            random_state=0,
        )
        first_epoch = 0
        if checkpoint := run.restore_checkpoint():
            first_epoch, model = pickle.loads(checkpoint.read_bytes())
            print(f"resumed at epoch {first_epoch} in attempt {run.attempt}")

        for epoch in range(first_epoch, config["epochs"]):
            model.partial_fit(x_train, y_train, classes=range(10))
            accuracy = float(model.score(x_test, y_test))
            run.log({"loss": model.loss_, "accuracy": accuracy}, step=epoch)
            print(f"epoch {epoch}: loss {model.loss_:.4f}, accuracy {accuracy:.4f}")
            with tempfile.TemporaryDirectory() as folder:
                saved = Path(folder, "model.pickle")
                saved.write_bytes(pickle.dumps((epoch + 1, model)))
                run.save_checkpoint(saved, step=epoch)


if __name__ == "__main__":
    main()
