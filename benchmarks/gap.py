"""The gap between one run's end and the next run's start, one agent, trivial runs.

The same script is executed by a bare `subprocess` loop, by Optuna in memory (ask, subprocess.run, tell) and by
`sweep-agent`, in turn, a block of runs each. The script takes the time in its first line and in its last line, so a
gap holds everything between: the interpreter's end, what the loop does, the spawn, the interpreter's start. All but
the second are the same for everybody, and the bare loop is nothing but those: what is above its gap is what the loop
costs. (The start time that the kernel keeps for a process would leave the interpreter's start out, but counts in 10
ms.)

The agent works once with the embedded server's settings and once with a server that syncs its disk every second, to
show the share of the disk. Blocks have one run more than gaps, since the start of a loop is no gap.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import harness
from harness import Figure, Report, Server, Spread

TARGET_MS = 3.0
SCRIPT = """import time; first = time.time_ns()
import os
with open(os.environ["GAP_TIMES"], "a") as times:
    print(first, time.time_ns(), file=times)
"""


class Bench:
    """A folder with the script and the file into which it writes its times."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "train.py"
        self.times = folder / "times"
        self.script.write_text(SCRIPT)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("RESWEEP_")}
        self.environment["GAP_TIMES"] = str(self.times)

    def command(self, lr: float, layers: int) -> list[str]:
        """What each of the three executes."""
        return [sys.executable, str(self.script), f"--lr={lr}", f"--layers={layers}"]

    def gaps_ms(self, block: Callable[[int], None], runs: int) -> list[float]:
        """The gaps of one block of runs."""
        self.times.unlink(missing_ok=True)
        block(runs + 1)
        times = [[int(word) for word in line.split()] for line in self.times.read_text().splitlines()]
        if len(times) != runs + 1:
            raise RuntimeError(f"{runs + 1} runs must have written their times, got {len(times)}")
        return [(after[0] - before[1]) / 1e6 for before, after in pairwise(times)]


def bare_loop(bench: Bench, runs: int) -> None:
    for number in range(runs):
        subprocess.run(
            bench.command(0.001 * (number + 1), number), env=bench.environment, stdin=subprocess.DEVNULL, check=True
        )


def optuna_loop(bench: Bench, runs: int) -> None:
    """Optuna in memory: its default sampler is asked once its ten random first trials are over."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
    for _ in range(runs):
        trial = study.ask()
        command = bench.command(trial.suggest_float("lr", 1e-4, 1e-1, log=True), trial.suggest_int("layers", 1, 8))
        subprocess.run(command, env=bench.environment, stdin=subprocess.DEVNULL, check=True)
        study.tell(trial, 0.5)


def agent_loop(bench: Bench, server: Server, runs: int) -> None:
    """`sweep-agent` on a random sweep of that many runs."""
    config = {
        "program": str(bench.script),
        "command": [sys.executable, "${program}", "${args}"],
        "method": "random",
        "run_cap": runs,
        "parameters": {
            "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
            "layers": {"min": 1, "max": 8},
        },
    }
    sweep_id = harness.create_sweep(server, config)
    subprocess.run(
        [sys.executable, "-m", "resweep_agent.cli", sweep_id, "--url", server.url, "--dir", str(bench.folder / "runs")],
        env=bench.environment,
        cwd=bench.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=True,
    )


def measure(quick: bool) -> Report:
    """Blocks in turn."""
    rounds, runs = (2, 8) if quick else (15, 10)
    with ExitStack() as stack:
        bench = Bench(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="resweep-gap-"))))
        always = stack.enter_context(harness.private_server("always"))
        everysec = stack.enter_context(harness.private_server("everysec"))
        blocks: dict[str, Callable[[int], None]] = {
            "bare": partial(bare_loop, bench),
            "always": partial(agent_loop, bench, always),
            "everysec": partial(agent_loop, bench, everysec),
            "optuna": partial(optuna_loop, bench),
        }
        gaps: dict[str, list[list[float]]] = {name: [] for name in blocks}
        for number in range(rounds):
            harness.say(f"gap: round {number + 1} of {rounds}")
            for name, block in blocks.items():
                gaps[name].append(bench.gaps_ms(block, runs))
    return _report(gaps)


def _report(gaps: dict[str, list[list[float]]]) -> Report:
    report = Report("Gap between two runs of one agent (interpreter's end and start included)")
    spreads = {name: Spread.of([gap for block in blocks for gap in block]) for name, blocks in gaps.items()}
    medians = {name: [statistics.median(block) for block in blocks] for name, blocks in gaps.items()}
    baselines = (
        ("bare", "bare subprocess loop", f"at most +{TARGET_MS:.0f} ms", TARGET_MS),
        ("optuna", "Optuna in memory + subprocess", "not above", 0.0),
    )
    for name, settings in (("always", "AOF always (embedded)"), ("everysec", "AOF everysec")):
        for other, baseline, target, limit in baselines:
            above = harness.paired_difference(medians[name], medians[other])
            report.figures.append(
                Figure(
                    f"gap, {settings}",
                    "ms",
                    spreads[name],
                    baseline,
                    spreads[other],
                    f"{above:+.1f} ms",
                    target,
                    above <= limit,
                )
            )
    report.remarks.append("compared: the median over the rounds of the difference between neighbouring blocks' medians")
    return report


if __name__ == "__main__":
    harness.main(measure, __doc__)
