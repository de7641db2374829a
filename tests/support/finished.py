"""Sweeps whose runs have ended, put into a store without agents that compute anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.creation import sweep_settings
from resweep_scheduler.store import NewRun, Offer, Store
from support.stores import Agent


@dataclass(frozen=True)
class Ended:
    """A run and how it ended.

    Attributes:
        params: Its parameters.
        metric: Best value of the sweep's metric.
        values: Last values of several metrics.
        rows: What it logged.
        exit_code: 0 = finished, None = left running.
        stop: Early termination ended it, with this reason.
    """

    params: Mapping[str, Any]
    metric: float | None = None
    values: Sequence[float | None] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    exit_code: int | None = 0
    stop: str = ""


def put_sweep(store: Store, sweep_id: str, config: Mapping[str, Any], runs: Sequence[Ended]) -> str:
    """Create a sweep with these runs, whose ids are those of the sweep and their index: old-0, old-1 …"""
    checked = parse_sweep(config)
    store.create_sweep(
        sweep_id=sweep_id,
        nonce=sweep_id,
        config_text="",
        config_json=checked.to_json(),
        settings=sweep_settings(checked),
    )
    offer = Offer(0, tuple(NewRun(f"{sweep_id}-{index}", index, run.params) for index, run in enumerate(runs)))
    store.add_runs(sweep_id, offer)
    client = cast(Redis, store.client)
    for index, run in enumerate(runs):
        agent = Agent(store, f"agent-{sweep_id}-{index}", sweep_id=sweep_id)
        token = agent.take().token
        rows = [(step, json.dumps(row)) for step, row in enumerate(run.rows)]
        metric = None if run.metric is None else float(run.metric)
        store.log(token, first_seq=1, rows=rows, metric=metric, summary=json.dumps(run.rows[-1]) if run.rows else None)
        if run.values:
            latest = [None if value is None else [value] for value in run.values]
            client.hset(store.keys.run(token.run_id), "values", json.dumps(latest))
        if run.stop:
            store.stop_run(token.run_id, reason=run.stop)
            client.hset(store.keys.run(token.run_id), "pruned", "1")
        if run.exit_code is not None:
            agent.end(run.exit_code)
    return sweep_id
