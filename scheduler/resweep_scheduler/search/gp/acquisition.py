"""Expected improvement in its logarithm, averaged over what the open points may turn out to be."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from resweep_scheduler.search.gp.axes import Axes, Floats
from resweep_scheduler.search.gp.kernel import JITTER, MEAN_VARIANCE, Hyper, matern

_SQRT2: Final = math.sqrt(2.0)
_LOG_ROOT_2PI: Final = 0.5 * math.log(2 * math.pi)
_FAR: Final = -5.0
_TERMS: Final = 24


def log_improvement(z: Floats) -> tuple[Floats, Floats]:
    """log(φ(z) + z Φ(z)) and its derivative, without cancellation however far below 0 z is."""
    flat = z.ravel()
    shape = np.exp(-0.5 * flat * flat - _LOG_ROOT_2PI)
    below = np.array([0.5 * math.erfc(-value / _SQRT2) for value in flat.tolist()])
    near = np.maximum(shape + flat * below, 1e-300)
    value, slope = np.log(near), below / near
    far = flat < _FAR
    if far.any():
        t = -flat[far]
        # The continued fraction of Mills' ratio, 1 / (t + 1 / (t + 2 / (t + 3 / …))).
        rest = np.zeros_like(t)
        for term in range(_TERMS, 0, -1):
            rest = term / (t + rest)
        value[far] = -0.5 * t * t - _LOG_ROOT_2PI + np.log(rest / (t + rest))
        slope[far] = 1 / rest
    return value.reshape(z.shape), slope.reshape(z.shape)


class Acquisition:
    """How promising points are: the logarithm of the expected improvement.

    Points that are open (asked for, no value yet) count as known, each with values drawn from what the model believes
    of all of them together; the improvement is averaged over the draws. Without draws, or with one, it is the belief's
    mean ("kriging believer").

    Args:
        axes: The axes.
        hyper: The hyperparameters.
        known: Points with values.
        values: Their standardised values; less is better.
        pending: Points without values.
        normals: Standard normal numbers, one row for each draw and one column for each open point.
    """

    def __init__(
        self, axes: Axes, hyper: Hyper, *, known: Floats, values: Floats, pending: Floats, normals: Floats
    ) -> None:
        self._axes = axes
        self._hyper = hyper
        self._roots = np.sqrt(hyper.weights)[axes.owners]
        inner = axes.embed(known) * self._roots
        covariance = self._kernel(inner, inner)[0]
        self._inverse = _inverse(covariance, hyper)
        alpha = self._inverse @ values
        means = covariance @ alpha
        # With noise, the best value may be luck; what the model believes of its point is less so.
        self.best = float(means.min())
        self._points = inner
        self._alphas = alpha[:, None]
        self._bests = np.array([self.best])
        if len(pending):
            self._add(axes.embed(pending) * self._roots, values, normals)

    def _add(self, open_points: Floats, values: Floats, normals: Floats) -> None:
        cross, _ = self._kernel(open_points, self._points)
        mean = cross @ self._alphas[:, 0]
        if len(normals):
            spread = self._kernel(open_points, open_points)[0] - cross @ self._inverse @ cross.T
            root = _root(spread, self._hyper.noise)
            drawn = mean + normals @ root.T
        else:
            drawn = mean[None, :]
        self._points = np.concatenate([self._points, open_points])
        self._inverse = _inverse(self._kernel(self._points, self._points)[0], self._hyper)
        all_values = np.concatenate([np.tile(values, (len(drawn), 1)), drawn], axis=1)
        self._alphas = self._inverse @ all_values.T
        if len(normals):
            self._bests = np.minimum(self.best, drawn.min(axis=1))

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
        pull = (by_mean @ self._alphas.T - 2 * by_variance[:, None] * solved) * slope
        by_column = 2 * (some * pull.sum(axis=1)[:, None] - pull @ self._points) * self._roots
        return -score, -(by_column * self._axes.slopes(points)) @ self._axes.incidence

    def _evaluate(self, points: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        some = self._axes.embed(points) * self._roots
        cross, slope = self._kernel(some, self._points)
        solved = cross @ self._inverse
        variance = self._hyper.variance + MEAN_VARIANCE - (solved * cross).sum(axis=1)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        z = (self._bests - cross @ self._alphas) / deviation[:, None]
        value, ratio = log_improvement(z)
        top = value.max(axis=1)
        shares = np.exp(value - top[:, None])
        total = shares.sum(axis=1)
        score = top + np.log(total / shares.shape[1]) + np.log(deviation)
        shares /= total[:, None]
        by_mean = -shares * ratio / deviation[:, None]
        by_variance = (shares * (1 - ratio * z)).sum(axis=1) / (2 * deviation * deviation)
        return score, some, slope, by_mean, by_variance, solved


def _inverse(kernel: Floats, hyper: Hyper) -> Floats:
    return np.asarray(np.linalg.inv(kernel + (hyper.noise + JITTER) * np.eye(len(kernel))), dtype=np.float64)


def _root(covariance: Floats, noise: float) -> Floats:
    """The Cholesky factor; rounding errors may take more noise to be overcome than there is."""
    eye = np.eye(len(covariance))
    for jitter in (JITTER, 1e-6, 1e-4):
        try:
            return np.asarray(np.linalg.cholesky(covariance + (noise + jitter) * eye), dtype=np.float64)
        except np.linalg.LinAlgError:
            continue
    return np.zeros_like(covariance)
