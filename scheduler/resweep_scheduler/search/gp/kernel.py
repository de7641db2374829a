"""The Matern kernel of smoothness 5/2 over weighted squared distances, and how well it explains some values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from resweep_scheduler.search.gp.axes import Axes, Floats
from resweep_scheduler.search.gp.minimise import minimise
from resweep_scheduler.search.gp.values import training_places

_SQRT5: Final = float(np.sqrt(5.0))
# The variance of the constant that all values share: they are standardised, so it is about 0.
MEAN_VARIANCE: Final = 1.0
JITTER: Final = 1e-8
_SKETCH: Final = 64
_POLISH: Final = 128


@dataclass(frozen=True, slots=True)
class Hyper:
    """What the kernel learns: a weight for each axis (1 / length scale²), the variance, the noise."""

    weights: Floats
    variance: float
    noise: float

    @classmethod
    def of(cls, logs: Floats) -> Hyper:
        values = np.exp(logs)
        return cls(values[:-2], float(values[-2]), float(values[-1]))


@dataclass(frozen=True, slots=True)
class Priors:
    """Normal distributions of the logarithms, and their bounds."""

    mean: Floats
    deviation: Floats
    low: Floats
    high: Floats


def priors_for(axes: int) -> Priors:
    """Weak priors: length scales grow with the root of the number of axes, as distances do."""
    length = np.log(0.5) + 0.5 * np.log(max(axes, 1) / 2)
    mean = np.array([*([-2 * length] * axes), 0.0, np.log(1e-4)])
    deviation = np.array([*([2.0] * axes), 1.0, 3.0])
    low = np.array([*([np.log(1e-4)] * axes), np.log(1e-2), np.log(1e-7)])
    high = np.array([*([np.log(1e4)] * axes), np.log(1e2), np.log(1.0)])
    return Priors(mean, deviation, low, high)


def matern(squares: Floats) -> tuple[Floats, Floats]:
    """The kernel and its derivative by the squared distance."""
    scaled = _SQRT5 * np.sqrt(squares)
    decay = np.exp(-scaled)
    rise = (1 + scaled) * decay
    return rise + scaled * scaled * decay / 3, rise * (-5 / 6)


def squared_distances(axes: Axes, embedded: Floats) -> Floats:
    """The unweighted squared distances of all pairs, one matrix for each axis."""
    result = np.zeros((axes.count, len(embedded), len(embedded)))
    for column, owner in enumerate(axes.owners):
        difference = embedded[:, column, None] - embedded[None, :, column]
        result[owner] += difference * difference
    return result


class Evidence:
    """Minus the logarithm of the posterior density of hyperparameters, with its gradient, for several at once."""

    def __init__(self, distances: Floats, values: Floats, priors: Priors) -> None:
        self._count = len(values)
        self._flat = distances.reshape(len(distances), -1)
        self._values = values
        self._priors = priors
        self._eye = np.eye(self._count)

    def __call__(self, logs: Floats) -> tuple[Floats, Floats]:
        try:
            return self._evaluate(logs)
        except np.linalg.LinAlgError:
            if len(logs) == 1:
                return np.array([np.inf]), np.zeros_like(logs)
            parts = [self(row[None, :]) for row in logs]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _evaluate(self, logs: Floats) -> tuple[Floats, Floats]:
        starts, n = len(logs), self._count
        natural = np.exp(logs)
        weights, variance, noise = natural[:, :-2], natural[:, -2], natural[:, -1]
        base, slope = matern((weights @ self._flat).reshape(starts, n, n))
        covariance = base * variance[:, None, None]
        total = covariance + MEAN_VARIANCE + (noise[:, None, None] + JITTER) * self._eye
        lower = np.linalg.cholesky(total)
        inverse = np.linalg.inv(total)
        alpha = inverse @ self._values
        fit = 0.5 * (alpha @ self._values) + np.log(np.einsum("sii->si", lower)).sum(axis=1)
        pull = (inverse - alpha[:, :, None] * alpha[:, None, :]) * 0.5
        gradient = np.empty_like(logs)
        gradient[:, :-2] = weights * variance[:, None] * ((pull * slope).reshape(starts, -1) @ self._flat.T)
        gradient[:, -2] = np.einsum("sij,sij->s", pull, covariance)
        gradient[:, -1] = noise * np.einsum("sii->s", pull)
        away = (logs - self._priors.mean) / self._priors.deviation
        return fit + 0.5 * (away * away).sum(axis=1), gradient + away / self._priors.deviation


def fit(axes: Axes, embedded: Floats, values: Floats) -> Hyper:
    """The hyperparameters that explain the values best.

    Several fixed starts are tried on at most 64 of the points, the best of them is then polished on at most 128, so
    that the time is bounded: what hundreds of points say of length scales, a hundred say too.
    """
    priors = priors_for(axes.count)
    starts = np.tile(priors.mean, (3, 1))
    # Longer length scales with little noise, shorter ones with more.
    starts[1, :-2] -= 2.0
    starts[2, :-2] += 2.0
    starts[1:, -1] = np.log(1e-2)
    for limit, steps in ((_SKETCH, 15), (_POLISH, 8)):
        if limit == _POLISH and len(values) <= _SKETCH:
            break
        chosen = training_places(values, limit)
        evidence = Evidence(squared_distances(axes, embedded[chosen]), values[chosen], priors)
        found, scores = minimise(
            evidence, starts, low=priors.low, high=priors.high, steps=steps, reach=2.0, tolerance=1e-2
        )
        starts = found[[int(np.argmin(scores))]]
    return Hyper.of(starts[0])
