"""The gateway over HTTP: routes, keys, limits, and what becomes of errors.

The client tries again after 5xx, 409 and 429, and waits for it at its end; other errors are the last word. So what may
work later is 503, and what cannot is 4xx, an unknown operation above all: an empty answer would crash the client.
"""

from __future__ import annotations

import json
import logging
import threading
import zlib
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resweep_scheduler.gateway import account, agents, files, reads, runs, sweeps
from resweep_scheduler.gateway.access import AccessError, Desk
from resweep_scheduler.gateway.graphql import Call, GatewayError, Handler, operation_of
from resweep_scheduler.gateway.stream import file_stream
from resweep_scheduler.store import (
    IllegalTransitionError,
    InvalidNameError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    UnknownRunError,
    UnknownSweepError,
    connect,
)
from resweep_scheduler.store.credentials import Credentials
from resweep_scheduler.store.gateway import MAX_FILE

_log = logging.getLogger(__name__)

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a request's body, before and after it is unpacked."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

OPERATIONS: dict[str, Handler] = {
    name: handler
    for group in (account, runs, sweeps, agents, files, reads)
    for name, handler in group.OPERATIONS.items()
}


def make_app(url: str, *, no_auth: bool = False, timeout: float = 5.0) -> Starlette:
    """The ASGI application over the store at `url`.

    Args:
        url: The address of Redis.
        no_auth: Without a key everything is allowed; for the loopback interface only.
        timeout: Seconds to wait for an answer of Redis.
    """
    client = connect(url, timeout=timeout)
    return app_of(Desk(client, url, no_auth, Credentials(client, url=url).secret()))


def app_of(desk: Desk) -> Starlette:
    """The ASGI application with what its requests share."""
    gateway = Gateway(desk)
    return Starlette(
        routes=[
            Route("/graphql", gateway.graphql, methods=["POST"]),
            Route("/files/{entity}/{project}/{run}/file_stream", gateway.file_stream, methods=["POST"]),
            Route("/files/{entity}/{project}/{run}/{name:path}", gateway.get_file, methods=["GET"]),
            Route("/storage/{entity}/{project}/{run}/{name:path}", gateway.storage, methods=["PUT", "GET"]),
            Route("/healthz", gateway.health, methods=["GET"]),
        ],
        exception_handlers={404: _not_found},
    )


class Gateway:
    """The routes. Their work is done in threads, because the store's client blocks."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._unknown: set[str] = set()
        self._lock = threading.Lock()

    async def graphql(self, request: Request) -> Response:
        """One operation."""

        def work(body: bytes) -> Any:
            return {"data": self._operate(request, _json_object(body))}

        return await self._serve(request, work)

    async def file_stream(self, request: Request) -> Response:
        """What a run sends while it runs."""
        place = request.path_params

        def work(body: bytes) -> Any:
            access = self._desk.access(request.headers.get("authorization"))
            return file_stream(access, place["entity"], place["project"], place["run"], _json_object(body))

        return await self._serve(request, work)

    async def storage(self, request: Request) -> Response:
        """A file at a signed address."""

        def work(body: bytes) -> Any:
            query = dict(request.query_params)
            if request.method == "GET":
                return files.get_file(self._desk, request.path_params, query, None)
            return files.put_file(self._desk, request.path_params, query, body)

        return await self._serve(request, work, limit=MAX_FILE)

    async def get_file(self, request: Request) -> Response:
        """A file by its name, for who has a key."""

        def work(body: bytes) -> Any:
            access = self._desk.access(request.headers.get("authorization"))
            return files.get_file(self._desk, request.path_params, {}, access)

        return await self._serve(request, work)

    async def health(self, request: Request) -> Response:
        """200 while Redis answers, for load balancers."""

        def work(body: bytes) -> Any:
            Credentials(self._desk.client, url=self._desk.url).redis_time()
            return {"status": "ok"}

        return await self._serve(request, work)

    def _operate(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        text = body.get("query")
        name = operation_of(text) if isinstance(text, str) else ""
        variables = body.get("variables") or {}
        if not isinstance(variables, dict):
            raise GatewayError("`variables` of a GraphQL request is an object")
        access = self._desk.access(request.headers.get("authorization"))
        handler = OPERATIONS.get(name)
        if handler is None:
            raise self._unknown_operation(name)
        return handler(Call(name, str(text), variables, access, str(request.base_url).rstrip("/")))

    def _unknown_operation(self, name: str) -> GatewayError:
        with self._lock:
            is_new = name not in self._unknown and len(self._unknown) < 1000
            self._unknown.add(name)
        if is_new:
            _log.warning("unknown-operation name=%s: it is answered with an error, see docs/wandb.md", name or "(none)")
        return GatewayError(
            f"resweep's gateway does not know the operation {name!r}; see docs/wandb.md for what it does"
        )

    async def _serve(self, request: Request, work: Callable[[bytes], Any], *, limit: int = MAX_BODY) -> Response:
        try:
            self._refuse_browsers(request)
            try:
                body = await _read(request, limit)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            result = await run_in_threadpool(work, body)
        except Exception as error:
            status, message = _status_of(error)
            if status >= 500:
                _log.warning("request-failed path=%s status=%d: %s", request.url.path, status, message)
            if status == 500:
                _log.exception("unexpected")
            return JSONResponse({"errors": [{"message": message}], "data": None}, status_code=status)
        if isinstance(result, bytes):
            return Response(result, media_type="application/octet-stream")
        return Response(json.dumps(result or {}), media_type="application/json")

    def _refuse_browsers(self, request: Request) -> None:
        """Where no key is asked for, a web page that somebody looks at must not reach us, by whatever name."""
        if not self._desk.no_auth:
            return
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if host not in LOOPBACK or "origin" in request.headers:
            raise AccessError("without keys only programs of this machine are served, as http://127.0.0.1", 403)


async def _read(request: Request, limit: int) -> bytes:
    """The body, unpacked; at most `limit` bytes of it are ever held."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in ("identity", "gzip"):
        raise GatewayError(f"a body comes as it is or by gzip, not by {encoding!r}", 415)
    unpacker = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
    received, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        try:
            received += chunk if unpacker is None else unpacker.decompress(chunk, limit + 1 - len(received))
        except zlib.error as error:
            raise GatewayError(f"the body is not what gzip writes: {error}") from None
        if len(received) > limit or size > limit:
            raise GatewayError(f"a body has at most {limit} bytes, unpacked too", 413)
    if unpacker is not None and not unpacker.eof:
        raise GatewayError("the body ends before gzip's end")
    return bytes(received)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise GatewayError(f"a body is JSON: {error}") from None
    if not isinstance(found, dict):
        raise GatewayError("a body is a JSON object")
    return found


def _status_of(error: Exception) -> tuple[int, str]:
    match error:
        case GatewayError() | AccessError():
            return error.status, str(error)
        case UnknownSweepError() | UnknownRunError():
            return 404, str(error)
        case InvalidNameError() | IllegalTransitionError():
            return 400, str(error)
        case StoreUnavailableError() | StoreRefusedError():
            return 503, str(error)
        case StoreError():
            return 400, str(error)
        case _:
            return 500, f"{type(error).__name__} in the gateway; see its log"


async def _not_found(request: Request, error: Exception) -> Response:
    message = f"resweep's gateway has nothing at {request.url.path}"
    return JSONResponse({"errors": [{"message": message}], "data": None}, status_code=404)
