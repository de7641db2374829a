"""What the benchmarks share: private servers, medians of interleaved rounds, small tables.

Every benchmark measures resweep and a named baseline in the same run, in turn, so that whatever else the machine does
falls on both. A benchmark prints figures; it never fails because a machine is slow.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import cast

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from resweep_scheduler.service.server import find_binary
from resweep_scheduler.store import (
    ClaimAnswer,
    ClaimOutcome,
    ClaimRequest,
    NewRun,
    Offer,
    Scope,
    Store,
    SweepSettings,
    connect,
    open_store,
)

SCOPE = Scope("bench", "figures")
LEASE_MS = 60_000
START_TIMEOUT = 20.0  # seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, 10th and 90th percentile of some measurements."""

    median: float
    p10: float
    p90: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError when there are no values."""
        if not values:
            raise ValueError("a spread needs at least one measurement, got none; look at the errors above")
        return cls(statistics.median(values), percentile(values, 10), percentile(values, 90), len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return _number(self.median)
        return f"{_number(self.median)} ({_number(self.p10)} to {_number(self.p90)})"


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table. ``compared``: resweep against the baseline, as text; ``met``: None without a target."""

    name: str
    unit: str
    ours: Spread
    baseline: str = ""
    theirs: Spread | None = None
    compared: str = ""
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Report:
    """The figures of one benchmark, and remarks that belong under its table."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of the values lie, interpolated."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of rounds that were measured side by side."""
    return statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the differences of rounds that were measured side by side."""
    return statistics.median(mine - other for mine, other in zip(ours, theirs, strict=True))


def _number(value: float) -> str:
    if value != 0 and abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:,.1f}" if abs(value) < 100 else f"{value:,.0f}"


def as_markdown(report: Report) -> str:
    """A report as a Markdown table with its remarks."""
    rows = [["figure", "unit", "resweep", "baseline", "baseline's value", "compared", "target", "met"]]
    for figure in report.figures:
        met = "" if figure.met is None else ("yes" if figure.met else "**no**")
        rows.append(
            [figure.name, figure.unit, str(figure.ours), figure.baseline, str(figure.theirs or ""), figure.compared,
             figure.target, met]
        )  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    remarks = [f"* {remark}" for remark in report.remarks]
    return "\n".join([f"### {report.title}", "", *lines, *(["", *remarks] if remarks else [])])


def main(measure: Callable[[bool], Report], description: str | None) -> None:
    """The command line that all benchmarks have in common."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: shows that it works, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, for run_all.py")
    options = parser.parse_args()
    report = measure(options.quick)
    if options.quick:  # too few measurements to say anything about a target
        report.figures = [replace(figure, met=None) for figure in report.figures]
        report.remarks.append("measured with --quick: not to be compared with anything")
    print(as_markdown(report), flush=True)
    if options.json:
        options.json.write_text(json.dumps(asdict(report)))


def read_report(path: Path) -> Report:
    """What ``--json`` wrote."""
    stored = json.loads(path.read_text())
    figures = []
    for one in stored["figures"]:
        one["ours"] = Spread(**one["ours"])
        one["theirs"] = Spread(**one["theirs"]) if one["theirs"] else None
        figures.append(Figure(**one))
    return Report(stored["title"], figures, stored["remarks"])


class Server:
    """A server of the benchmark's own on a unix socket in a temporary folder."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def client(self) -> Redis:
        return cast(Redis, connect(self.url, timeout=30))

    def store(self) -> Store:
        return open_store(self.url, SCOPE, timeout=30)

    def cpu_seconds(self) -> float:
        """CPU time of all threads of the server so far."""
        return process_cpu_seconds(self.process.pid)


def process_cpu_seconds(pid: int) -> float:
    """User and system time of a process, its ended children not counted (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def private_server(appendfsync: str = "always") -> Iterator[Server]:
    """A server with the embedded server's settings.

    Args:
        appendfsync: "always" as the embedded server has it, "everysec" as most servers have it, "" for no file at all.
    """
    persistence = ["--appendonly", "yes", "--appendfsync", appendfsync] if appendfsync else ["--appendonly", "no"]
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="resweep-bench-"))
        socket = f"{folder}/s"
        log = stack.enter_context(open(f"{folder}/log", "wb"))
        process = subprocess.Popen(
            [str(find_binary()), "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", *persistence],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        stack.callback(_end, process)
        server = Server(process, f"unix://{socket}")
        _wait_for(server, folder)
        yield server


def _wait_for(server: Server, folder: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with server.client() as client:
                client.ping()
            return
        except RedisConnectionError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                log = Path(folder, "log").read_text(errors="replace")
                raise RuntimeError(f"the server did not start:\n{log}") from None
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def new_sweep(store: Store) -> str:
    """A sweep without a config, for benchmarks that call the store themselves; returns its id."""
    sweep_id = f"s{secrets.token_hex(4)}"
    store.create_sweep(
        sweep_id=sweep_id,
        nonce=secrets.token_hex(8),
        config_text="",
        config_json="{}",
        settings=SweepSettings(lease_ms=LEASE_MS),
    )
    return sweep_id


def create_sweep(server: Server, config: Mapping[str, object]) -> str:
    """A sweep from a config as a user writes it; returns its path for `sweep-agent`."""
    from resweep_scheduler.config import parse_sweep
    from resweep_scheduler.creation import create_sweep as create

    store, sweep_id = create(
        server.url, parse_sweep(config), config_text="", entity=SCOPE.entity, project=SCOPE.project
    )
    return f"{store.scope}/{sweep_id}"


def parameters(index: int) -> dict[str, object]:
    """Ten parameters as a sweep over a small network has them."""
    return {
        "learning_rate": 1e-4 * (1 + index % 977),
        "weight_decay": 1e-6 * (1 + index % 89),
        "momentum": 0.9 + 0.0001 * (index % 997),
        "dropout": 0.001 * (index % 500),
        "batch_size": 16 << (index % 5),
        "layers": 1 + index % 8,
        "width": 32 * (1 + index % 16),
        "optimizer": ("adam", "sgd", "adamw")[index % 3],
        "activation": ("relu", "gelu")[index % 2],
        "seed": index,
    }


def offer_for(sweep_id: str, first_index: int, count: int = 1) -> Offer:
    """Suggestions from ``first_index`` on, the same ones whoever makes them."""
    indices = range(first_index, first_index + count)
    return Offer(
        first_index, tuple(NewRun(f"{sweep_id[1:5]}{index:06d}", index, parameters(index)) for index in indices)
    )


class StoreAgent:
    """What an agent asks of the store, without the agent: claims with nonces as the store wants them."""

    def __init__(self, store: Store, sweep_id: str, name: str) -> None:
        self.store = store
        self.sweep_id = sweep_id
        self.name = name
        self._session = secrets.token_hex(4)
        self._sequence = 1
        store.register(sweep_id, agent=name, session=self._session, host="bench", pid=os.getpid())

    def request(self, offer: Offer | None = None) -> ClaimRequest:
        """The next claim; the same one until `answered` was told that it got a run."""
        nonce = f"{self._session}.{self._sequence}"
        return ClaimRequest(self.sweep_id, self.name, nonce, LEASE_MS, preemptible=True, offer=offer)

    def answered(self, answer: ClaimAnswer) -> ClaimAnswer:
        if answer.outcome in (ClaimOutcome.RUN, ClaimOutcome.LATE, ClaimOutcome.LOST):
            self._sequence += 1
        return answer

    def claim(self, offer: Offer | None = None) -> ClaimAnswer:
        return self.answered(self.store.claim(self.request(offer)))


def say(text: str) -> None:
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)
