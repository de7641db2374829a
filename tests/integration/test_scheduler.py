"""`resweep scheduler` as a process on a real server: suggestions, background jobs, webhooks, retention.

And that nothing in Redis makes it call anything else.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from support.desk import Desk, desk_in
from support.servers import Server, cluster_servers
from support.sweeps import Story
from support.waiting import wait_until

from resweep_scheduler.service.queue import QUEUE, enqueue, queue_client
from resweep_scheduler.service.scheduler import Scheduler, SchedulerOptions
from resweep_scheduler.store import Scope, Store

PATIENCE = 60.0


class Service:
    """A `resweep scheduler` process."""

    def __init__(self, desk: Desk, *words: str) -> None:
        self.log = desk.folder / f"scheduler-{os.urandom(3).hex()}.log"
        command = [str(Path(sys.executable).with_name("resweep")), "scheduler", *words]
        with self.log.open("ab") as sink:
            self.process = subprocess.Popen(
                command, cwd=desk.folder, env=desk.environment, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, happened: Any, description: str) -> None:
        try:
            wait_until(happened, timeout=PATIENCE, interval=0.1, description=description)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.printed()}") from None


@contextmanager
def running(desk: Desk, *words: str) -> Iterator[Service]:
    service = Service(desk, *words)
    try:
        service.wait_for(lambda: "looks after" in service.printed(), "the scheduler")
        yield service
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(20) == 0, service.printed()
    finally:
        service.process.kill()
        service.process.wait(10)


@pytest.fixture
def desk(tmp_path: Path, shared_server: Server) -> Iterator[Desk]:
    queue_client.cache_clear()
    with desk_in(tmp_path / "desk", shared_server.url) as made:
        yield made


@pytest.fixture
def story(shared_server: Server) -> Story:
    told = Story(shared_server.url)
    told.finish(0.5)
    told.fail()
    return told


def test_exports_and_removals_are_done_in_the_background(desk: Desk, story: Story) -> None:
    asked = desk.resweep("export", story.sweep_id, "--format", "csv", "--background").err
    assert "No scheduler is running" in asked
    with running(desk, "--export-dir", "out") as service:
        path = desk.folder / "out" / f"{story.sweep_id}-runs.csv"
        service.wait_for(path.exists, "the export")
        assert path.read_text() == desk.resweep("export", story.sweep_id, "--format", "csv").out
        assert "No scheduler" not in desk.resweep("rm", "-y", story.sweep_id, "--background").err
        service.wait_for(lambda: story.sweep_id not in desk.resweep("ls").out, "the removal")


def test_burst_does_what_is_due_and_ends(desk: Desk, story: Story) -> None:
    desk.resweep("rm", "-y", story.sweep_id, "--background")
    desk.resweep("scheduler", "--burst")
    assert story.sweep_id not in desk.resweep("ls").out
    client = queue_client(desk.url)
    assert Queue(QUEUE, connection=client, serializer=JSONSerializer).count == 0
    assert [key for key in client.scan_iter() if key.startswith(b"rq:job:")] == []


def test_sweeps_that_have_been_over_for_long_are_removed(desk: Desk, story: Story) -> None:
    other = Story(desk.url)
    other.finish(0.1)
    desk.resweep("stop", story.sweep_id)
    with running(desk, "--keep-finished", "0") as service:
        service.wait_for(lambda: story.sweep_id not in desk.resweep("ls").out, "the removal of what is over")
        assert other.sweep_id in desk.resweep("ls").out


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        bodies: list[dict[str, Any]] = self.server.bodies  # type: ignore[attr-defined]
        bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.bodies = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_webhooks_of_the_config_are_called_whatever_dies(desk: Desk, receiver: ThreadingHTTPServer) -> None:
    bodies: list[dict[str, Any]] = receiver.bodies  # type: ignore[attr-defined]
    hook = f"http://127.0.0.1:{receiver.server_port}/hook"
    story = Story(
        desk.url,
        "program: train.py\nmethod: grid\nparameters: {lr: {values: [0.1, 0.2, 0.3, 0.4]}}\n"
        f"webhooks: [{{url: '{hook}', events: [finished, failed, preempted]}}]\n",
    )
    first = [story.finish(0.5), story.fail()]
    service = Service(desk)
    service.wait_for(lambda: len(bodies) >= 2, "two calls")
    service.process.kill()
    service.process.wait(10)
    first.append(story.preempt())
    with running(desk) as service:
        service.wait_for(lambda: len({body["id"] for body in bodies}) == 3, "three events")
    events = {body["id"]: (body["event"], body["run"]) for body in bodies}
    assert sorted(events.values()) == sorted(zip(["finished", "failed", "preempted"], first, strict=True))


def test_burst_makes_all_deliveries_that_are_due(desk: Desk, receiver: ThreadingHTTPServer) -> None:
    """Also when one job does not make them all, and when one look does not take in all events."""
    hook = f"http://127.0.0.1:{receiver.server_port}/hook"
    story = Story(
        desk.url,
        "program: train.py\nmethod: random\nparameters: {lr: {min: 0.0, max: 1.0}}\n"
        f"webhooks: [{{url: '{hook}', events: [finished, failed]}}]\n",
    )
    ended = [story.finish(0.5) for _ in range(170)] + [story.fail()]
    assert len(story.store.events(story.sweep_id)) > 500
    desk.resweep("scheduler", "--burst")
    assert [body["run"] for body in receiver.bodies] == ended  # type: ignore[attr-defined]


def hostile_job(desk: Desk, **fields: Any) -> str:
    """A job that somebody with write access to Redis made; returns its id."""
    client = queue_client(desk.url)
    queue = Queue(QUEUE, connection=client, serializer=JSONSerializer)
    job_id = f"hostile-{os.urandom(4).hex()}"
    Job.create("suggest", args=("s",), id=job_id, connection=client, origin=QUEUE, serializer=JSONSerializer).save()
    for name, value in fields.items():
        client.hset(f"rq:job:{job_id}", name, value)
    client.rpush(queue.key, job_id)
    return job_id


@pytest.mark.parametrize(
    "call",
    [
        ["os.system", None, ["touch proof"], {}],
        ["builtins.exec", None, ["open('proof','w')"], {}],
        ["suggest", None, [["not a text"]], {}],
        ["suggest", None, ["s"], {"more": 1}],
        ["system", "os", ["touch proof"], {}],
        "abcd",
    ],
)
def test_no_function_is_called_because_redis_names_it(desk: Desk, call: Any) -> None:
    job_id = hostile_job(desk, data=zlib.compress(json.dumps(call).encode()))
    desk.resweep("scheduler", "--burst")
    assert not (desk.folder / "proof").exists()
    assert queue_client(desk.url).hget(f"rq:job:{job_id}", "status") == b"failed"


def test_no_callback_is_called_and_no_address_of_a_job(desk: Desk, receiver: ThreadingHTTPServer) -> None:
    (desk.folder / "evil.py").write_text("def proof(*_):\n    open('proof', 'w').close()\n")
    names = {f"{when}_callback_name": "evil.proof" for when in ("success", "failure", "stopped")}
    hook = [{"url": f"http://127.0.0.1:{receiver.server_port}/x", "events": ["finished", "failed"], "statuses": []}]
    calls: list[list[Any]] = [["suggest", None, ["s"], {}], ["nothing", None, [], {}]]
    for data in calls:
        hostile_job(desk, **names, webhooks=json.dumps(hook), data=zlib.compress(json.dumps(data).encode()))
    desk.resweep("scheduler", "--burst", env={"PYTHONPATH": str(desk.folder)})
    assert not (desk.folder / "proof").exists()
    assert receiver.bodies == []  # type: ignore[attr-defined]


def test_exports_leave_their_folder_for_no_one(desk: Desk, story: Story) -> None:
    enqueue(desk.url, "export", story.sweep_id, "../../proof", "jsonl", job_id="hostile-export")
    enqueue(desk.url, "export", "../proof", "runs", "jsonl", job_id="hostile-export-2")
    desk.resweep("scheduler", "--burst", "--export-dir", "out")
    assert [path.name for path in desk.folder.rglob("*proof*")] == []


def test_a_cluster_gets_suggestions_and_is_told_that_there_are_no_jobs(tmp_path: Path) -> None:
    with cluster_servers(tmp_path) as cluster, desk_in(tmp_path / "desk", cluster.url) as desk:
        config = {"method": "bayes", "metric": {"name": "m"}, "parameters": {"x": {"min": 0.0, "max": 1.0}}}
        sweep_id = desk.create({**config, "program": "train.py"})
        desk.write("train.py", "")
        from resweep_scheduler.store import connect

        client = connect(cluster.url)
        store = Store(client, Scope(), url=cluster.url)
        with running(desk) as service:
            assert "RQ does not work with Redis Cluster" in service.printed()
            service.wait_for(lambda: client.exists(store.keys.sweep(sweep_id, "service")), "the service")
            store.register(sweep_id, agent="a", session="s", host="h", pid=1)
            store.begin_asking(sweep_id, session="s", agents=["a"], hold_ms=1000)
            service.wait_for(lambda: len(store.runs(sweep_id)) == 1, "a suggestion")
            desk.resweep("rm", "-y", sweep_id, "--background", code=2)
        client.close()


def test_a_signal_that_comes_before_a_worker_listens_ends_the_service(
    shared_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that lost Redis while it began has not set its own handlers."""
    scheduler = Scheduler(SchedulerOptions(url=shared_server.url, name="s"))
    begun: list[bool] = []

    def begin(*, burst: bool) -> bool:
        begun.append(burst)
        signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the signal was not taken")

    monkeypatch.setattr(scheduler, "_work", begin)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # else the tests would end
    try:
        scheduler.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert begun == [False]
