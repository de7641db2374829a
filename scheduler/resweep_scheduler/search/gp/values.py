"""Outcomes as the model sees them: close to normal in shape, and not too many of them."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from resweep_scheduler.search.gp.axes import Floats

_POWERS: Final = np.linspace(-4.0, 4.0, 33)


def standardised(values: Floats) -> Floats:
    """The values with mean 0 and variance 1, after a power transformation that makes them as normal as may be.

    A few huge values would otherwise fill the scale, and all differences that matter would be noise. The transformation
    (of Yeo and Johnson) keeps the order; its power is the one with the greatest likelihood.
    """
    largest = float(np.abs(values).max(initial=0.0))
    scaled = values / largest if largest > 0 else values
    deviation = float(scaled.std())
    if len(values) < 3 or deviation < 1e-12:
        return _unit(scaled)
    low, middle, high = np.quantile(scaled, (0.25, 0.5, 0.75))
    # For a normal distribution, the middle half is 1.35 deviations wide; if it is far narrower, a few huge values rule.
    robust = (high - low) / 1.35
    centre, width = (middle, robust) if 0 < robust < deviation / 4 else (scaled.mean(), deviation)
    # Beyond a million widths all values are equally far, and powers of them stay floats.
    scaled = np.clip((scaled - centre) / width, -1e6, 1e6)
    shaped = [_powered(scaled, float(power)) for power in _POWERS]
    signs = float((np.sign(scaled) * np.log1p(np.abs(scaled))).sum())
    likelihoods = [
        -0.5 * len(values) * np.log(max(float(one.var()), 1e-300)) + (power - 1) * signs
        for one, power in zip(shaped, _POWERS, strict=True)
    ]
    return _unit(shaped[int(np.argmax(likelihoods))])


def no_better_than_whole(values: Floats, cut_short: npt.NDArray[np.bool_]) -> Floats:
    """The values to be minimised, where those of runs that were cut short are never below the least of the others.

    Such a run was no better by its own last step, and nobody saw it to the end.
    """
    if not cut_short.any() or cut_short.all():
        return values
    return np.where(cut_short, np.maximum(values, values[~cut_short].min()), values)


def training_places(values: Floats, limit: int) -> npt.NDArray[np.intp]:
    """The places of at most `limit` values to learn from: the best half, and of the others evenly many of all ranks."""
    if len(values) <= limit:
        return np.arange(len(values))
    order = np.argsort(values, kind="stable")
    best, others = order[: limit // 2], order[limit // 2 :]
    spread = others[np.linspace(0, len(others) - 1, limit - len(best)).astype(np.intp)]
    return np.sort(np.concatenate([best, spread]))


def _unit(values: Floats) -> Floats:
    deviation = float(values.std())
    centred = values - values.mean()
    return centred / deviation if deviation > 1e-12 else np.zeros_like(values)


def _powered(values: Floats, power: float) -> Floats:
    positive = values >= 0
    grown = np.log1p(np.where(positive, values, 0.0))
    sunk = np.log1p(np.where(positive, 0.0, -values))
    up = grown if power == 0 else np.expm1(power * grown) / power
    down = -sunk if power == 2 else -np.expm1((2 - power) * sunk) / (2 - power)
    return np.where(positive, up, down)
