"""What `wandb.Api()` reads: runs, one by one or many, and their histories."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from resweep_scheduler.gateway.filters import choose, sort
from resweep_scheduler.gateway.graphql import Call, GatewayError, Handler
from resweep_scheduler.store import HistoryRow, Run, Store, UnknownRunError, list_sweeps, validate_run_id

MOST_RUNS = 1000
"""Runs in one page."""


def run_node(store: Store, run: Run) -> dict[str, Any]:
    """A run as `wandb.Api()` knows it, without its history."""
    config = {name: {"value": value} for name, value in run.config.items()}
    return {
        "id": run.run_id,
        "name": run.run_id,
        "displayName": run.name or run.run_id,
        "projectId": 1,
        "tags": list(run.tags),
        "sweepName": run.sweep_id,
        "state": run.state.value,
        "config": json.dumps(config),
        "group": run.group or None,
        "jobType": None,
        "commit": None,
        "readOnly": True,
        "createdAt": _time(run.created_at),
        "heartbeatAt": _time(run.ended_at or run.started_at or run.created_at),
        "description": None,
        "notes": run.notes or None,
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps({**run.summary, **({} if run.step is None else {"_step": run.step})}),
        "historyLineCount": 0 if run.step is None else run.step + 1,
        "exitcode": run.exit_code,
        "shouldStop": bool(run.stop),
        "stopped": run.stopped,
        "failed": run.state.value == "failed",
        "running": run.state.is_owned,
        "user": {"name": store.scope.entity, "username": store.scope.entity},
    }


def one_run(call: Call) -> dict[str, Any]:
    """Run, RunState: one run, None when there is none."""
    store, run = _find(call)
    if run is None:
        return {"project": {"run": None}}
    rows = _rows(call, store, run) if "historyKeys" in call.text else []
    return {"project": {"run": {**run_node(store, run), "historyKeys": _keys(rows)}}}


def many_runs(call: Call) -> dict[str, Any]:
    """Runs: those of a project that fit a filter, in some order, page by page.

    A cursor is how many runs came before, and the name of the listing that the first page has kept.
    """
    store = call.store(write=False)
    call.access.require_reader(store)
    begin, size, name = _page(call)
    listings, scope = call.access.desk.listings, str(store.scope)
    run_ids = listings.find(scope, name)
    if run_ids is None:
        chosen = {run.run_id: run for run in _chosen(call, store)}
        run_ids = list(chosen)
        name = listings.keep(scope, run_ids) if begin + size < len(run_ids) else ""
    else:
        chosen = {}
        # The oldest clients cannot go on from a page without runs, as when all of its runs were removed meanwhile.
        while begin < len(run_ids) and not (chosen := store.runs_by_id(run_ids[begin : begin + size])):
            begin += size
    end = begin + size
    edges = [
        {"node": {**run_node(store, chosen[run_id]), "historyKeys": None}, "cursor": f"{number}-{name}"}
        for number, run_id in enumerate(run_ids[begin:end], begin + 1)
        if run_id in chosen
    ]
    page = {"endCursor": f"{end}-{name}", "hasNextPage": end < len(run_ids)}
    return {
        "project": {
            "internalId": 1, "runCount": len(run_ids), "readOnly": True, "runs": {"edges": edges, "pageInfo": page},
        }
    }  # fmt: skip


def _page(call: Call) -> tuple[int, int, str]:
    """Where the page that a client asks for begins, how many runs it has, and the name of the listing."""
    place, _, name = (call.optional("cursor") or "0").partition("-")
    size = call.variables.get("perPage") or call.variables.get("first") or 50
    if not place.isdecimal() or not isinstance(size, int) or size < 1:
        raise GatewayError(
            f"a page has a cursor of the page before it and at least one run, got {place!r} and {size!r};"
            " start with the first page again"
        )
    return int(place), min(size, MOST_RUNS), name


def _chosen(call: Call, store: Store) -> list[Run]:
    """All runs that a client asks for, in the order that it wants."""
    try:
        filters = json.loads(call.optional("filters") or "{}")
    except (ValueError, RecursionError) as error:
        raise GatewayError(f"filters are JSON: {error}") from None
    runs = store.project_runs()
    desk = call.access.desk
    for sweep_id, scope in list_sweeps(desk.client, url=desk.url).items():
        if scope == store.scope:
            runs += store.runs(sweep_id)
    return sort(choose(runs, filters), call.optional("order") or "-created_at")


def history(call: Call) -> dict[str, Any]:
    """RunFullHistory, HistoryPage: rows as texts; system metrics are not kept."""
    store, run = _find(call)
    if run is None:
        return {"project": {"run": None}}
    rows = _rows(call, store, run)
    low, high = call.variables.get("minStep"), call.variables.get("maxStep")
    begin = 0 if low is None else bisect_left(rows, int(low), key=_step)
    end = len(rows) if high is None else bisect_left(rows, int(high), key=_step)
    samples = call.variables.get("samples")
    texts = [json.dumps(row) for row in _sample([_row(row) for row in rows[begin:end]], samples)]
    return {"project": {"run": {"history": texts, "events": []}}}


def sampled_history(call: Call) -> dict[str, Any]:
    """RunSampledHistory, SampledHistoryPage: for each spec the rows that have all of its keys."""
    store, run = _find(call)
    if run is None:
        return {"project": {"run": None}}
    rows = [_row(row) for row in _rows(call, store, run)]
    specs = call.variables.get("specs") or [call.variables.get("spec")]
    return {"project": {"run": {"sampledHistory": [_sampled(rows, json.loads(spec or "{}")) for spec in specs]}}}


def live_history(call: Call) -> dict[str, Any]:
    """RunParquetHistory: newer clients read old rows from files, of which there are none, and new ones as they are."""
    store, run = _find(call)
    if run is None:
        return {"project": {"run": None}}
    keys = call.variables.get("liveKeys") or []
    rows = [_row(row) for row in _rows(call, store, run)]
    live = [_strict(row) for row in rows if all(name in row for name in keys)]
    return {"project": {"run": {"parquetHistory": {"parquetUrls": [], "liveData": live}}}}


def history_keys(call: Call) -> dict[str, Any]:
    """RunHistoryKeys: what was logged, and up to which step."""
    store, run = _find(call)
    if run is None:
        return {"project": {"run": None}}
    return {"project": {"run": {"historyKeys": _keys(_rows(call, store, run))}}}


def _find(call: Call) -> tuple[Store, Run | None]:
    store = call.store(write=False)
    call.access.require_reader(store)
    run_id = validate_run_id(call.optional("run") or call.optional("runName") or call.word("name"))
    try:
        return store, store.run(run_id)
    except UnknownRunError:
        return store, None


def _rows(call: Call, store: Store, run: Run) -> Sequence[HistoryRow]:
    return call.access.desk.histories.rows(store, run.run_id)


def _step(row: HistoryRow) -> int:
    return row.step


def _row(row: HistoryRow) -> dict[str, Any]:
    return {"_step": row.step, "_timestamp": row.at / 1000, **row.values}


def _keys(rows: Sequence[HistoryRow]) -> dict[str, Any]:
    names = dict.fromkeys(name for row in rows for name in ("_step", *row.values))
    counts = {name: {"typeCounts": [{"type": "number", "count": len(rows)}]} for name in names}
    return {"lastStep": rows[-1].step if rows else -1, "sets": [], "keys": counts}


def _sampled(rows: Sequence[Mapping[str, Any]], spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    keys = spec.get("keys") or []
    low, high, samples = spec.get("minStep"), spec.get("maxStep"), spec.get("samples")
    if low is not None and high is not None and samples == int(high) - int(low) + 1:
        high = int(high) + 1  # newer clients name the last step that they want, older ones the first that they do not
    found = [
        {name: _strict(row[name]) for name in keys}
        for row in rows
        if all(name in row for name in keys)
        and (low is None or row["_step"] >= int(low))
        and (high is None or row["_step"] < int(high))
    ]
    return _sample(found, samples)


def _sample(rows: list[dict[str, Any]], samples: Any) -> list[dict[str, Any]]:
    """At most `samples` rows, evenly spread, the first and the last among them."""
    if not isinstance(samples, int) or samples <= 0 or len(rows) <= samples:
        return rows
    if samples == 1:
        return rows[-1:]
    return [rows[round(index * (len(rows) - 1) / (samples - 1))] for index in range(samples)]


def _strict(value: Any) -> Any:
    """A value without NaN and infinities, which JSON does not know; W&B sends their names."""
    if isinstance(value, Mapping):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_strict(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


OPERATIONS: dict[str, Handler] = {
    "Run": one_run,
    "RunState": one_run,
    "Runs": many_runs,
    "RunFullHistory": history,
    "HistoryPage": history,
    "RunSampledHistory": sampled_history,
    "SampledHistoryPage": sampled_history,
    "RunHistoryKeys": history_keys,
    "RunParquetHistory": live_history,
}
