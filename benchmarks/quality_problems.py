"""What search_quality.py optimises: known functions, one with categories and conditions, and two real models.

A problem's parameters are written as in a sweep's YAML. All values are to be minimised and all functions are
deterministic, so that methods differ by their proposals only.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

Params = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """A function and its space. `optimum`: its least value; None where nobody knows it."""

    name: str
    parameters: dict[str, Any]
    evaluate: Callable[[Params], float]
    optimum: float | None


def branin(params: Params) -> float:
    x, y = params["x"], params["y"]
    return float(
        (y - 5.1 * x * x / (4 * math.pi**2) + 5 * x / math.pi - 6) ** 2
        + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x)
        + 10
    )


_HARTMANN_HEIGHTS = (1.0, 1.2, 3.0, 3.2)
_HARTMANN_SCALES = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
_HARTMANN_CENTRES = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def hartmann6(params: Params) -> float:
    point = [params[f"x{number}"] for number in range(6)]
    total = 0.0
    for height, scales, centres in zip(_HARTMANN_HEIGHTS, _HARTMANN_SCALES, _HARTMANN_CENTRES, strict=True):
        inner = sum(scale * (x - centre) ** 2 for scale, x, centre in zip(scales, point, centres, strict=True))
        total -= height * math.exp(-inner)
    return total


def rosenbrock5(params: Params) -> float:
    point = [params[f"x{number}"] for number in range(5)]
    return float(sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(point)))


def mixed(params: Params) -> float:
    """A training run as a formula: an optimizer with parameters of its own, a rate, a width, an activation."""
    rate = math.log10(params["lr"])
    layers, activation = params["layers"], {"relu": 0.0, "gelu": 0.05, "tanh": 0.25, "sigmoid": 0.5}[params["act"]]
    loss = activation + 0.03 * (layers - 4) ** 2 + 1.5 * (params["dropout"] - 0.25) ** 2
    match params["optimizer"]:
        case "sgd":
            best = -1.0 - 2.0 * (params["momentum"] - 0.5)
            return float(loss + 0.15 + 0.4 * (rate - best) ** 2 + 1.2 * (params["momentum"] - 0.9) ** 2)
        case "adam":
            beta = math.log10(1 - params["beta2"])
            return float(loss + 0.35 * (rate + 3.2) ** 2 + 0.08 * (beta + 2.5) ** 2)
    return float(loss + 0.3 + 0.2 * (rate + 2) ** 2)


@lru_cache(maxsize=1)
def _digits() -> tuple[Any, ...]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    return tuple(
        train_test_split(data.data, data.target, train_size=200, test_size=1500, random_state=1, stratify=data.target)
    )


def svm(params: Params) -> float:
    """Error rate of a support vector machine on 1,500 handwritten digits after 200."""
    from sklearn.svm import SVC

    train, test, train_labels, test_labels = _digits()
    model = SVC(
        C=params["C"],
        kernel=params["kernel"],
        gamma=params["gamma"],
        degree=params["degree"],
        coef0=params["coef0"],
        shrinking=params["shrinking"],
        max_iter=3000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(train, train_labels)
    return 1 - float(model.score(test, test_labels))


@lru_cache(maxsize=1)
def _cancer() -> tuple[Any, ...]:
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    data = load_breast_cancer()
    parts = train_test_split(data.data, data.target, train_size=150, random_state=1, stratify=data.target)
    scaler = StandardScaler().fit(parts[0])
    return scaler.transform(parts[0]), scaler.transform(parts[1]), parts[2], parts[3]


def mlp(params: Params) -> float:
    """Log loss of a small network on breast cancer, trained for a few epochs with a fixed seed."""
    from sklearn.metrics import log_loss
    from sklearn.neural_network import MLPClassifier

    train, test, train_labels, test_labels = _cancer()
    model = MLPClassifier(
        hidden_layer_sizes=(params["width"],) * params["layers"],
        activation=params["activation"],
        solver=params["solver"],
        alpha=params["alpha"],
        learning_rate_init=params["lr"],
        batch_size=params["batch_size"],
        momentum=params["momentum"],
        max_iter=8,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(train, train_labels)
            loss = float(log_loss(test_labels, model.predict_proba(test)))
        except ValueError:  # weights grew beyond all bounds
            loss = math.inf
    return min(loss, 10.0) if math.isfinite(loss) else 10.0


def _numbers(count: int, low: float, high: float) -> dict[str, Any]:
    return {f"x{number}": {"min": low, "max": high} for number in range(count)}


def _log(low: float, high: float) -> dict[str, Any]:
    return {"distribution": "log_uniform_values", "min": low, "max": high}


PROBLEMS: dict[str, Problem] = {
    one.name: one
    for one in (
        Problem(
            "branin", {"x": {"min": -5.0, "max": 10.0}, "y": {"min": 0.0, "max": 15.0}}, branin, 0.39788735772973816
        ),
        Problem("hartmann6", _numbers(6, 0.0, 1.0), hartmann6, -3.3223680114155147),
        Problem("rosenbrock5", _numbers(5, -2.0, 2.0), rosenbrock5, 0.0),
        Problem(
            "mixed",
            {
                "optimizer": {
                    "choices": {
                        "sgd": {"parameters": {"momentum": {"min": 0.0, "max": 0.99}}},
                        "adam": {"parameters": {"beta2": {"min": 0.9, "max": 0.9999}}},
                        "lbfgs": {},
                    }
                },
                "lr": _log(1e-5, 1.0),
                "layers": {"min": 1, "max": 8},
                "dropout": {"min": 0.0, "max": 0.6},
                "act": {"values": ["relu", "gelu", "tanh", "sigmoid"]},
            },
            mixed,
            0.0,
        ),
        Problem(
            "svm",
            {
                "C": _log(1e-3, 1e3),
                "gamma": _log(1e-6, 1.0),
                "kernel": {"values": ["rbf", "poly", "sigmoid", "linear"]},
                "degree": {"min": 2, "max": 5},
                "coef0": {"min": 0.0, "max": 1.0},
                "shrinking": {"values": [True, False]},
            },
            svm,
            None,
        ),
        Problem(
            "mlp",
            {
                "lr": _log(1e-5, 1.0),
                "alpha": _log(1e-7, 1.0),
                "width": {"min": 2, "max": 64},
                "layers": {"min": 1, "max": 3},
                "batch_size": {"values": [8, 16, 32, 64]},
                "activation": {"values": ["relu", "tanh", "logistic"]},
                "solver": {"values": ["adam", "sgd"]},
                "momentum": {"min": 0.0, "max": 0.99},
            },
            mlp,
            None,
        ),
    )
}


def without_conditions(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The same space for engines that know no conditions: every parameter always exists."""
    flat: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if "choices" in parameter:
            flat[name] = {"values": list(parameter["choices"])}
            for choice in parameter["choices"].values():
                flat.update(without_conditions(cast(dict[str, Any], choice.get("parameters", {}))))
        else:
            flat[name] = parameter
    return flat
