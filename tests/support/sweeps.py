"""Sweeps with a past, made by calls of the store alone: no agents, no processes, no waiting."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from resweep_scheduler.config import SweepConfig, load_sweep
from resweep_scheduler.search import create_search, run_id_for
from resweep_scheduler.store import (
    ClaimedRun,
    ClaimOutcome,
    ClaimRequest,
    ClaimToken,
    EndRequest,
    NewRun,
    Offer,
    Scope,
    Store,
    SweepSettings,
    connect,
    new_id,
)

GRID = """\
program: train.py
method: grid
metric: {name: accuracy, goal: maximize}
parameters:
  lr: {values: [0.1, 0.01]}
  depth: {values: [2, 4]}
"""


class Story:
    """One sweep and one agent, told step by step.

    Attributes:
        store, sweep_id: Where it is told.
        config: What the sweep was made from.
    """

    def __init__(
        self,
        url: str,
        text: str = GRID,
        *,
        scope: str = "local/uncategorized",
        sweep_id: str = "",
        lease_ms: int = 60_000,
    ) -> None:
        self.store = Store(connect(url), Scope.parse(scope), url=url)
        self.config: SweepConfig = load_sweep("story.yaml", text=text)
        self.sweep_id = sweep_id or new_id()
        self.lease_ms = lease_ms
        self._claims = 0
        metric = self.config.metric
        settings = SweepSettings(
            lease_ms=lease_ms,
            heartbeat_ms=lease_ms // 6,
            name=self.config.name or "",
            run_cap=self.config.run_cap,
            metric_name=metric.name if metric else None,
            metric_goal=metric.goal if metric else None,
        )
        self.store.create_sweep(
            sweep_id=self.sweep_id,
            nonce=new_id(),
            config_text=text,
            config_json=self.config.to_json(),
            settings=settings,
        )
        self.store.register(self.sweep_id, agent="box-0", session="s", host="box", pid=4242)

    def claim(self) -> ClaimedRun:
        """Take the next run, asking the search if need be."""
        return self.claim_as("box-0", "s")

    def claim_as(self, agent: str, session: str) -> ClaimedRun:
        """Take the next run as an agent that is registered."""
        search = create_search(self.config)
        self._claims += 1
        index = self.store.sweep(self.sweep_id).next_index
        points = search.suggest(first_index=index, count=1)
        runs = tuple(NewRun(run_id_for(self.sweep_id, index), index, point) for point in points)
        offer = Offer(first_index=index, runs=runs, exhausted=search.size is not None and index + 1 >= search.size)
        nonce = f"{session}.{self._claims}"
        request = ClaimRequest(sweep_id=self.sweep_id, agent=agent, nonce=nonce, lease_ms=self.lease_ms, offer=offer)
        answer = self.store.claim(request)
        assert answer.outcome is ClaimOutcome.RUN, answer
        assert answer.run is not None
        return answer.run

    def log(self, token: ClaimToken, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Log rows by step, as a script does."""
        self.store.init_run(run_id=token.run_id, resume="allow", nonce=token.nonce, attempt=token.attempt)
        last = list(rows.values())[-1]
        values = [row["accuracy"] for row in rows.values() if "accuracy" in row]
        self.store.log(
            token,
            first_seq=1,
            rows=[(step, json.dumps(row)) for step, row in rows.items()],
            summary=json.dumps(last),
            metric=max((value for value in values if math.isfinite(value)), default=None),
        )

    def end(self, token: ClaimToken, exit_code: int | None = 0, *, signal: int | None = None, reason: str = "") -> None:
        self.store.end_attempt(EndRequest(token=token, exit_code=exit_code, signal=signal, reason=reason))

    def finish(self, accuracy: float) -> str:
        """Take a run, log one step, finish it; returns its id."""
        run = self.claim()
        self.log(run.token, {0: {"accuracy": accuracy}})
        self.end(run.token)
        return run.token.run_id

    def fail(self, exit_code: int = 1) -> str:
        """Take a run that fails; returns its id."""
        run = self.claim()
        self.end(run.token, exit_code)
        return run.token.run_id

    def preempt(self) -> str:
        """Take a run that is preempted; returns its id."""
        run = self.claim()
        self.store.mark_preempting(run.token, reason="script")
        self.end(run.token, 75)
        return run.token.run_id
