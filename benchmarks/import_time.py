"""What `import resweep` adds to the start of Python.

A fresh interpreter that imports it and one that imports nothing are started in turn, and the whole process is timed.
The difference of the medians is what a script pays for the import. resweep loads each of its names when it is first
used, so the import alone does not say what a run costs: the figure for `from resweep import init` does, still without
redis-py, which comes when the run begins, and is measured beside it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import harness
from harness import Figure, Report, Spread

TARGET_MS = 30.0
STATEMENTS = {
    "bare": "pass",
    "import": "import resweep",
    "init": "from resweep import init",
    "redis": "import redis",
}


def start_ms(statement: str) -> float:
    """Milliseconds from the start of an interpreter that executes ``statement`` to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], stdin=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - start) * 1000


def measure(quick: bool) -> Report:
    """Interpreters in turn."""
    rounds = 10 if quick else 60
    harness.say(f"import time: {rounds} rounds")
    taken: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for statement in STATEMENTS.values():
        start_ms(statement)  # the first one compiles and reads from the disk
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            taken[name].append(start_ms(statement))
    spreads = {name: Spread.of(values) for name, values in taken.items()}
    bare = spreads.pop("bare")
    added = {name: spread.median - bare.median for name, spread in spreads.items()}
    target, met = f"at most +{TARGET_MS:.0f} ms", added["import"] <= TARGET_MS
    report = Report("Import time: a process from start to end")
    for name, spread in spreads.items():
        figure = Figure(STATEMENTS[name], "ms", spread, "bare Python", bare, f"{added[name]:+.1f} ms")
        report.figures.append(replace(figure, target=target, met=met) if name == "import" else figure)
    return report


if __name__ == "__main__":
    harness.main(measure, __doc__)
