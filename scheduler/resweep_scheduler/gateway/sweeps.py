"""Sweeps: created by `wandb.sweep` and `wandb sweep`, looked at, paused, resumed, stopped, canceled."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from resweep_scheduler.config import ConfigError, SweepConfig, load_sweep
from resweep_scheduler.creation import sweep_settings
from resweep_scheduler.gateway.graphql import Call, GatewayError, Handler
from resweep_scheduler.gateway.reads import run_node
from resweep_scheduler.store import Scope, Sweep, SweepCommand, UnknownSweepError, find_sweep, new_id, validate_sweep_id

_COMMANDS = {
    "PAUSED": SweepCommand.PAUSE,
    "RUNNING": SweepCommand.RESUME,
    "FINISHED": SweepCommand.STOP,
    "CANCELED": SweepCommand.CANCEL,
}


def upsert_sweep(call: Call) -> dict[str, Any]:
    """UpsertSweep: a new sweep, or a command to one."""
    call.access.require_person()
    sweep_id = call.optional("id")
    return _create(call) if sweep_id is None else _command(call, validate_sweep_id(sweep_id))


def _create(call: Call) -> dict[str, Any]:
    if call.optional("priorRunsFilters") is not None:
        raise GatewayError("prior runs are not taken from `wandb sweep`; use `resweep create FILE --prior-run RUN`")
    text = call.word("config")
    try:
        config = load_sweep("the sweep's config", text=text, require_program=False)
    except ConfigError as error:
        raise GatewayError(str(error)) from None
    entity = call.optional("entityName") or config.entity
    store = call.access.store(entity, call.optional("projectName") or config.project, write=True)
    if name := call.optional("displayName"):
        config = config.model_copy(update={"name": name})
    sweep_id = new_id()
    store.create_sweep(
        sweep_id=sweep_id,
        nonce=secrets.token_hex(8),
        config_text=text,
        config_json=config.to_json(),
        settings=sweep_settings(config),
    )
    return _upserted(store.scope, sweep_id, list(config.warnings))


def _command(call: Call, sweep_id: str) -> dict[str, Any]:
    state = call.optional("state")
    if state not in _COMMANDS:
        raise GatewayError(
            f"a sweep's config stays as it was created, and {sweep_id} exists; create another sweep (only its state can"
            f" be set, to {', '.join(_COMMANDS)})"
        )
    scope = find_sweep(call.access.desk.client, sweep_id, url=call.access.desk.url)
    store = call.access.store(scope.entity, scope.project, write=True)
    store.command_sweep(sweep_id, _COMMANDS[state])
    return _upserted(scope, sweep_id, [])


def _upserted(scope: Scope, sweep_id: str, warnings: list[str]) -> dict[str, Any]:
    project = {"id": scope.project, "name": scope.project, "entity": {"id": scope.entity, "name": scope.entity}}
    return {
        "upsertSweep": {
            "sweep": {"id": sweep_id, "name": sweep_id, "project": project},
            "configValidationWarnings": warnings,
        }
    }


def get_sweep(call: Call) -> dict[str, Any]:
    """GetSweep and its older names, and SweepWithRuns, which agents ask and `wandb sweep --stop` and the like."""
    store = call.store(write=False)
    call.access.require_reader(store)
    sweep_id = validate_sweep_id(call.optional("sweep") or call.word("name"))
    try:
        sweep = store.sweep(sweep_id)
    except UnknownSweepError:
        return {"project": {"sweep": None}}
    node = _sweep_node(sweep)
    if call.name == "SweepWithRuns" and call.optional("specs") not in (None, "{}"):
        node["runs"] = {"edges": [{"node": run_node(store, run)} for run in store.runs(sweep_id)]}
    return {"project": {"sweep": node}}


def get_sweeps(call: Call) -> dict[str, Any]:
    """GetSweeps: the sweeps of a project, in one page."""
    from resweep_scheduler.store import list_sweeps

    store = call.store(write=False)
    call.access.require_reader(store)
    desk = call.access.desk
    ids = [sweep_id for sweep_id, scope in list_sweeps(desk.client, url=desk.url).items() if scope == store.scope]
    edges = [{"node": _sweep_node(store.sweep(sweep_id)), "cursor": sweep_id} for sweep_id in ids]
    page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
    return {
        "project": {"totalSweeps": len(edges), "sweeps": {"totalCount": len(edges), "edges": edges, "pageInfo": page}}
    }


def _sweep_node(sweep: Sweep) -> dict[str, Any]:
    config = SweepConfig.from_json(sweep.config_json)
    created = datetime.fromtimestamp(sweep.created_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return {
        "__typename": "Sweep",
        "id": sweep.sweep_id,
        "name": sweep.sweep_id,
        "displayName": sweep.name or None,
        "method": config.method,
        "state": sweep.state.value.upper(),
        "description": config.description,
        "config": sweep.config_text or sweep.config_json,
        "createdAt": created,
        "updatedAt": None,
        "heartbeatAt": None,
        "earlyStopJobRunning": False,
        "bestLoss": None,
        "controller": None,
        "scheduler": None,
        "runCount": sweep.next_index,
        "runCountExpected": _expected(config),
        "runs": {"edges": []},
    }


def _expected(config: SweepConfig) -> int | None:
    """How many runs the sweep will make; None when nobody knows."""
    from resweep_scheduler.search import create_search

    size = create_search(config).size if config.method == "grid" else None
    limits = [limit for limit in (size, config.run_cap) if limit is not None]
    return min(limits, default=None)


OPERATIONS: dict[str, Handler] = {
    "UpsertSweep": upsert_sweep,
    "SweepWithRuns": get_sweep,
    "GetSweep": get_sweep,
    "GetSweepLegacy": get_sweep,
    "GetSweepState": get_sweep,
    "Sweep": get_sweep,
    "GetSweeps": get_sweeps,
}
