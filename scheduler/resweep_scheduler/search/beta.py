"""The beta distribution in plain Python: cumulative distribution and its inverse.

Agents that search need no SciPy for one distribution. The tests compare with SciPy.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

# Above this, the distribution is normal for all purposes of a search, and the continued fraction becomes slow.
_NORMAL_FROM: Final = 1e5
_TINY: Final = 1e-300
_EPSILON: Final = 1e-16
_SMALLEST_LOG: Final = -745.0


def beta_cdf(x: float, a: float, b: float) -> float:
    """Probability that a beta variable with shapes a, b > 0 is at most x."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if min(a, b) > _NORMAL_FROM:
        return _normal(a, b).cdf(x)
    return _regularised(x, 1 - x, a, b)


def beta_quantile(u: float, a: float, b: float) -> float:
    """The x with ``beta_cdf(x, a, b) == u``, for u in (0, 1)."""
    if min(a, b) > _NORMAL_FROM:
        return min(max(_normal(a, b).inv_cdf(u), 0.0), 1.0)
    # The half where x is small keeps its relative precision; the other one is its mirror image.
    if u > _regularised(0.5, 0.5, a, b):
        return 1 - _lower_quantile(1 - u, b, a)
    return _lower_quantile(u, a, b)


def _lower_quantile(u: float, a: float, b: float) -> float:
    """Bisect for the quantile in (0, 0.5], in the logarithm, because small shapes give values like 1e-200."""
    low, high = _SMALLEST_LOG, math.log(0.5)
    while True:
        middle = (low + high) / 2
        if not low < middle < high or high - low < 1e-15 * abs(high):
            return math.exp(middle)
        x = math.exp(middle)
        if _regularised(x, 1 - x, a, b) < u:
            low = middle
        else:
            high = middle


def _normal(a: float, b: float) -> NormalDist:
    mean = 1 / (1 + b / a)
    return NormalDist(mean, math.sqrt(mean * (1 - mean) / (a + b + 1)))


def _regularised(x: float, y: float, a: float, b: float) -> float:
    """The regularised incomplete beta function at x = 1 - y, by its continued fraction (DLMF 8.17.22)."""
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(y)
    front = math.exp(log_front)
    # The fraction converges fast below the mean only; above it, the mirror image does.
    if x < (a + 1) / (a + b + 2):
        return min(front * _fraction(x, a, b) / a, 1.0)
    return max(1 - front * _fraction(y, b, a) / b, 0.0)


def _fraction(x: float, a: float, b: float) -> float:
    """Lentz's evaluation of the continued fraction; it needs about sqrt(max(a, b)) steps at worst."""
    steps = int(10 * math.sqrt(max(a, b))) + 200
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, steps):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            result *= d * c
        if abs(d * c - 1) < _EPSILON * 10:
            break
    return result


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
