"""Early termination: how long a weak run goes on after the value that decides, and what deciding costs.

Latency: an agent executes runs one after the other; each logs a value that is worse than what runs before had, and
takes the time just before `run.log()` and when SIGTERM comes. The baseline is what the agent would do without being
poked: the same stop is written into the run's record, and found with the next heartbeat (every 10 s by default).

Cost: the server's time for one log call with one row, in a sweep without a rule and in sweeps with hyperband and median
whose levels hold 100 and 10,000 runs; and CPU of the SDK's sending thread for a row. The training thread does the same
in all of them.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import harness
from harness import Figure, Report, Server, Spread

from resweep.spill import Row
from resweep_scheduler.store import Objective, SweepSettings
from resweep_scheduler.store.batches import make_batch

TARGET_MS = 1000.0
CALLS = 100
SCRIPT = """
import os, signal, sys, time
import resweep

def on_sigterm(number, frame):
    with open(os.environ["STOP_TIMES"], "a") as times:
        print(decided, time.time_ns(), file=times)
    os._exit(3)

signal.signal(signal.SIGTERM, on_sigterm)
how, weak = sys.argv[1], int(sys.argv[2])
run = resweep.init()
time.sleep(0.7)  # until the first heartbeat is over
decided = time.time_ns()
if how == "log":
    run.log({"loss": weak})
elif weak:
    from resweep_scheduler.store import Scope, open_store
    store = open_store(os.environ["RESWEEP_URL"], Scope(run.entity, run.project))
    store.client.hset(store.keys.run(run.id), "stop", "weak")
if weak:
    time.sleep(60)
"""
RULES: dict[str, dict[str, Any] | None] = {
    "no rule": None,
    "hyperband": {"type": "hyperband", "sign": 1, "bands": [3**n for n in range(12)], "eta": 3.0, "strict": False},
    "median": {"type": "median", "sign": 1, "percentile": 50.0, "n_startup_runs": 5, "min_iter": 1, "interval": 1},
}


def latencies_ms(server: Server, folder: Path, how: str, runs: int) -> list[float]:
    """From the value that decides to the signal, for each of the weak runs."""
    script, times = folder / "weak.py", folder / f"times-{secrets.token_hex(4)}"
    script.write_text(SCRIPT)
    config: dict[str, object] = {
        "program": str(script),
        "command": [sys.executable, "${program}", how, "${weak}"],
        "method": "grid",
        "metric": {"name": "loss", "goal": "minimize"},
        "parameters": {"weak": {"values": list(range(runs + 1))}},
        "lease": {"duration": 60, "heartbeat": 10},
    }
    if how == "log":
        config["early_terminate"] = {"type": "hyperband", "min_iter": 1, "eta": 100}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RESWEEP_", "WANDB_"))}
    subprocess.run(
        [sys.executable, "-m", "resweep_agent.cli", harness.create_sweep(server, config), "--url", server.url],
        env=environment | {"STOP_TIMES": str(times), "WANDB_AGENT_DISABLE_FLAPPING": "true"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    pairs = [[int(word) for word in line.split()] for line in times.read_text().splitlines()]
    if len(pairs) != runs:
        raise RuntimeError(f"{runs} runs must have been stopped, got {len(pairs)}; see the script")
    return [(end - begin) / 1e6 for begin, end in pairs]


def server_us(server: Server, rule: Mapping[str, Any] | None, others: int) -> float:
    """What the server needs for one log call with one row, in µs."""
    store, client = server.store(), server.client()
    client.flushall()
    sweep_id = f"s{secrets.token_hex(4)}"
    settings = SweepSettings(lease_ms=harness.LEASE_MS, stopping=rule)
    store.create_sweep(
        sweep_id=sweep_id, nonce=secrets.token_hex(8), config_text="", config_json="{}", settings=settings
    )
    client.hset(store.keys.sweep(sweep_id), "n:finished", others)
    levels = [level for level in (rule.get("bands", range(1, CALLS + 1)) if rule else ()) if level <= CALLS]
    for level in levels:
        key = store.keys.sweep(sweep_id, f"level:{level}")
        if level == levels[0]:
            client.zadd(key, {f"other{index:06d}": float(index) for index in range(others)})
        else:
            client.zunionstore(key, [store.keys.sweep(sweep_id, f"level:{levels[0]}")])
    run = harness.StoreAgent(store, sweep_id, "bench").claim(harness.offer_for(sweep_id, 0)).run
    if run is None:
        raise RuntimeError("the sweep must hand out its only run, got none")
    client.config_resetstat()
    for number in range(1, CALLS + 1):
        row = (number, '{"loss":0.5,"accuracy":0.1,"lr":0.0003,"epoch":1}')
        store.log(run.token, first_seq=number, rows=[(*row, -1.0) if rule else row])
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def sender_us(curves: bool, rounds: int) -> float:
    """CPU of the sending thread for a row, in µs."""
    rows = [
        Row(step + 1, step, {"loss": 1 / (step + 1), "accuracy": 0.5, "lr": 3e-4, "epoch": 1}) for step in range(500)
    ]
    objective = Objective((("loss", "minimize"),), curves=curves)
    begin = time.process_time()
    for _ in range(rounds):
        make_batch(rows, rows[-1].values, objective)
    return (time.process_time() - begin) / rounds / len(rows) * 1e6


def measure(quick: bool) -> Report:
    """Latency first, then costs."""
    report = Report("Early termination: from the value that decides to the signal, and its cost")
    stops, waits, repeats = (3, 1, 2) if quick else (20, 6, 5)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resweep-stop-")))
        server = stack.enter_context(harness.private_server("always"))
        harness.say("stopping: latency")
        ours = Spread.of(latencies_ms(server, folder, "log", stops))
        harness.say("stopping: latency of the baseline")
        theirs = Spread.of(latencies_ms(server, folder, "field", waits))
        report.figures.append(
            Figure(
                "log() to SIGTERM", "ms", ours, "found with the next heartbeat (10 s)", theirs,
                f"{theirs.median / ours.median:.0f} times sooner", f"at most {TARGET_MS:.0f} ms", ours.p90 <= TARGET_MS,
            )
        )  # fmt: skip
        memory = stack.enter_context(harness.private_server(""))
        plain = Spread.of([server_us(memory, None, 0) for _ in range(repeats)])
        for name, rule in RULES.items():
            for others in (100, 10_000) if rule else ():
                harness.say(f"stopping: cost of {name} with {others} runs")
                cost = Spread.of([server_us(memory, rule, others) for _ in range(repeats)])
                report.figures.append(
                    Figure(
                        f"a row in the server, {name}, {others:,} runs", "µs", cost, "the row without a rule", plain,
                        f"{cost.median - plain.median:+.0f} µs",
                    )
                )  # fmt: skip
        rounds = 20 if quick else 200
        with_curve, without = (Spread.of([sender_us(curves, rounds)]) for curves in (True, False))
        report.figures.append(
            Figure(
                "CPU of the sending thread for a row", "µs", with_curve, "without a rule", without,
                f"{with_curve.median - without.median:+.2f} µs",
            )
        )  # fmt: skip
    report.remarks.append("the time in which the SDK gathers rows before it sends them (at most 500 ms) is part of it")
    return report


if __name__ == "__main__":
    harness.main(measure, __doc__)
