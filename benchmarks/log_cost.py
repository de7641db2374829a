"""What `run.log()` costs the training thread.

A run outside any sweep logs rows of four numbers to a server with the embedded server's settings, while its sender
thread does its work. Every call is timed alone. "steps of 1 ms" waits as long between two calls, as a training loop
does that computes something; "back to back" is a loop that does nothing but log, where the sender competes for the
interpreter. The baseline is what people write by hand: json.dumps and a write to an open file that is flushed, timed
in turn.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import harness
from harness import Figure, Report, Spread

from resweep_scheduler.store import Scope, open_store

TARGET_US = 15.0
PROJECT = "log-cost"


def values(step: int) -> dict[str, float]:
    """A row as a training loop logs it."""
    return {"loss": 1.0 / (step + 1), "accuracy": step * 1e-5, "lr": 3e-4, "epoch": step // 100}


def timed_us(call: Callable[[int], object], first: int, count: int, pause: float) -> list[float]:
    """Microseconds of each call."""
    taken = []
    for step in range(first, first + count):
        start = time.perf_counter_ns()
        call(step)
        taken.append((time.perf_counter_ns() - start) / 1000)
        if pause:
            time.sleep(pause)
    return taken


def measure(quick: bool) -> Report:
    """Blocks of ours and of the baseline in turn, at both speeds."""
    import resweep

    rounds, count = (2, 300) if quick else (10, 1000)
    report = Report("Cost of run.log() in the training thread")
    with harness.private_server("always") as server, tempfile.TemporaryDirectory(prefix="resweep-log-") as folder:
        for name in [name for name in os.environ if name.startswith(("RESWEEP_", "WANDB_"))]:
            del os.environ[name]
        os.environ["RESWEEP_URL"] = server.url
        run = resweep.init(project=PROJECT, dir=folder)
        with Path(folder, "rows.jsonl").open("w") as file:

            def log(step: int) -> None:
                run.log(values(step))

            def write(step: int) -> None:
                file.write(json.dumps({"step": step, **values(step)}) + "\n")
                file.flush()

            for name, pause in (("steps of 1 ms", 0.001), ("back to back", 0.0)):
                ours: list[float] = []
                theirs: list[float] = []
                harness.say(f"log cost: {name}")
                for number in range(rounds):
                    ours += timed_us(log, number * count, count, pause)
                    theirs += timed_us(write, number * count, count, pause)
                report.figures.append(_figure(name, Spread.of(ours), Spread.of(theirs)))
                report.remarks.append(
                    f"{name}: the 99th percentile is {harness.percentile(ours, 99):.0f} µs, the baseline's "
                    f"{harness.percentile(theirs, 99):.0f} µs"
                )
        run.finish()
        rows = len(open_store(server.url, Scope(project=PROJECT)).history(run.id))
        if rows != 2 * rounds * count:
            raise RuntimeError(f"{2 * rounds * count} rows must have reached the server, got {rows}")
    return report


def _figure(name: str, ours: Spread, theirs: Spread) -> Figure:
    return Figure(
        f"run.log, {name}",
        "µs",
        ours,
        "json.dumps + write + flush",
        theirs,
        f"x {ours.median / theirs.median:.2f}",
        f"{TARGET_US:.0f} µs",
        ours.median <= TARGET_US,
    )


if __name__ == "__main__":
    harness.main(measure, __doc__)
