"""Reading the curves of all runs of a sweep, for Optuna's pruners; only what is new is sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.reads import decode_point
from resweep_scheduler.store.records import Note, RunCurve
from resweep_scheduler.store.states import RunState


class CurveReads(StoreBase):
    """Reads of early termination."""

    def curve_lengths(self, run_ids: list[str]) -> list[int]:
        """How many values of the metric each of the runs has."""

        def fill(pipe: Any) -> None:
            for run_id in run_ids:
                pipe.llen(self.keys.run(run_id, "curve"))

        return [int(length) for length in self._read(fill)] if run_ids else []

    def read_curves(self, sweep_id: str, known: Mapping[str, RunCurve]) -> dict[str, RunCurve]:
        """All runs of the sweep, in the order of their indices.

        Args:
            known: What the last call answered. Of runs that are finished there nothing is read again.
        """
        order: Any = self._try(lambda: self.client.zrange(self.keys.sweep(sweep_id, "runs"), 0, -1, withscores=True))
        asked = [
            (str(run_id), int(index), known.get(str(run_id)))
            for run_id, index in order
            if str(run_id) not in known or known[str(run_id)].state is not RunState.FINISHED
        ]

        def fill(pipe: Any) -> None:
            for run_id, _, before in asked:
                pipe.hmget(self.keys.run(run_id), ["state", "metric", "notes"])
                # The last point that is known comes again, to see whether it still stands there.
                pipe.lrange(self.keys.run(run_id, "curve"), max(0, len(before.points) - 1) if before else 0, -1)

        replies = self._read(fill) if asked else []
        fresh: dict[str, RunCurve] = {}
        for (run_id, index, before), fields, texts in zip(asked, replies[::2], replies[1::2], strict=True):
            if fields[0]:
                fresh[run_id] = self._grown(run_id, index, before, fields, texts)
        return {
            str(run_id): fresh.get(str(run_id)) or known[str(run_id)]
            for run_id, _ in order
            if str(run_id) in fresh or str(run_id) in known
        }

    def _grown(self, run_id: str, index: int, before: RunCurve | None, fields: Any, texts: list[str]) -> RunCurve:
        points = tuple(decode_point(text) for text in texts)
        if before is not None and before.points:
            if points and points[0] == before.points[-1]:
                points = before.points + points[1:]
            else:  # steps were logged again: the curve is another one
                whole = self._try(lambda: self.client.lrange(self.keys.run(run_id, "curve"), 0, -1))
                points = tuple(decode_point(str(text)) for text in whole)
        state, metric, notes = fields
        return RunCurve(
            run_id=run_id,
            index=index,
            state=RunState(state),
            metric=float(metric) if metric else None,
            points=points,
            notes={name: Note(*note) for name, note in json.loads(notes).items()} if notes else {},
        )
