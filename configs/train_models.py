"""Cross-validate one of three kinds of models on scikit-learn's breast cancer data.

The sweep says which model, and gives the parameters of that model only. Works outside a sweep as well:
`python configs/train_models.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import resweep

OUTSIDE_A_SWEEP = {"model": "svm", "C": 1.0, "gamma": 0.03}


def build(config: Mapping[str, Any]) -> Any:
    match config["model"]:
        case "svm":
            return SVC(C=config["C"], gamma=config["gamma"])
        case "forest":
            return RandomForestClassifier(config["trees"], max_depth=config["depth"], random_state=0)
        case "mlp":
            # Not every solver has a learning rate.
            rate = {"learning_rate_init": config["lr"]} if "lr" in config else {}
            return MLPClassifier(config["hidden"], solver=config["solver"], max_iter=60, random_state=0, **rate)
    raise ValueError(f"no such model: {config['model']}")


def main() -> None:
    warnings.simplefilter("ignore", ConvergenceWarning)  # 60 iterations are enough for this
    x, y = load_breast_cancer(return_X_y=True)
    with resweep.init() as run:
        # Defaults of one model would stay in the config of the others, so they are for runs without parameters only.
        config = dict(run.config) or OUTSIDE_A_SWEEP
        print(config)
        accuracies = []
        folds = StratifiedKFold(3, shuffle=True, random_state=0)
        for number, (train, test) in enumerate(folds.split(x, y)):
            model = build(config)
            if config.get("scale", "standard") == "standard":
                model = make_pipeline(StandardScaler(), model)
            accuracies.append(float(model.fit(x[train], y[train]).score(x[test], y[test])))
            run.log({"accuracy": fmean(accuracies)}, step=number)
        print(f"accuracy {fmean(accuracies):.4f}")


if __name__ == "__main__":
    main()
