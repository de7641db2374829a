"""Records of the store as JSON objects: what `--json` and `export` print.

Field names are stable; times are milliseconds since the epoch, durations seconds. JSON has no NaN and no infinity:
they are the texts "NaN", "Infinity" and "-Infinity".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resweep_scheduler.store.records import AgentRecord, Event, HistoryRow, Lease, Run, Sweep


def to_json(value: object, *, indent: int | None = 2) -> str:
    """Return `value` as JSON that every parser reads and every terminal can show, in ASCII."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: object) -> Any:
    """Return `value` with nothing in it that JSON does not know."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return str(value)


def run_object(run: Run) -> dict[str, Any]:
    """The object that stands for a run everywhere."""
    return {
        "id": run.run_id,
        "sweep": run.sweep_id,
        "index": run.index,
        "name": run.name,
        "state": run.state.value,
        "reason": run.reason,
        "attempt": run.attempt,
        "agent": run.agent,
        "params": run.params,
        "config": run.config,
        "step": run.step,
        "metric": run.metric,
        "values": run.values,
        "summary": run.summary,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "checkpoint": asdict(run.checkpoint) if run.checkpoint else None,
        "group": run.group,
        "tags": run.tags,
        "notes": run.notes,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "seconds": run.seconds,
        "stop": run.stop or None,
        "stopped_early": run.stopped,
    }


def sweep_object(sweep: Sweep) -> dict[str, Any]:
    """The object that stands for a sweep everywhere."""
    entity, _, project = sweep.scope.partition("/")
    return {
        "id": sweep.sweep_id,
        "name": sweep.name,
        "entity": entity,
        "project": project,
        "state": sweep.state.value,
        "reason": sweep.reason,
        "counts": {state.value: count for state, count in sweep.counts.items()},
        "queue": sweep.queue,
        "suggested": sweep.next_index,
        "metric": {"name": sweep.metric_name, "goal": sweep.metric_goal} if sweep.metric_name else None,
        "metrics": [{"name": name, "goal": goal} for name, goal in sweep.metrics],
        "lease_seconds": sweep.lease_ms / 1000,
        "heartbeat_seconds": sweep.heartbeat_ms / 1000,
        "created_at": sweep.created_at,
    }


def agent_object(agent: AgentRecord) -> dict[str, Any]:
    return {
        "agent": agent.agent,
        "run": agent.run_id,
        "host": agent.host,
        "pid": agent.pid,
        "waiting": agent.waiting,
        "last_seen": agent.last_seen,
    }


def lease_object(lease: Lease) -> dict[str, Any]:
    return {"run": lease.run_id, "remaining_seconds": lease.remaining_ms / 1000}


def event_object(event: Event) -> dict[str, Any]:
    return {
        "id": event.event_id,
        "at": event.at,
        "kind": event.kind,
        "run": event.run_id,
        "attempt": event.attempt,
        "agent": event.agent,
        "before": event.before or None,
        "after": event.after or None,
        "data": event.data,
    }


def row_object(row: HistoryRow) -> dict[str, Any]:
    """Columns of ours begin with an underscore, as W&B's do."""
    return {"_step": row.step, "_attempt": row.attempt, "_timestamp": row.at / 1000, **row.values}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one level, with the names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
