"""Bayesian search: the default of ``method: bayes``."""

from __future__ import annotations

import logging
import marshal
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from resweep_scheduler.config.metric import Metric
from resweep_scheduler.config.sweep import SweepConfig
from resweep_scheduler.search.base import PastRun, Search, SearchError, check_request
from resweep_scheduler.search.distinct import PointKey, key_of, new_point
from resweep_scheduler.search.encoding import Codec, Coordinate, Latent
from resweep_scheduler.search.impute import Goals, Outcomes
from resweep_scheduler.search.sobol import sobol_point, startup_points
from resweep_scheduler.search.space import dimensions_of, nest

if TYPE_CHECKING:
    from resweep_scheduler.search.gp.axes import Floats
    from resweep_scheduler.search.gp.engine import GaussianProcess
    from resweep_scheduler.search.gp.rows import Rows
    from resweep_scheduler.search.optuna import LatentSearch

_log = logging.getLogger(__name__)

MOST_DIMENSIONS: Final = 100
"""With more dimensions, the Gaussian process gives way to TPE."""
_MOST_OPEN: Final = 256  # open runs that the model takes into account, the latest ones
_SMALL_SPACE: Final = 1000  # points that are all looked at for each proposal
BRANCH_TURN: Final = 6
"""Every so many proposals, one is for a branch in turn."""
_BRANCH_LOOKS: Final = 500  # points of that branch that are looked at


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A point of the space, with its key where it may come twice, and as a row of the model."""

    key: PointKey | None
    row: list[float]


@dataclass(frozen=True, slots=True)
class _Known:
    """A run that fits the space; `value`: what it counts as, None while it is open."""

    point: _Encoded
    value: float | None
    stopped: bool = False


class BayesSearch(Search):
    """Proposes points that promise a better metric, from few finished runs or many, for one agent or a hundred.

    1. Until enough runs count (4, and one more for every 4 dimensions, at most 10): first the centre, which is the
       median of every number and the most probable categories, for ranges are mostly laid around a guess; then Sobol
       points of the sweep's seed, drawn through the distributions. With 64 agents the first 64 points are these.
    2. Then a Gaussian process (package `gp`): the point with the best expected improvement, where open runs count as
       what the model believes of them, so that agents spread. It learns from 300 runs at most, which bounds its time.
    3. With more than 100 dimensions, TPE (Optuna's, multivariate) in its place, for the time that it takes; the process
       was still far better with 60 (docs/search.md). The number of runs changes nothing: its time is bounded, and
       beyond 100 finished runs the two have not been compared.

    Where choices bring parameters of their own, every sixth proposal is for one of the choices in turn, other than that
    of the best run: the point that promises most to improve on the best run with that choice. A few unlucky runs would
    else rule out a choice for good, because elsewhere there is always something left to improve, however little.

    A point whose parameters all take steps is not proposed again while there are others; up to 1,000 points, every one
    that is left is looked at. Open runs, preempted ones too, are open and nothing else. Failed, crashed and killed runs
    count as `metric.impute` says. A run that early termination stopped counts as the value it had, but never as better
    than the best finished run: it was no better by its own last step, and nobody saw it to the end.

    Raises:
        SearchError: The config has no metric, or nothing that can be searched.
    """

    needs_runs = True
    size = None

    def __init__(self, config: SweepConfig) -> None:
        if config.metric is None:
            raise SearchError("method bayes needs a metric (got none). Add metric: {name: loss, goal: minimize}.")
        self._codec = Codec(dimensions_of(config.parameters))
        if not self._codec.coordinates:
            raise SearchError("method bayes needs a parameter that is not a constant (got constants only). Add one.")
        self._parameters = config.parameters
        self._seed = config.seed
        self._metric: Metric = config.metric
        self.startup_runs = startup_points(len(self._codec.coordinates))
        self._model: _Model | None = None
        self._tpe: LatentSearch | None = None
        self._encoded: dict[bytes, _Encoded | None] = {}

    def suggest(self, *, first_index: int, count: int, runs: Sequence[PastRun] = ()) -> list[dict[str, object]]:
        check_request(first_index, count)
        if not count:
            return []
        # Runs from first_index on are proposals that are being made again: they must not change them.
        past = sorted((run for run in runs if run.index < first_index), key=lambda run: run.index)
        outcomes = Outcomes(self._metric, past)
        known = self._read(past, outcomes)
        if len(self._codec.coordinates) > MOST_DIMENSIONS and self._enough(known):
            latents = self._by_tpe().suggest(first_index=first_index, count=count, runs=past)
            return [self._params(latent) for latent in latents]
        # What the points of this question count as for those after them.
        proposed = outcomes.value(PastRun(first_index, {}, "pending", None))
        return self._suggest(first_index, count, known, proposed)

    def _suggest(
        self, first_index: int, count: int, known: list[_Known], proposed: float | None
    ) -> list[dict[str, object]]:
        keys = {one.point.key for one in known if one.point.key is not None}
        points: list[dict[str, object]] = []
        for index in range(first_index, first_index + count):
            latent = new_point(self._codec, self._candidates(known, index), keys, seed=self._seed, index=index)
            points.append(self._params(latent))
            # Read back as it will be from its record, to the last bit: asked one by one, the answers are the same.
            if (encoded := self._encode(points[-1])) is not None:
                known.append(_Known(encoded, proposed))
                if encoded.key is not None:
                    keys.add(encoded.key)
        return points

    def _params(self, latent: Latent) -> dict[str, object]:
        return nest(self._parameters, self._codec.decode(latent))

    def _candidates(self, known: Sequence[_Known], index: int) -> Iterator[Latent]:
        if not self._enough(known):
            yield self._start(index)
            return
        sign = 1.0 if self._metric.goal == "minimize" else -1.0
        seed = zlib.crc32(f"{self._seed}:{index}".encode())
        turn, rest = divmod(index, BRANCH_TURN)
        yield from self._by_model().candidates(known, sign, seed, turn=turn if rest == BRANCH_TURN - 1 else None)

    def _start(self, index: int) -> Latent:
        """The point with this index of those that need no results."""
        coordinates = self._codec.coordinates
        if index == 0:
            return {one.name: _centre(one) for one in coordinates}
        cube = sobol_point(self._seed, index, len(coordinates))
        return {one.name: one.draw(u) for one, u in zip(coordinates, cube, strict=True)}

    def _enough(self, known: Sequence[_Known]) -> bool:
        return sum(one.value is not None for one in known) >= self.startup_runs

    def _read(self, past: Sequence[PastRun], outcomes: Outcomes) -> list[_Known]:
        known = []
        for run in past:
            encoded = self._encode(run.params)
            if encoded is None:
                _log.warning("run %d is left out of the search: its parameters do not fit the config", run.index)
            else:
                known.append(_Known(encoded, outcomes.value(run), run.stopped))
        return known

    def _encode(self, params: dict[str, Any]) -> _Encoded | None:
        # Encoding thousands of runs takes most of the time, and the same runs come with every question.
        text = marshal.dumps(params, 2)
        if text not in self._encoded:
            latent = self._codec.encode(params)
            self._encoded[text] = (
                None if latent is None else _Encoded(key_of(self._codec, latent), self._by_model().rows.row(latent))
            )
        return self._encoded[text]

    def _by_model(self) -> _Model:
        if self._model is None:
            self._model = _Model(self._codec)
        return self._model

    def _by_tpe(self) -> LatentSearch:
        if self._tpe is None:
            from resweep_scheduler.config.sections import SearchOptions
            from resweep_scheduler.search.optuna import LatentSearch

            options = SearchOptions(sampler="tpe", options={"n_startup_trials": 1})
            self._tpe = LatentSearch(self._codec, Goals((self._metric,)), options, self._seed)
        return self._tpe


def _centre(coordinate: Coordinate) -> float | int:
    """The median of a number, the most probable category; of several, the first."""
    if not coordinate.choices:
        return coordinate.draw(0.5)
    return max(zip(coordinate.choices, coordinate.weights, strict=True), key=lambda one: one[1])[0]


class _Model:
    """The Gaussian process over latent points. NumPy is loaded here, and not by who only asks for other searches."""

    def __init__(self, codec: Codec) -> None:
        from resweep_scheduler.search.gp.engine import GaussianProcess
        from resweep_scheduler.search.gp.rows import Rows

        self._codec = codec
        self.rows: Rows = Rows(codec)
        self._process: GaussianProcess = GaussianProcess(self.rows.axes)
        self._all: list[Latent] = []
        if codec.size is not None and codec.size <= _SMALL_SPACE:
            self._all = [codec.at(place) for place in range(codec.size)]

    def candidates(self, known: Sequence[_Known], sign: float, seed: int, *, turn: int | None) -> Iterator[Latent]:
        """Points for the next run, best first; `sign` times a value is to be minimised.

        Args:
            known: The runs so far.
            sign: 1 or -1.
            seed: Of this proposal.
            turn: Number of the branch whose turn it is, if there are branches; None: it is nobody's.
        """
        closed = [one for one in known if one.value is not None]
        values = self._values(closed, sign)
        chosen = self._process.chosen(values)
        points, values = self._table([closed[place] for place in chosen]), values[chosen]
        pending = self._table([one for one in known if one.value is None][-_MOST_OPEN:])
        if turn is not None:
            yield from self._in_turn(turn, points, values, pending, seed)
        if self._all:
            order = self._process.rank(points, values, pending, self.rows.rows(self._all))
            yield from (self._all[place] for place in order.tolist())
        else:
            yield from (self.rows.latent(row) for row in self._process.propose(points, values, pending, seed))

    def _in_turn(self, turn: int, points: Floats, values: Floats, pending: Floats, seed: int) -> Iterator[Latent]:
        """Points of the branch whose turn it is; none if there are no others than that of the best point."""
        best = points[[values.argmin()]]
        others = [branch for branch in self.rows.branches if not self.rows.lie_in(branch, best).any()]
        if not others:
            return
        branch = others[turn % len(others)]
        looks = self.rows.in_branch(branch, _BRANCH_LOOKS, seed)
        rivals = self.rows.lie_in(branch, points)
        order = self._process.rank(points, values, pending, looks, rivals if rivals.any() else None)
        yield from (self.rows.latent(looks[place]) for place in order.tolist())

    def _table(self, known: Sequence[_Known]) -> Floats:
        import numpy as np

        rows = [one.point.row for one in known]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.rows.axes.count)

    def _values(self, closed: Sequence[_Known], sign: float) -> Floats:
        """What the runs count as; those that were stopped never better than the best of the others."""
        import numpy as np

        from resweep_scheduler.search.gp.values import no_better_than_whole

        values = np.array([sign * one.value for one in closed if one.value is not None])
        return no_better_than_whole(values, np.array([one.stopped for one in closed]))
