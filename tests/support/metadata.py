"""Metadata services of clouds as they are when they tell of preemption, at an address that a test gives them.

Their behaviour is that of the documentation that resweep_agent/notices names. A service can also misbehave: the
addresses of the clouds lead to other things on other machines.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

Mood = Literal["right", "forbidden", "silent", "garbage", "endless", "broken"]
"""How a service answers: as documented; 403; never; with other text; with too much text; with an error."""

LINK_LOCAL = "169.254.169.254"
ALIBABA_ADDRESS = "100.100.100.200"
_CLONE_NEWNET = 0x40000000  # sched.h


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asked for; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What it is answered."""

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class FakeCloud(ABC):
    """A cloud without news, until a test says otherwise.

    Attributes:
        mood: How it answers from now on.
        broken_status: What it answers while it is broken.
        spot: Whether the machine is one that may be taken away.
        clock_error: Seconds by which the machine's clock is ahead of the service's.
        asked: All requests so far.
    """

    host = LINK_LOCAL

    def __init__(self) -> None:
        self.mood: Mood = "right"
        self.broken_status = 503
        self.spot = True
        self.clock_error = 0.0
        self.asked: list[Request] = []
        self.ends_at: float | None = None
        self.closing = threading.Event()

    def raise_notice(self, seconds: float) -> None:
        """The machine goes in so many seconds."""
        self.ends_at = time.time() - self.clock_error + seconds

    def paths(self) -> list[str]:
        """What was asked for, without the queries."""
        return [request.path for request in self.asked]

    @abstractmethod
    def answer(self, request: Request) -> Reply:
        """As the documentation has it."""


class FakeAws(FakeCloud):
    """EC2's service, with IMDSv2 alone.

    Attributes:
        action: What will be done with the machine.
        rebalance: Whether a rebalance recommendation stands.
    """

    def __init__(self) -> None:
        super().__init__()
        self.action = "terminate"
        self.rebalance = False
        self._tokens: set[str] = set()

    def expire_tokens(self) -> None:
        """All tokens so far are worth nothing."""
        self._tokens.clear()

    def answer(self, request: Request) -> Reply:
        if request.path == "/latest/api/token":
            life = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            if request.method != "PUT" or not life.isdigit() or not 1 <= int(life) <= 21600:
                return Reply(400)
            token = secrets.token_urlsafe(40)
            self._tokens.add(token)
            return Reply(200, token)
        if request.headers.get("x-aws-ec2-metadata-token") not in self._tokens:
            return Reply(401)
        values = {"instance-life-cycle": "spot" if self.spot else "on-demand"}
        if self.ends_at is not None:
            values["spot/instance-action"] = json.dumps({"action": self.action, "time": _iso(self.ends_at)})
        if self.rebalance:
            values["events/recommendations/rebalance"] = json.dumps({"noticeTime": _iso(time.time())})
        value = values.get(request.path.removeprefix("/latest/meta-data/"))
        return Reply(404) if value is None else Reply(200, value)


class FakeGcp(FakeCloud):
    """Compute Engine's server.

    Attributes:
        maintenance: The maintenance event.
    """

    maintenance = "NONE"

    def answer(self, request: Request) -> Reply:
        if request.headers.get("metadata-flavor") != "Google":
            return Reply(403)
        reply = self._value(request.path)
        if request.query.get("wait_for_change") == "true":
            until = time.monotonic() + float(request.query.get("timeout_sec", 3600))
            last = request.query.get("last_etag", reply.headers.get("ETag"))
            while reply.headers.get("ETag") == last and time.monotonic() < until and not self.closing.wait(0.01):
                reply = self._value(request.path)
        return reply

    def _value(self, path: str) -> Reply:
        values = {
            "preempted": "FALSE" if self.ends_at is None else "TRUE",
            "scheduling/preemptible": "TRUE" if self.spot else "FALSE",
            "maintenance-event": self.maintenance,
        }
        value = values.get(path.removeprefix("/computeMetadata/v1/instance/"))
        flavor = {"Metadata-Flavor": "Google"}
        if value is None:
            return Reply(404, headers=flavor)
        return Reply(200, value, {**flavor, "ETag": f"{value.encode().hex():0>16}"[-16:]})


class FakeAzure(FakeCloud):
    """Azure's service.

    Attributes:
        machine: The name of this VM.
        event: What is said besides of the event that is scheduled.
        acknowledged: Ids of the events that were told to begin.
    """

    machine = "vm_0"

    def __init__(self) -> None:
        super().__init__()
        self.event: dict[str, Any] = {}
        self.acknowledged: list[str] = []

    def answer(self, request: Request) -> Reply:
        if request.headers.get("metadata", "").lower() != "true" or "api-version" not in request.query:
            return Reply(400)
        if request.path == "/metadata/instance/compute":
            return Reply(200, json.dumps({"name": self.machine, "priority": "Spot" if self.spot else "Regular"}))
        if request.path != "/metadata/scheduledevents":
            return Reply(404)
        if request.method == "POST":
            started = json.loads(request.body)["StartRequests"]
            self.acknowledged += [one["EventId"] for one in started]
            return Reply(200)
        if self.ends_at is None:
            return Reply(200, json.dumps({"DocumentIncarnation": 1, "Events": []}))
        event = {
            "EventId": "E-1",
            "EventType": "Preempt",
            "ResourceType": "VirtualMachine",
            "Resources": [self.machine],
            "EventStatus": "Scheduled",
            "NotBefore": formatdate(self.ends_at, usegmt=True),
            "DurationInSeconds": -1,
            **self.event,
        }
        return Reply(200, json.dumps({"DocumentIncarnation": 2, "Events": [event]}))


class FakeAlibaba(FakeCloud):
    """Alibaba Cloud's service.

    Attributes:
        hardened: It wants a token.
    """

    host = ALIBABA_ADDRESS
    hardened = False

    def answer(self, request: Request) -> Reply:
        if request.path == "/latest/api/token":
            has_life = "x-aliyun-ecs-metadata-token-ttl-seconds" in request.headers
            return Reply(200, "token") if request.method == "PUT" and has_life else Reply(404)
        if self.hardened and request.headers.get("x-aliyun-ecs-metadata-token") != "token":
            return Reply(403)
        values = {"instance-id": "i-2ze0abcdefghij"}
        if self.ends_at is not None:
            values["instance/spot/termination-time"] = _iso(self.ends_at)
        value = values.get(request.path.removeprefix("/latest/meta-data/"))
        return Reply(404) if value is None else Reply(200, value)


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, cloud: FakeCloud) -> None:
        super().__init__(listener.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.cloud = cloud

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no matter of ours."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        cloud, parts = self.server.cloud, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, query, headers, body)
        cloud.asked.append(request)
        match cloud.mood:
            case "right":
                self._send(cloud.answer(request))
            case "forbidden":
                self._send(Reply(403, "go away"))
            case "broken":
                self._send(Reply(cloud.broken_status))
            case "garbage":
                self._send(Reply(200, "<html>welcome to the guest network</html>"))
            case "endless":
                self._send(Reply(200, "x" * 1_000_000))
            case "silent":
                cloud.closing.wait(60)

    do_PUT = do_POST = do_GET  # noqa: N815

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() - self.server.cloud.clock_error, usegmt=True)

    def _send(self, reply: Reply) -> None:
        data = reply.text.encode()
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(data)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Silence."""


@contextmanager
def serving(cloud: FakeCloud, listener: socket.socket | None = None) -> Iterator[str]:
    """The cloud's service, on a free port of loopback or where `listener` listens; gives `host:port`."""
    listener = listener or socket.create_server(("127.0.0.1", 0))
    with _Server(listener, cloud) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"{listener.getsockname()[0]}:{listener.getsockname()[1]}"
        finally:
            cloud.closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def serving_inside(cloud: FakeCloud, namespace: str) -> Iterator[None]:
    """The cloud's service at its real address and port in a network namespace (`ip netns`), served by this process."""
    command = ["ip", "-n", namespace, "addr", "add", f"{cloud.host}/32", "dev", "lo"]
    subprocess.run(command, check=True, timeout=20)
    with serving(cloud, _listener_inside(namespace, cloud.host)):
        yield


def _listener_inside(namespace: str, host: str) -> socket.socket:
    """A socket that listens in a namespace: a socket stays where the thread was that made it."""
    made: list[socket.socket] = []
    failed: list[Exception] = []

    def make() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{namespace}", "rb") as place:
                if libc.setns(place.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            made.append(socket.create_server((host, 80)))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]
