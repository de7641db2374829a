"""The gateway over HTTP: routes, keys, limits, and what becomes of errors.

The client tries again after 5xx, 409 and 429, and waits for it at its end; other errors are the last word. So what may
work later is 503, and what cannot is 4xx, an unknown operation above all: an empty answer would crash the client.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resweep_scheduler.gateway import account, agents, files, reads, runs, sweeps
from resweep_scheduler.gateway.access import Access, AccessError, Desk
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
PATIENCE = 60.0
"""Seconds in which a body must have arrived."""
MOST_UNKNOWN = 1000
"""Names of unknown operations that are remembered, to be logged once."""
LONGEST_NAME = 100
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

T = TypeVar("T")

OPERATIONS: dict[str, Handler] = {
    name: handler
    for group in (account, runs, sweeps, agents, files, reads)
    for name, handler in group.OPERATIONS.items()
}


def make_app(url: str, *, no_auth: bool = False, public_url: str = "", timeout: float = 5.0) -> Starlette:
    """The ASGI application over the store at `url`.

    Args:
        url: The address of Redis.
        no_auth: Without a key everything is allowed; for the loopback interface only.
        public_url: How clients reach the gateway, for the addresses of files; empty: as each request says.
        timeout: Seconds to wait for an answer of Redis.
    """
    client = connect(url, timeout=timeout)
    return app_of(Desk(client, url, no_auth, Credentials(client, url=url).secret(), public_url))


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

        def work(access: Access, body: bytes) -> Any:
            return {"data": self._operate(request, access, _json_object(body))}

        return await self._serve(request, lambda: self._access(request), work)

    async def file_stream(self, request: Request) -> Response:
        """What a run sends while it runs."""
        place = request.path_params

        def work(access: Access, body: bytes) -> Any:
            return file_stream(access, place["entity"], place["project"], place["run"], _json_object(body))

        return await self._serve(request, lambda: self._access(request), work)

    async def storage(self, request: Request) -> Response:
        """A file at a signed address."""
        place, query = request.path_params, dict(request.query_params)

        def check() -> None:
            files.check_address(self._desk, place, query, "put" if request.method == "PUT" else "get")

        def work(_: None, body: bytes) -> Any:
            if request.method == "PUT":
                return files.put_file(self._desk, place, query, body)
            return files.get_file(self._desk, place, query, None)

        return await self._serve(request, check, work, limit=MAX_FILE)

    async def get_file(self, request: Request) -> Response:
        """A file by its name, for who has a key."""

        def work(access: Access, _: bytes) -> Any:
            return files.get_file(self._desk, request.path_params, {}, access)

        return await self._serve(request, lambda: self._access(request), work)

    async def health(self, request: Request) -> Response:
        """200 while Redis answers, for load balancers."""

        def work(_: None, __: bytes) -> Any:
            Credentials(self._desk.client, url=self._desk.url).redis_time()
            return {"status": "ok"}

        return await self._serve(request, lambda: None, work)

    def _access(self, request: Request) -> Access:
        return self._desk.access(request.headers.get("authorization"))

    def _operate(self, request: Request, access: Access, body: dict[str, Any]) -> dict[str, Any]:
        text = body.get("query")
        name = operation_of(text) if isinstance(text, str) else ""
        variables = body.get("variables") or {}
        if not isinstance(variables, dict):
            raise GatewayError("`variables` of a GraphQL request is an object")
        handler = OPERATIONS.get(name)
        if handler is None:
            raise self._unknown_operation(name)
        base_url = self._desk.public_url or str(request.base_url)
        return handler(Call(name, str(text), variables, access, base_url.rstrip("/")))

    def _unknown_operation(self, name: str) -> GatewayError:
        name = name[:LONGEST_NAME]
        with self._lock:
            is_new = name not in self._unknown and len(self._unknown) < MOST_UNKNOWN
            if is_new:
                self._unknown.add(name)
        if is_new:
            _log.warning("unknown-operation name=%s: it is answered with an error, see docs/wandb.md", name or "(none)")
        return GatewayError(
            f"resweep's gateway does not know the operation {name!r}; see docs/wandb.md for what it does"
        )

    async def _serve(
        self, request: Request, check: Callable[[], T], work: Callable[[T, bytes], Any], *, limit: int = MAX_BODY
    ) -> Response:
        """Answer a request.

        Args:
            check: Whether who asks may send anything at all: nothing of a stranger's body is kept.
            work: Takes what `check` returned, and the body.
        """
        try:
            self._refuse_browsers(request)
            allowed = await run_in_threadpool(check)
            try:
                body = await _read(request, limit) if request.method in ("POST", "PUT") else b""
            except ClientDisconnect:
                return Response(status_code=400)  # nobody is there to read it
            # What a result becomes on the wire may be long, too, and others wait for this thread.
            answer = await run_in_threadpool(lambda: _encoded(work(allowed, body)))
        except Exception as error:
            status, message = _status_of(error)
            if status >= 500:
                _log.warning("request-failed path=%s status=%d: %s", request.url.path, status, message)
            if status == 500:
                _log.exception("unexpected")
            return JSONResponse({"errors": [{"message": message}], "data": None}, status_code=status)
        return answer

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
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                size += len(chunk)
                received += chunk if unpacker is None else unpacker.decompress(chunk, limit + 1 - len(received))
                if len(received) > limit or size > limit:
                    raise GatewayError(f"a body has at most {limit} bytes, unpacked too", 413)
    except zlib.error as error:
        raise GatewayError(f"the body is not what gzip writes: {error}") from None
    except TimeoutError:
        raise GatewayError(f"the body has not arrived in {PATIENCE:g} s; send it again", 503) from None
    if unpacker is not None and not unpacker.eof:
        raise GatewayError("the body ends before gzip's end")
    return bytes(received)


def _encoded(result: Any) -> Response:
    if isinstance(result, bytes):
        return Response(result, media_type="application/octet-stream")
    return Response(json.dumps(result or {}), media_type="application/json")


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
