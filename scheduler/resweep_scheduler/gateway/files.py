"""Small files of runs: the client asks where to put them, and puts them there.

The addresses are signed: whoever has one needs no key, as with the storage of a cloud, because the client sends none.
"""

from __future__ import annotations

import fnmatch
import hmac
import mimetypes
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from resweep_scheduler.gateway.access import Access, AccessError, Desk, Standing
from resweep_scheduler.gateway.graphql import Call, GatewayError, Handler
from resweep_scheduler.store import Scope, Store, validate_run_id
from resweep_scheduler.store.credentials import sign
from resweep_scheduler.store.gateway import MAX_FILE, MAX_FILES, Seat

MOST_NAMES = 1000
"""Files in one question."""
LONGEST_NAME = 500
NOT_KEPT = ("output.log", "config.yaml", "wandb-summary.json")
"""Files that say what the store has already."""


def create_run_files(call: Call) -> dict[str, Any]:
    """CreateRunFiles: addresses to put files at."""
    store = call.store(write=True)
    run_id = validate_run_id(call.word("run"))
    seat = store.seat(run_id)
    if seat is None or call.access.standing(store, seat) is Standing.STALE:
        raise AccessError(f"run {run_id} of {store.scope} belongs to another attempt, which alone may save files", 403)
    names = call.variables.get("files") or []
    if not isinstance(names, list) or len(names) > MOST_NAMES:
        raise GatewayError(f"at most {MOST_NAMES} files are saved in one call")
    files = [{"name": name, "uploadUrl": _address(call, store, run_id, _checked(name), seat)} for name in names]
    return {"createRunFiles": {"runID": run_id, "uploadHeaders": [], "files": files}}


def check_address(desk: Desk, place: Mapping[str, str], query: Mapping[str, str], method: str) -> None:
    """Whether an address is one of ours, for "put" or "get".

    Raises:
        AccessError: It is not.
    """
    _opened(desk, place, query, method)


def put_file(desk: Desk, place: Mapping[str, str], query: Mapping[str, str], content: bytes) -> None:
    """Keep a file that was put at an address.

    Raises:
        AccessError: The address is not one of ours, or the run belongs to another client by now.
        GatewayError: The file is too large.
    """
    store, name = _opened(desk, place, query, "put")
    seat = store.seat(place["run"])
    if seat is None or _mark(seat) != query.get("by"):
        raise AccessError(f"run {place['run']} belongs to another attempt, which alone may save files", 403)
    if name in NOT_KEPT:
        return
    if not store.put_file(seat.run_id, name, content):
        raise GatewayError(
            f"files of a run have at most {MAX_FILE} bytes each and {MAX_FILES} together, {name} has {len(content)};"
            " save large files elsewhere",
            413,
        )


def get_file(desk: Desk, place: Mapping[str, str], query: Mapping[str, str], access: Access | None) -> bytes:
    """The content of a file.

    Raises:
        AccessError: Neither is the address one of ours, nor does the key allow it.
        GatewayError: There is no such file.
    """
    if access is not None:
        store, name = access.store(place["entity"], place["project"], write=False), place["name"]
        access.require_reader(store)
    else:
        store, name = _opened(desk, place, query, "get")
    content = store.get_file(validate_run_id(place["run"]), name)
    if content is None:
        raise GatewayError(f"run {place['run']} of {store.scope} has no file {name!r}", 404)
    return content


def run_files(call: Call) -> dict[str, Any]:
    """RunFiles: the files of a run, in one page."""
    store = call.store(write=False)
    call.access.require_reader(store)
    run_id = validate_run_id(call.word("name"))
    seat = store.seat(run_id)
    if seat is None:
        return {"project": {"run": None}}
    known = store.files(run_id)
    wanted, pattern = call.variables.get("fileNames") or [], call.optional("pattern")
    names = [
        name
        for name in known
        if (not wanted or name in wanted) and (pattern is None or fnmatch.fnmatch(name, pattern.replace("%", "*")))
    ]
    edges = [{"node": _node(call, store, seat, name, known[name]), "cursor": name} for name in names]
    page = {"endCursor": None, "hasNextPage": False}
    return {
        "project": {
            "internalId": 1,
            "run": {"fileCount": len(known), "files": {"edges": edges, "pageInfo": page}},
        }
    }


def _checked(name: object) -> str:
    """A name that stays in the folder into which somebody downloads it.

    Raises:
        GatewayError: It does not.
    """
    path = PurePosixPath(str(name))
    if not isinstance(name, str) or path.is_absolute() or ".." in path.parts or not 0 < len(name) <= LONGEST_NAME:
        raise GatewayError(
            f"a file of a run has a relative name of at most {LONGEST_NAME} characters without '..', got {name!r}"
        )
    return name


def _node(call: Call, store: Store, seat: Seat, name: str, size: int) -> dict[str, Any]:
    url = _address(call, store, seat.run_id, name, None)
    return {
        "id": name,
        "name": name,
        "url": url,
        "directUrl": url,
        "sizeBytes": size,
        "mimetype": mimetypes.guess_type(name)[0],
        "updatedAt": None,
        "md5": "1",  # unknown; 0 would say that there is no such file
    }


def _address(call: Call, store: Store, run_id: str, name: str, writer: Seat | None) -> str:
    """Where to put a file as this writer, or to get it from."""
    method, by = ("get", "") if writer is None else ("put", _mark(writer))
    signature = sign(call.access.desk.secret, method, str(store.scope), run_id, name, by)
    place = "/".join(quote(part, safe="") for part in (store.scope.entity, store.scope.project, run_id))
    return f"{call.base_url}/storage/{place}/{quote(name)}?by={by}&signature={signature}"


def _mark(seat: Seat) -> str:
    return f"{seat.token.attempt}.{seat.writer}"


def _opened(desk: Desk, place: Mapping[str, str], query: Mapping[str, str], method: str) -> tuple[Store, str]:
    scope = Scope(place["entity"], place["project"])
    right = sign(desk.secret, method, str(scope), place["run"], place["name"], query.get("by", ""))
    if not hmac.compare_digest(right.encode(), query.get("signature", "").encode()):
        raise AccessError("this address was not given out by this server; ask for the file again", 403)
    return desk.store(scope), place["name"]


OPERATIONS: dict[str, Handler] = {"CreateRunFiles": create_run_files, "RunFiles": run_files}
