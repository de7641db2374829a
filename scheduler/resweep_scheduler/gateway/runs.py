"""How a run begins, and what it says of itself.

One mutation of the protocol, UpsertBucket, means three things: a run begins, a run that was asked about before is
resumed, and something about a run has changed. They are told apart by what the client sends with it:

* our id of an asked run (from RunResumeStatus): it is resumed;
* our id of a run that has begun (from UpsertBucket): a change;
* neither host nor program (a client can be told to keep its host to itself): a change;
* else it begins; resumed if somebody asked about it a moment ago (the oldest clients resume like that).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from resweep_scheduler.gateway.access import AccessError, Standing
from resweep_scheduler.gateway.graphql import Call, GatewayError, Handler
from resweep_scheduler.gateway.writers import first_line
from resweep_scheduler.store import ClaimToken, Hold, Run, RunMeta, Store, UnknownRunError, validate_run_id
from resweep_scheduler.store.gateway import Seat, Writer
from resweep_scheduler.store.records import InitAnswer, InitOutcome

ASKED = 120_000
"""Milliseconds in which a beginning without an id belongs to the question before it, or to its own first try."""
_BEGUN = "run:"
_ASKED = "resume:"
_OURS = "_wandb"
"""The client's own part of a config: versions and telemetry."""


def resume_status(call: Call) -> dict[str, Any]:
    """RunResumeStatus: what there is to resume. A run "exists" once a script has begun it."""
    store = call.store(write=True)
    run_id = validate_run_id(call.word("name"))
    seat = store.seat(run_id)
    _refuse_stale(call, store, seat)
    if seat is None or not seat.initialised:
        return {"model": None}
    run = store.run(run_id)
    init = secrets.token_hex(8)
    store.note(run_id, "asked", f"{store.redis_time()} {init}")
    tail = store.last_row(run_id)
    last = {"_step": run.step, "_runtime": tail.get("_runtime", 0), "_timestamp": tail.get("_timestamp", 0)}
    # The client goes on at the later of this count and the step after the tail; where its lines go, UpsertBucket says.
    bucket = _bucket(store, run, _ASKED + init, 0 if run.step is None else 1)
    bucket |= {
        "historyTail": json.dumps([] if run.step is None else [json.dumps(last)]),
        "eventsTail": "[]",
        "wandbConfig": json.dumps({"t": {"resweep": 1}}),
    }
    project = store.scope.project
    return {
        "model": {"id": project, "name": project, "entity": {"id": store.scope.entity, "name": store.scope.entity},
                  "bucket": bucket}
    }  # fmt: skip


def upsert_bucket(call: Call) -> dict[str, Any]:
    """UpsertBucket: a run begins, or says something new."""
    store = call.store(write=True)
    run_id = validate_run_id(call.optional("name") or _new_id())
    seat = store.seat(run_id)
    _refuse_stale(call, store, seat)
    config, meta = _config_of(call.optional("config")), _meta_of(call.variables)
    given_id = call.optional("id") or ""
    resumes = given_id.startswith(_ASKED)
    describes = bool(call.optional("host") or call.optional("program"))
    if given_id.startswith(_BEGUN) or not (resumes or describes):
        if seat is None:
            raise GatewayError(f"no run {run_id!r} in {store.scope}; it was removed", 404)
        begun = given_id.removeprefix(_BEGUN)
        number = int(begun) if begun.isdigit() else seat.writer
        if number == seat.writer and seat.has_writer:
            _change(store, seat.token, config, meta)
        return _answer(store, run_id, Writer(Hold.OWNER, number), inserted=False)
    init = given_id.removeprefix(_ASKED) if resumes else _asked_before(store, seat)
    resume = "allow" if init else ""
    init = init or _init_of(call, store, seat)
    token = _token_in_sweep(call, store, seat)
    answer = store.init_run(
        run_id=run_id,
        resume=resume,
        nonce=token.nonce if token else init,
        attempt=token.attempt if token else None,
        config={} if token else config,
        meta=meta,
    )
    granted = _granted(answer, store, run_id)
    writer = store.open_writer(granted, init=init)
    if writer.hold not in (Hold.OWNER, Hold.ENDED):
        raise _taken_over(store, run_id)  # somebody else began it between the two calls
    if token is not None:
        # A second beginning in one attempt is answered as the first one was; what it says anew is said here.
        _change(store, granted, config, meta)
    return _answer(store, run_id, writer, inserted=answer.outcome is InitOutcome.NEW)


def _change(store: Store, token: ClaimToken, config: Mapping[str, Any], meta: RunMeta) -> None:
    """Store what a run says anew; what the sweep chose is not the script's to set."""
    params = store.run(token.run_id).params
    own = {name: value for name, value in config.items() if name not in params}
    store.update_config(token, config=own, meta=meta)


def run_stopped_status(call: Call) -> dict[str, Any]:
    """RunStoppedStatus, which clients up to 0.22 ask every 15 s."""
    store = call.store(write=False, entity="entityName", project="projectName")
    seat = store.seat(validate_run_id(call.word("runId")))
    stopped = seat is None or bool(seat.stop) or call.access.standing(store, seat) is Standing.STALE
    return {"project": {"run": {"stopped": stopped}}}


# -- who begins a run --------------------------------------------------------------------------------------------------


def _refuse_stale(call: Call, store: Store, seat: Seat | None) -> None:
    if call.access.standing(store, seat) is Standing.STALE:
        raise AccessError("another attempt has the run now; this process is of no further use and should end", 403)


def _token_in_sweep(call: Call, store: Store, seat: Seat | None) -> ClaimToken | None:
    """The claim under which a run of a sweep begins; None for a run outside sweeps, or one resumed by hand."""
    sweep_id = call.optional("sweep")
    if call.access.standing(store, seat) is Standing.OWNER and seat is not None:
        return seat.token
    if sweep_id is None:
        return None  # the store refuses it if an agent runs it now
    if seat is None or seat.sweep_id != sweep_id:
        raise GatewayError(
            f"WANDB_SWEEP_ID is for runs that an agent started, and sweep {sweep_id} has no such run in {store.scope};"
            f" unset it, or start `wandb agent {store.scope}/{sweep_id}`",
            403,
        )
    if not seat.is_owned and not seat.lapsed:
        raise GatewayError(
            f"run {seat.run_id} of sweep {sweep_id} is {seat.state} and in no agent's hands; this process is of no"
            " further use and should end",
            403,
        )
    return seat.token


def _asked_before(store: Store, seat: Seat | None) -> str:
    """The question that a beginning without an id belongs to; empty when there was none lately."""
    if seat is None or not seat.asked:
        return ""
    at, _, init = seat.asked.partition(" ")
    return init if store.redis_time() - int(at) <= ASKED else ""


def _init_of(call: Call, store: Store, seat: Seat | None) -> str:
    """A name for this beginning: the same when the client sends it again because it got no answer."""
    digest = hashlib.sha256(json.dumps(dict(call.variables), sort_keys=True).encode()).hexdigest()[:16]
    is_repeated = (
        seat is not None
        and seat.writer_init.startswith(digest)
        and seat.has_writer
        and seat.is_owned
        and seat.seq == seat.writer_seq
        and store.redis_time() - seat.heard_at <= ASKED
    )
    return seat.writer_init if is_repeated and seat is not None else f"{digest}{secrets.token_hex(4)}"


def _granted(answer: InitAnswer, store: Store, run_id: str) -> ClaimToken:
    if answer.token is not None:
        return answer.token
    if answer.outcome is InitOutcome.HELD:
        raise GatewayError(
            f"run {run_id} belongs to a sweep, and an agent runs it now; wait until it has ended, or give another id",
            403,
        )
    raise _taken_over(store, run_id)


def _taken_over(store: Store, run_id: str) -> GatewayError:
    return GatewayError(
        f"run {run_id} of {store.scope} was taken over by another attempt; this process is of no further use and should"
        " end",
        403,
    )


# -- what is said of a run ---------------------------------------------------------------------------------------------


def _answer(store: Store, run_id: str, writer: Writer, *, inserted: bool) -> dict[str, Any]:
    try:
        run = store.run(run_id)
    except UnknownRunError as error:
        raise GatewayError(str(error), 404) from None
    lines = first_line(writer.number)
    return {"upsertBucket": {"bucket": _bucket(store, run, f"{_BEGUN}{writer.number}", lines), "inserted": inserted}}


def _bucket(store: Store, run: Run, bucket_id: str, lines: int) -> dict[str, Any]:
    project = {
        "id": store.scope.project,
        "name": store.scope.project,
        "entity": {"id": store.scope.entity, "name": store.scope.entity},
    }
    return {
        "id": bucket_id,
        "name": run.run_id,
        "displayName": run.name or run.run_id,
        "description": None,
        "sweepName": run.sweep_id,
        "project": project,
        "config": wire_config(run.config),
        "summaryMetrics": json.dumps(dict(run.summary)),
        "historyLineCount": lines,
        "eventsLineCount": lines,
        "logLineCount": lines,
        "tags": list(run.tags),
        "notes": run.notes or None,
        "state": run.state.value,
        "stopped": bool(run.stop),
    }


def wire_config(config: Mapping[str, Any]) -> str:
    """A config as W&B sends it."""
    return json.dumps({name: {"value": value} for name, value in config.items()})


def _config_of(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
        items = {name: item["value"] for name, item in found.items() if isinstance(item, dict) and "value" in item}
    except (ValueError, AttributeError) as error:
        raise GatewayError(f'a config is JSON of the form {{"name": {{"value": …}}}}: {error}') from None
    items.pop(_OURS, None)
    return items


def _meta_of(variables: Mapping[str, Any]) -> RunMeta:
    tags = variables.get("tags")
    return RunMeta(
        name=variables.get("displayName") or None,
        group=variables.get("groupName") or None,
        notes=variables.get("notes"),
        # Old clients send an empty list when they resume a run without naming tags: it keeps those it has.
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) and tags else None,
    )


def _new_id() -> str:
    from resweep_scheduler.store import new_id

    return new_id()


OPERATIONS: dict[str, Handler] = {
    "RunResumeStatus": resume_status,
    "UpsertBucket": upsert_bucket,
    "RunStoppedStatus": run_stopped_status,
}
