"""A lean client of W&B's protocol: only the requests that the real one makes, without its processes and timers."""

from __future__ import annotations

import asyncio
import base64
import gzip
import http.client
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message


class Sender(Protocol):
    """Sends one request; returns status and body."""

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]: ...


class WireError(Exception):
    """The gateway answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Wire:
    """One client.

    Args:
        send: How requests travel: `asgi_sender` or `HttpSender`.
        key: Of the gateway; empty for none.
    """

    def __init__(self, send: Sender, key: str = "", *, entity: str = "local", project: str = "p") -> None:
        self._send = send
        self.entity = entity
        self.project = project
        credentials = base64.b64encode(f"api:{key}".encode()).decode()
        self._headers = {"host": "127.0.0.1", **({"authorization": f"Basic {credentials}"} if key else {})}

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Any:
        """Raises WireError for any answer but 200."""
        return self.request("POST", path, body, headers)

    def request(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Any:
        status, answer = self._send(method, path, {**self._headers, **(headers or {})}, body)
        if status != 200:
            raise WireError(status, json.loads(answer)["errors"][0]["message"])
        try:
            return json.loads(answer)
        except ValueError:
            return answer

    def graphql(self, operation: str, /, *, kind: str = "query", **variables: Any) -> dict[str, Any]:
        """One operation by its name."""
        text = f"{kind} {operation} {{ … }}"
        body = json.dumps({"query": text, "variables": variables}).encode()
        answer: dict[str, Any] = self.post("/graphql", body)["data"]
        return answer

    # Runs.

    def resume_status(self, run: str) -> dict[str, Any] | None:
        model = self.graphql("RunResumeStatus", entity=self.entity, project=self.project, name=run)["model"]
        bucket: dict[str, Any] | None = model and model["bucket"]
        return bucket

    def begin(self, run: str, *, config: Mapping[str, Any] | None = None, **variables: Any) -> LeanRun:
        """`wandb.init`, without `resume`."""
        bucket = self.upsert(run, host="host", program="train.py", config=config, **variables)
        return LeanRun(self, run, bucket)

    def resume(self, run: str, **variables: Any) -> LeanRun:
        """`wandb.init(resume="must")`."""
        known = self.resume_status(run)
        assert known is not None
        return LeanRun(self, run, self.upsert(run, host="host", program="train.py", id=known["id"], **variables), known)

    def upsert(self, run: str, *, config: Mapping[str, Any] | None = None, **variables: Any) -> dict[str, Any]:
        text = json.dumps({name: {"value": value} for name, value in (config or {}).items()})
        answer = self.graphql(
            "UpsertBucket",
            kind="mutation",
            name=run,
            entity=self.entity,
            project=self.project,
            config=text,
            **variables,
        )
        bucket: dict[str, Any] = answer["upsertBucket"]["bucket"]
        return bucket

    # Agents.

    def create_sweep(self, config: Mapping[str, Any]) -> str:
        answer = self.graphql(
            "UpsertSweep", kind="mutation", entityName=self.entity, projectName=self.project, config=json.dumps(config)
        )
        return str(answer["upsertSweep"]["sweep"]["name"])

    def create_agent(self, sweep: str, host: str = "host") -> str:
        answer = self.graphql(
            "CreateAgent", kind="mutation", host=host, entityName=self.entity, projectName=self.project, sweep=sweep
        )
        return str(answer["createAgent"]["agent"]["id"])

    def heartbeat(self, agent: str, *live: str) -> list[dict[str, Any]]:
        answer = self.graphql(
            "Heartbeat", kind="mutation", id=agent, metrics="{}", runState=json.dumps(dict.fromkeys(live, True))
        )
        commands: list[dict[str, Any]] = json.loads(answer["agentHeartbeat"]["commands"])
        return commands


class LeanRun:
    """A run that has begun. It counts its lines from where the server said, as the real client does."""

    def __init__(self, wire: Wire, run: str, bucket: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> None:
        self.wire = wire
        self.run = run
        self.bucket = bucket
        self.line = int(bucket["historyLineCount"])
        self.step = 0
        if known is not None and known["historyLineCount"]:
            self.step = int(json.loads(json.loads(known["historyTail"])[-1])["_step"]) + 1

    @property
    def path(self) -> str:
        return f"/files/{self.wire.entity}/{self.wire.project}/{self.run}/file_stream"

    def rows(self, *values: Mapping[str, Any]) -> dict[str, Any]:
        """The next rows as a body; the same body again is a retry."""
        lines = [json.dumps({"_step": self.step + index, **row}) for index, row in enumerate(values)]
        body = {"files": {"wandb-history.jsonl": {"offset": self.line, "content": lines}}}
        self.line += len(lines)
        self.step += len(lines)
        return body

    def log(self, *values: Mapping[str, Any]) -> dict[str, Any]:
        return self.send(self.rows(*values))

    def send(self, body: Mapping[str, Any], *, packed: bool = False) -> dict[str, Any]:
        data = json.dumps(body).encode()
        headers = {"content-encoding": "gzip"} if packed else {}
        answer: dict[str, Any] = self.wire.post(self.path, gzip.compress(data) if packed else data, headers)
        return answer

    def finish(self, code: int = 0, *, lines: Sequence[str] = ()) -> dict[str, Any]:
        """The last request; with `lines` of output it tells whose it is."""
        body: dict[str, Any] = {"complete": True, "exitcode": code}
        if lines:
            body["files"] = {"output.log": {"offset": int(self.bucket["logLineCount"]), "content": list(lines)}}
        return self.send(body)


class HttpSender:
    """Over one connection that is kept; for one thread."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._host = place.netloc
        self._connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        self._connection.request(method, path, body, {**headers, "host": self._host})
        with self._connection.getresponse() as response:
            return response.status, response.read()

    def close(self) -> None:
        self._connection.close()


def asgi_sender(app: ASGIApp) -> Sender:
    """Without a server: the application is called."""

    def send(method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        route, _, query = path.partition("?")
        messages = _call(
            app,
            {
                "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
                "path": unquote(route), "raw_path": route.encode(), "query_string": query.encode(),
                "scheme": "http", "root_path": "",
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
                "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
            },
            body,
        )  # fmt: skip
        return int(messages[0]["status"]), b"".join(message.get("body", b"") for message in messages[1:])

    return send


def _call(app: ASGIApp, scope: dict[str, Any], body: bytes) -> list[Message]:
    messages: list[Message] = []
    waiting = [body[start : start + 65536] for start in range(0, len(body), 65536)] or [b""]

    async def receive() -> Message:
        if not waiting:
            return {"type": "http.disconnect"}
        part = waiting.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(waiting)}

    async def send(message: Message) -> None:
        messages.append(message)

    async def call() -> None:
        await app(scope, receive, send)

    asyncio.run(call())
    return messages
