"""The Gaussian process as a whole: what is known and what is open in, candidates out."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from resweep_scheduler.search.gp.acquisition import Acquisition
from resweep_scheduler.search.gp.axes import Axes, Floats, Marks
from resweep_scheduler.search.gp.kernel import Hyper, fit
from resweep_scheduler.search.gp.minimise import minimise
from resweep_scheduler.search.gp.values import standardised, training_places

TRAINING_LIMIT: Final = 300
"""The model learns from at most as many points; see `training_places`."""
_RANDOM: Final = 300
_NEAR: Final = 200
_BEST: Final = 5
_STARTS: Final = 5
_REFINEMENTS: Final = 20
_CLIMBERS: Final = 2
_ROUNDS: Final = 4
_FURTHER: Final = 40


class GaussianProcess:
    """Proposes points of some axes for a function that is to be minimised.

    Args:
        axes: The axes.
    """

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self._fitted: tuple[bytes, Hyper] | None = None

    def propose(self, points: Floats, values: Floats, pending: Floats, seed: int) -> Floats:
        """Candidates for the next point, best first: some refined ones, then good ones of all that were looked at.

        Args:
            points: Points whose values are known, one a row; at least one.
            values: Their values; finite.
            pending: Points that were proposed and have no value yet.
            seed: The same seed and arguments give the same answer.
        """
        rng = np.random.default_rng(seed)
        acquisition = self._acquisition(points, values, pending)
        candidates = self._candidates(points, values, rng)
        scores = acquisition.score(candidates)
        order = np.argsort(-scores, kind="stable")
        refined, refined_scores = self._refined(acquisition, candidates[_apart(candidates, order, _STARTS)], rng)
        best_first = np.argsort(-refined_scores, kind="stable")
        return np.concatenate([refined[best_first], candidates[order[:_FURTHER]]])

    def rank(
        self, points: Floats, values: Floats, pending: Floats, candidates: Floats, rivals: Marks | None = None
    ) -> npt.NDArray[np.intp]:
        """The places of given candidates, the most promising first.

        Args:
            points, values, pending: As for `propose`.
            candidates: What is ranked.
            rivals: Which of the points are to be improved upon, at least one; None for all.
        """
        acquisition = self._acquisition(points, values, pending, rivals)
        return np.argsort(-acquisition.score(candidates), kind="stable")

    def chosen(self, values: Floats) -> npt.NDArray[np.intp]:
        """The places of the values that the model would learn from: whoever has many points may give these only."""
        return training_places(values, TRAINING_LIMIT)

    def _acquisition(self, points: Floats, values: Floats, pending: Floats, rivals: Marks | None = None) -> Acquisition:
        chosen = self.chosen(values)
        known, outcomes = points[chosen], standardised(values[chosen])
        hyper = self._hyper(known, outcomes)
        rivals = None if rivals is None else rivals[chosen]
        return Acquisition(self.axes, hyper, known=known, values=outcomes, pending=pending, rivals=rivals)

    def _hyper(self, known: Floats, outcomes: Floats) -> Hyper:
        key = known.tobytes() + outcomes.tobytes()
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = (key, fit(self.axes, self.axes.embed(known), outcomes))
        return self._fitted[1]

    def _candidates(self, points: Floats, values: Floats, rng: np.random.Generator) -> Floats:
        """Points at random, and points near the best ones at many distances."""
        anywhere = self.axes.from_cube(rng.random((_RANDOM, self.axes.count)))
        best = points[np.argsort(values, kind="stable")[:_BEST]]
        near = np.repeat(best, _NEAR // len(best), axis=0)
        scale = 0.2 * 10 ** (-2.0 * rng.random(len(near)))
        rate = max(0.3, min(1.0, 2 / self.axes.count))
        return np.concatenate([anywhere, self.axes.mutate(near, rng, scale, rate)])

    def _refined(self, acquisition: Acquisition, starts: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
        points, scores = self._descended(acquisition, starts, _REFINEMENTS)
        if self.axes.smooth.all():
            return points, scores
        kept = np.argsort(-scores, kind="stable")[:_CLIMBERS]
        points, scores = points[kept], scores[kept]
        for _ in range(_ROUNDS):
            near = [self.axes.neighbours(point, rng) for point in points]
            near_scores = np.split(acquisition.score(np.concatenate(near)), np.cumsum([len(one) for one in near])[:-1])
            steps = [int(np.argmax(one)) for one in near_scores]
            better = [place for place, step in enumerate(steps) if near_scores[place][step] > scores[place] + 1e-6]
            if not better:
                break
            moved = np.array([near[place][steps[place]] for place in better])
            points[better], scores[better] = self._descended(acquisition, moved, _REFINEMENTS // 2)
        return points, scores

    def _descended(self, acquisition: Acquisition, starts: Floats, steps: int) -> tuple[Floats, Floats]:
        """Moved along the axes that have a gradient, to a local maximum of the score."""
        if not self.axes.smooth.any():
            return starts.copy(), acquisition.score(starts)
        low, high = np.zeros(self.axes.count), np.where(self.axes.smooth, 1.0, np.inf)
        points, values = minimise(acquisition.descend, starts, low=low, high=high, steps=steps, reach=0.2)
        return points, -values


def _apart(candidates: Floats, order: npt.NDArray[np.intp], count: int) -> list[int]:
    """The places of the best candidates that are not next to each other."""
    chosen = [int(order[0])]
    for place in order[1:200]:
        if len(chosen) == count:
            break
        if min(float(np.abs(candidates[place] - candidates[other]).max()) for other in chosen) > 0.05:
            chosen.append(int(place))
    return chosen
