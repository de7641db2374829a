"""The thread that asks one of Optuna's pruners about the agent's runs, where a sweep names one.

It reads the curves of the sweep's runs from Redis and tells Redis which of ours to stop; the rest goes as with a stop
by anybody else. It never touches a slot, and when it fails the runs go on. Rules that Redis applies itself need no
thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from resweep_scheduler.config import OptunaPruner, SweepConfig
from resweep_scheduler.store import ClaimToken, RunCurve, Store, StoreError

if TYPE_CHECKING:
    from resweep_scheduler.stopping.pruners import PrunerJudge, Verdict

_log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two looks at the curves of our runs."""
LAST_WORDS = 3.0
"""Seconds for which the end of the agent waits for a look that is under way."""


class Pruner:
    """Judges the runs that it is told to keep.

    Args:
        make_judge: Called in the thread, because it loads Optuna.
    """

    def __init__(self, store: Store, *, sweep_id: str, make_judge: Callable[[], PrunerJudge]) -> None:
        self._store = store
        self._sweep_id = sweep_id
        self._make_judge = make_judge
        self._judge: PrunerJudge | None = None
        self._curves: dict[str, RunCurve] = {}
        self._kept: dict[ClaimToken, int] = {}  # how many values were looked at
        self._untold: dict[ClaimToken, Verdict] = {}  # found weak, and Redis has not answered: no pruner says it twice
        self._changed = threading.Condition()
        self._stopping = False
        self._failed = False
        self._thread = threading.Thread(target=self._run, name="resweep-pruner", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def keep(self, token: ClaimToken) -> None:
        """From now on the run is judged. Main thread."""
        with self._changed:
            self._kept[token] = 0
            self._changed.notify()

    def drop(self, token: ClaimToken) -> None:
        """The attempt is over. Main thread."""
        with self._changed:
            self._kept.pop(token, None)

    def close(self) -> None:
        """Stop the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(LAST_WORDS)

    def step(self) -> None:
        """Judge those of our runs that have new values.

        Raises:
            StoreError: Redis is away or refuses; the next step looks again.
        """
        with self._changed:
            kept = dict(self._kept)
        lengths = self._store.curve_lengths([token.run_id for token in kept])
        grown = {token: length for (token, seen), length in zip(kept.items(), lengths, strict=True) if length != seen}
        self._untold = {token: verdict for token, verdict in self._untold.items() if token in kept}
        if not grown:
            return
        if self._judge is None:
            self._judge = self._make_judge()
        self._curves = self._store.read_curves(self._sweep_id, self._curves)
        self._judge.look(self._curves)
        for token in grown:
            if token.run_id in self._curves:
                self._decide(token, self._judge, self._curves[token.run_id])

    def _decide(self, token: ClaimToken, judge: PrunerJudge, run: RunCurve) -> None:
        verdict = self._untold.get(token) or judge.decide(run.index, token.attempt)
        if verdict.weak:
            self._untold[token] = verdict
        if verdict.weak or verdict.notes != run.notes:
            self._store.prune_run(
                token,
                iteration=verdict.iteration,
                reason=f"early_terminate: {judge.name}, at iteration {verdict.iteration}" if verdict.weak else "",
                data={"rule": judge.name, "value": run.points[verdict.iteration - 1].value} if verdict.weak else None,
                notes=verdict.notes,
            )
        self._untold.pop(token, None)
        with self._changed:
            if token in self._kept:
                self._kept[token] = len(run.points)

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.step()
                self._failed = False
            except StoreError as error:
                _log.debug("pruner-waits", exc_info=error)
            except Exception:
                # A pruner that cannot decide stops nothing.
                if not self._failed:
                    _log.exception("pruner-fault")
                self._failed = True
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=INTERVAL)
                self._changed.wait_for(lambda: self._kept or self._stopping)


def make_pruner(store: Store, sweep_id: str, config: SweepConfig) -> Pruner | None:
    """The thread for a sweep that names one of Optuna's pruners; None for all others."""
    rule, metric = config.early_terminate, config.metric
    if not isinstance(rule, OptunaPruner) or metric is None:
        return None

    def make_judge() -> PrunerJudge:
        from resweep_scheduler.stopping.pruners import PrunerJudge

        return PrunerJudge(rule, goal=metric.goal, name=sweep_id)

    return Pruner(store, sweep_id=sweep_id, make_judge=make_judge)
