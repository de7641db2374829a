"""Expected improvement in its logarithm, with open points taken for what the model believes of them."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from resweep_scheduler.search.gp.axes import Axes, Floats, Marks
from resweep_scheduler.search.gp.kernel import JITTER, MEAN_VARIANCE, Hyper, matern

_SQRT2: Final = math.sqrt(2.0)
_LOG_ROOT_2PI: Final = 0.5 * math.log(2 * math.pi)
_FAR: Final = -5.0
_TERMS: Final = 24
_BELIEF_NOISE: Final = 1e-6


def log_improvement(z: Floats) -> tuple[Floats, Floats]:
    """log(φ(z) + z Φ(z)) and its derivative, without cancellation however far below 0 z is."""
    shape = np.exp(-0.5 * z * z - _LOG_ROOT_2PI)
    below = np.array([0.5 * math.erfc(-value / _SQRT2) for value in z.tolist()])
    near = np.maximum(shape + z * below, 1e-300)
    value, slope = np.log(near), below / near
    far = z < _FAR
    if far.any():
        t = -z[far]
        # The continued fraction of Mills' ratio, 1 / (t + 1 / (t + 2 / (t + 3 / …))).
        rest = np.zeros_like(t)
        for term in range(_TERMS, 0, -1):
            rest = term / (t + rest)
        value[far] = -0.5 * t * t - _LOG_ROOT_2PI + np.log(rest / (t + rest))
        slope[far] = 1 / rest
    return value, slope


class Acquisition:
    """How promising points are: the logarithm of the expected improvement.

    Points that are open (asked for, no value yet) count as known, with the value that the model believes in: there is
    less to be learnt beside them then, and nothing more to be gained ("kriging believer"). Averaging over draws of what
    they may come to was tried and was worse with 16 and with 64 open points: the best of many draws is so good that
    every point looks poor beside it, and the search wanders.

    Args:
        axes: The axes.
        hyper: The hyperparameters.
        known: Points with values.
        values: Their standardised values; less is better.
        pending: Points without values.
        rivals: Which of the known points are to be improved upon; None for all of them.
    """

    def __init__(
        self, axes: Axes, hyper: Hyper, *, known: Floats, values: Floats, pending: Floats, rivals: Marks | None = None
    ) -> None:
        self._axes = axes
        self._hyper = hyper
        self._roots = np.sqrt(hyper.weights)[axes.owners]
        self._points = axes.embed(known) * self._roots
        covariance = self._kernel(self._points, self._points)[0]
        self._inverse = _inverse(covariance, np.full(len(values), hyper.noise))
        self._alpha = self._inverse @ values
        # With noise, the best value may be luck; what the model believes of its point is less so.
        believed = covariance @ self._alpha
        self._best = float((believed if rivals is None else believed[rivals]).min())
        if len(pending):
            self._believe(axes.embed(pending) * self._roots, values, rivals)

    def _believe(self, pending: Floats, values: Floats, rivals: Marks | None) -> None:
        believed = self._kernel(pending, self._points)[0] @ self._alpha
        self._points = np.concatenate([self._points, pending])
        # What is believed is believed to be exact: with noise, it would pay to ask for the same point again and again.
        noise = np.concatenate([np.full(len(values), self._hyper.noise), np.full(len(pending), _BELIEF_NOISE)])
        self._inverse = _inverse(self._kernel(self._points, self._points)[0], noise)
        self._alpha = self._inverse @ np.concatenate([values, believed])
        if rivals is None:
            self._best = min(self._best, float(believed.min()))

    def _kernel(self, some: Floats, others: Floats) -> tuple[Floats, Floats]:
        squares = (some * some).sum(axis=1)[:, None] + (others * others).sum(axis=1) - 2 * some @ others.T
        value, slope = matern(np.maximum(squares, 0.0))
        return value * self._hyper.variance + MEAN_VARIANCE, slope * self._hyper.variance

    def score(self, points: Floats) -> Floats:
        """The logarithm of the expected improvement of each point."""
        return self._evaluate(points)[0]

    def descend(self, points: Floats) -> tuple[Floats, Floats]:
        """Minus the score and its gradient by the axes that have one."""
        score, some, slope, by_mean, by_variance, solved = self._evaluate(points)
        pull = (by_mean[:, None] * self._alpha - 2 * by_variance[:, None] * solved) * slope
        by_column = 2 * (some * pull.sum(axis=1)[:, None] - pull @ self._points) * self._roots
        return -score, -(by_column * self._axes.slopes(points)) @ self._axes.incidence

    def _evaluate(self, points: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        """The score, what its gradient needs, and its derivatives by the mean and by the variance."""
        some = self._axes.embed(points) * self._roots
        cross, slope = self._kernel(some, self._points)
        solved = cross @ self._inverse
        variance = self._hyper.variance + MEAN_VARIANCE - (solved * cross).sum(axis=1)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        z = (self._best - cross @ self._alpha) / deviation
        value, ratio = log_improvement(z)
        by_variance = (1 - ratio * z) / (2 * deviation * deviation)
        return value + np.log(deviation), some, slope, -ratio / deviation, by_variance, solved


def _inverse(kernel: Floats, noise: Floats) -> Floats:
    return np.asarray(np.linalg.inv(kernel + np.diag(noise + JITTER)), dtype=np.float64)
