"""The gateway for W&B's client: requests, rows, what `init` and `finish` take, many clients at once.

Lean clients, which send what the real one sends without its processes and timers, post file_stream and heartbeats as
fast as they are answered; the baseline is the same writes straight to the store, from as many threads. Then 200 clients
log at once, each with a connection of its own, and every row is counted; and 200 runs of the real client, in a few
processes, because so many processes do not fit into a small machine. At last the real client begins and finishes runs,
against the gateway and with WANDB_MODE=offline in turn; a process of its own for each, timed inside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import harness
from harness import Figure, Report, Server, Spread

from resweep_scheduler.store import RunState, Scope, Store, open_store

sys.path.append(str(Path(__file__).parent.parent / "tests"))  # for support/, where the lean client is

from support.wandb_sdks import FOLDER, NEWEST, install
from support.wire import HttpSender, LeanRun, Wire

THREADS = 8
ROWS = 10
CLIENTS = 200
SCOPE = Scope("local", "bench")
SCRIPT = """
import time
started = time.perf_counter()
import wandb
imported = time.perf_counter()
run = wandb.init(project="bench", settings=wandb.Settings(console="off"))
begun = time.perf_counter()
run.log({"loss": 1.0})
run.finish()
print("TOOK", begun - imported, time.perf_counter() - begun)
"""
CROWD_PROCESSES = 4
CROWD_SCRIPT = """
import sys, threading, time
from pathlib import Path
import wandb

first, count, rows = map(int, sys.argv[1:4])
settings = wandb.Settings(console="off", silent=True)
runs = [
    wandb.init(project="bench", id=f"real{first + number}", reinit="create_new", settings=settings)
    for number in range(count)
]
Path(f"begun-{first}").touch()
while not Path("go").exists():
    time.sleep(0.05)
for row in range(rows):
    end = time.monotonic() + 1
    for run in runs:
        run.log({"loss": 1 / (row + 1)})
    time.sleep(max(0.0, end - time.monotonic()))
finishing = [threading.Thread(target=run.finish) for run in runs]
for thread in finishing:
    thread.start()
for thread in finishing:
    thread.join()
"""


@contextmanager
def gateway(server: Server, folder: Path) -> Iterator[tuple[str, int]]:
    """`resweep serve` on a port of its own: its address and its pid."""
    log = folder / "gateway.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("resweep")), "serve", "--no-auth", "--port", "0"],
            env={**os.environ, "RESWEEP_URL": server.url},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    try:
        deadline = time.monotonic() + 30
        while " at http://" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the gateway did not start:\n{log.read_text()}")
            time.sleep(0.02)
        url = log.read_text().split(" at ")[1].split()[0]
        while True:
            with suppress(OSError):
                urllib.request.urlopen(f"{url}/healthz", timeout=5).close()
                break
            time.sleep(0.02)
        yield url, process.pid
    finally:
        process.kill()
        process.wait()


def row(number: int) -> dict[str, float]:
    return {"loss": 1.0 / (number + 1), "accuracy": number * 1e-5, "lr": 3e-4, "epoch": number // 100}


def in_threads(work: Callable[[int], list[float]], threads: int, seconds: float) -> tuple[float, list[float]]:
    """Calls a second of all threads together, and the milliseconds of each call."""
    taken: list[list[float]] = [[] for _ in range(threads)]
    faults: list[BaseException] = []

    def run(index: int) -> None:
        try:
            while time.monotonic() < end:
                taken[index] += work(index)
        except BaseException as error:
            faults.append(error)
            raise

    workers = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    begin = time.monotonic()
    end = begin + seconds
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if faults:
        raise faults[0]
    times = [each for thread in taken for each in thread]
    return len(times) / (time.monotonic() - begin), times


def timed(call: Callable[[], object]) -> list[float]:
    begin = time.perf_counter()
    call()
    return [(time.perf_counter() - begin) * 1000]


def measure_requests(report: Report, server: Server, url: str, *, rounds: int, seconds: float) -> None:
    """file_stream and heartbeats, against the same calls of the store."""
    store = open_store(server.url, SCOPE, timeout=30)
    runs = [Wire(HttpSender(url), project="bench").begin(f"lean{index}") for index in range(THREADS)]
    tokens = [store.init_run(run_id=f"direct{index}", resume="", nonce=f"n{index}").token for index in range(THREADS)]
    seqs = [1] * THREADS
    rows = [row(number) for number in range(ROWS)]

    def post(index: int) -> list[float]:
        return timed(lambda: runs[index].log(*rows))

    def write(index: int) -> list[float]:
        token = tokens[index]
        assert token is not None
        first = seqs[index]
        seqs[index] += ROWS
        texts: list[tuple[int, str] | tuple[int, str, float]] = [
            (first + number, json.dumps(values)) for number, values in enumerate(rows)
        ]
        return timed(lambda: store.log(token, first_seq=first, rows=texts))

    compare(report, f"file_stream of {ROWS} rows", "Store.log", post, write, rounds=rounds, seconds=seconds, rows=ROWS)
    sweep = Wire(HttpSender(url), project="bench").create_sweep(
        {"method": "random", "program": "train.py", "parameters": {"x": {"min": 0.0, "max": 1.0}}}
    )
    wires = [Wire(HttpSender(url), project="bench") for _ in range(THREADS)]
    agents = [wire.create_agent(sweep) for wire in wires]
    held = [wire.heartbeat(agent)[0]["run_id"] for wire, agent in zip(wires, agents, strict=True)]
    seats = [store.seat(run_id) for run_id in held]

    def beat(index: int) -> list[float]:
        return timed(lambda: wires[index].heartbeat(agents[index], held[index]))

    def direct(index: int) -> list[float]:
        seat = seats[index]
        assert seat is not None
        return timed(lambda: store.heartbeat(sweep, agent=seat.agent, token=seat.token, lease_ms=60_000))

    compare(report, "heartbeat of an agent", "Store.heartbeat", beat, direct, rounds=rounds, seconds=seconds)
    store.client.close()


def compare(
    report: Report,
    name: str,
    baseline: str,
    ours: Callable[[int], list[float]],
    theirs: Callable[[int], list[float]],
    *,
    rounds: int,
    seconds: float,
    rows: int = 0,
) -> None:
    """Rates and 99th percentiles, in turn."""
    rates: tuple[list[float], list[float]] = ([], [])
    slow: tuple[list[float], list[float]] = ([], [])
    harness.say(f"gateway: {name}")
    for _ in range(rounds):
        for place, work in enumerate((ours, theirs)):
            rate, times = in_threads(work, THREADS, seconds)
            rates[place].append(rate)
            slow[place].append(harness.percentile(times, 99))
    compared = f"x {harness.paired_ratio(*rates):.2f}"
    report.figures.append(
        Figure(f"{name}, {THREADS} clients", "1/s", Spread.of(rates[0]), baseline, Spread.of(rates[1]), compared)
    )
    compared = f"x {harness.paired_ratio(*slow):.2f}"
    report.figures.append(
        Figure(f"{name}, 99th percentile", "ms", Spread.of(slow[0]), baseline, Spread.of(slow[1]), compared)
    )
    if rows:
        stored = ([rate * rows for rate in rates[0]], [rate * rows for rate in rates[1]])
        compared = f"x {harness.paired_ratio(*stored):.2f}"
        report.figures.append(
            Figure("rows stored", "1/s", Spread.of(stored[0]), baseline, Spread.of(stored[1]), compared)
        )


def measure_crowd(report: Report, server: Server, url: str, pid: int, *, seconds: float) -> None:
    """200 clients at once: each row is there once, and what a client costs the gateway in memory."""
    harness.say(f"gateway: {CLIENTS} clients at once")
    before = resident(pid)
    runs: list[LeanRun | None] = [None] * CLIENTS
    sent = [0] * CLIENTS
    times: list[list[float]] = [[] for _ in range(CLIENTS)]
    gate = threading.Barrier(CLIENTS + 1)

    def work(index: int) -> None:
        run = Wire(HttpSender(url), project="bench").begin(f"crowd{index}")
        runs[index] = run
        gate.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            times[index] += timed(lambda: run.log(*(row(sent[index] + number) for number in range(ROWS))))
            sent[index] += ROWS
            time.sleep(max(0.0, begin + 1 - time.monotonic()))
        run.finish(0)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(CLIENTS)]
    for worker in workers:
        worker.start()
    gate.wait()
    memory = (resident(pid) - before) / CLIENTS
    for worker in workers:
        worker.join()
    store = open_store(server.url, SCOPE, timeout=30)
    lost = sum(count_missing(store, f"crowd{index}", sent[index]) for index in range(CLIENTS))
    store.client.close()
    every = [each for client in times for each in client]
    report.figures += [
        Figure(f"rows lost or doubled of {sum(sent):,}", "rows", Spread.of([lost]), target="0", met=lost == 0),
        Figure(f"file_stream, {CLIENTS} clients, each once a second", "ms", Spread.of(every)),
        Figure("the same, 99th percentile", "ms", Spread.of([harness.percentile(every, 99)])),
        Figure("memory of the gateway per connected client", "KiB", Spread.of([memory])),
    ]  # fmt: skip


def measure_real_crowd(report: Report, server: Server, url: str, folder: Path, *, rows: int) -> None:
    """The rows of 200 runs of the real client that log once a second, all at the same time."""
    harness.say(f"gateway: {CLIENTS} runs of wandb {NEWEST} at once")
    install(NEWEST)
    script = folder / "crowd.py"
    script.write_text(CROWD_SCRIPT)
    each = CLIENTS // CROWD_PROCESSES
    processes = [
        subprocess.Popen(
            [str(FOLDER / f"wandb-{NEWEST}" / "bin" / "python"), str(script), str(first), str(each), str(rows)],
            cwd=folder, env=sdk_environment(url, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        for first in range(0, CLIENTS, each)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        while len(list(folder.glob("begun-*"))) < CROWD_PROCESSES:
            if time.monotonic() > deadline or any(process.poll() is not None for process in processes):
                raise RuntimeError("the clients do not begin their runs")
            time.sleep(0.1)
        (folder / "go").touch()
        codes = [process.wait(600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    store = open_store(server.url, SCOPE, timeout=30)
    ids = [f"real{index}" for index in range(CLIENTS)]
    lost = sum(count_missing(store, run_id, rows) for run_id in ids)
    ended = sum(store.run(run_id).state is RunState.FINISHED for run_id in ids)
    store.client.close()
    good = not any(codes) and ended == CLIENTS
    report.figures += [
        Figure(f"rows of wandb {NEWEST} lost or doubled, of {CLIENTS * rows:,}", "rows", Spread.of([lost]), target="0",
               met=lost == 0),
        Figure(f"runs of wandb {NEWEST} that finished", "runs", Spread.of([ended]), target=str(CLIENTS), met=good),
    ]  # fmt: skip


def sdk_environment(url: str, folder: Path) -> dict[str, str]:
    online = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "a" * 40, "WANDB_ERROR_REPORTING": "false"}
    return {**os.environ, **online, "HOME": str(folder), "WANDB_SILENT": "true"}


def count_missing(store: Store, run_id: str, expected: int) -> int:
    """How many rows are missing or there twice."""
    steps = [row.step for row in store.history(run_id)]
    stored = int(store.client.xlen(store.keys.run(run_id, "history")))
    return abs(expected - len(steps)) + abs(stored - len(steps))


def resident(pid: int) -> float:
    """KiB of memory of a process (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise RuntimeError(f"process {pid} has no VmRSS")


def measure_sdk(report: Report, url: str, folder: Path, *, rounds: int) -> None:
    """init and finish of the real client."""
    install(NEWEST)
    python = str(FOLDER / f"wandb-{NEWEST}" / "bin" / "python")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    took: dict[str, tuple[list[float], list[float]]] = {"online": ([], []), "offline": ([], [])}
    for number in range(rounds):
        harness.say(f"gateway: wandb {NEWEST}, {number + 1} of {rounds}")
        for mode, parts in took.items():
            environment = {**sdk_environment(url, folder), "WANDB_MODE": mode}
            printed = subprocess.run(
                [python, str(script)], cwd=folder, env=environment, capture_output=True, text=True, check=True
            ).stdout
            init, finish = (float(word) for word in printed.split("TOOK")[1].split())
            parts[0].append(init)
            parts[1].append(finish)
    for place, name in enumerate(("wandb.init()", "log() and finish()")):
        ours, theirs = took["online"][place], took["offline"][place]
        compared = f"+ {harness.paired_difference(ours, theirs):.2f} s"
        report.figures.append(
            Figure(f"{name}, wandb {NEWEST}", "s", Spread.of(ours), "WANDB_MODE=offline", Spread.of(theirs), compared)
        )


def measure(quick: bool) -> Report:
    """Requests, then the crowd, then the real client."""
    report = Report("The gateway for W&B's client")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    with harness.private_server("always") as server, tempfile.TemporaryDirectory(prefix="resweep-gw-") as text:
        folder = Path(text)
        with gateway(server, folder) as (url, pid):
            measure_crowd(report, server, url, pid, seconds=3 if quick else 20)
            measure_real_crowd(report, server, url, folder, rows=3 if quick else 20)
            measure_requests(report, server, url, rounds=1 if quick else 5, seconds=1 if quick else 4)
            measure_sdk(report, url, folder, rounds=1 if quick else 5)
    report.remarks.append("one gateway process, Redis with appendfsync always, clients on the same machine")
    return report


if __name__ == "__main__":
    harness.main(measure, __doc__)
