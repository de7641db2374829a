"""CPU time and memory of a suggestion of `method: bayes`, with up to 10,000 finished runs.

The baseline is Optuna's TPE with its defaults on a study in memory, asked for the same parameters in the same process,
in turn. "Opening" is a new process that has the records of all runs at hand: imports, reading them, first suggestion;
the baseline's is the same with `add_trials`. CPU times, so that other work on the machine matters little; use one
thread (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1), as agents beside a training do.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import Figure, Report, Spread

SIZES = (0, 1000, 10_000)
WIDTHS = (5, 20)


def parameters(width: int) -> dict[str, Any]:
    """Mostly numbers, as sweeps have them; every fifth has an integer, every tenth categories."""
    kinds: list[dict[str, Any]] = [
        {"min": 0.0, "max": 1.0},
        {"distribution": "log_uniform_values", "min": 1e-5, "max": 1.0},
        {"min": 1, "max": 64},
        {"min": -1.0, "max": 1.0},
        {"values": ["a", "b", "c"]},
    ]
    return {f"p{number:02}": kinds[number % 5] for number in range(width)}


def point(width: int, index: int) -> dict[str, Any]:
    draws = random.Random(index)
    kinds: list[Callable[[], Any]] = [
        draws.random,
        lambda: 10 ** draws.uniform(-5, 0),
        lambda: draws.randint(1, 64),
        lambda: draws.uniform(-1, 1),
        lambda: draws.choice("abc"),
    ]
    return {f"p{number:02}": kinds[number % 5]() for number in range(width)}


def value(params: dict[str, Any]) -> float:
    return sum((number - 0.3) ** 2 for number in params.values() if isinstance(number, float))


class Ours:
    """`method: bayes` and the runs so far."""

    def __init__(self, width: int, size: int) -> None:
        from resweep_scheduler.config import parse_sweep
        from resweep_scheduler.search import PastRun, create_search

        raw = {"method": "bayes", "seed": 1, "metric": {"name": "loss"}, "parameters": parameters(width)}
        self.search = create_search(parse_sweep(raw))
        points = (point(width, index) for index in range(size))
        self.runs = [PastRun(index, params, "finished", value(params)) for index, params in enumerate(points)]
        self.record = PastRun

    def ask(self) -> None:
        """One suggestion, which then ends with a value, so that the next one has something new to learn."""
        index = len(self.runs)
        (params,) = self.search.suggest(first_index=index, count=1, runs=self.runs)
        self.runs.append(self.record(index, params, "finished", value(params)))


class Theirs:
    """Optuna's TPE and its study."""

    def __init__(self, width: int, size: int) -> None:
        import optuna

        warnings.simplefilter("ignore")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        kinds = [
            optuna.distributions.FloatDistribution(0, 1),
            optuna.distributions.FloatDistribution(1e-5, 1, log=True),
            optuna.distributions.IntDistribution(1, 64),
            optuna.distributions.FloatDistribution(-1, 1),
            optuna.distributions.CategoricalDistribution(["a", "b", "c"]),
        ]
        self.space = {f"p{number:02}": kinds[number % 5] for number in range(width)}
        self.study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=1))
        points = [point(width, index) for index in range(size)]
        self.study.add_trials(
            [optuna.trial.create_trial(params=one, distributions=self.space, value=value(one)) for one in points]
        )

    def ask(self) -> None:
        trial = self.study.ask(self.space)
        self.study.tell(trial, value(trial.params))


def cpu_of(asker: Ours | Theirs) -> float:
    """CPU milliseconds of one question."""
    began = time.process_time()
    asker.ask()
    return (time.process_time() - began) * 1000


def opening(side: str, width: int, size: int) -> tuple[float, float]:
    """CPU seconds and MB of a new process that opens a sweep and makes one suggestion."""
    command = [sys.executable, "-W", "ignore", __file__, "--open", side, str(width), str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seconds, megabytes = json.loads(done.stdout)
    return float(seconds), float(megabytes)


def open_here(side: str, width: int, size: int) -> None:
    """The other half of `opening`."""
    (Ours if side == "ours" else Theirs)(width, size).ask()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(json.dumps([time.process_time(), int(status["VmHWM"].split()[0]) / 1024]))


def measure(quick: bool) -> Report:
    report = Report("Cost of a suggestion")
    for width in WIDTHS:
        for size in (0, 1000) if quick else SIZES:
            ours, theirs = Ours(width, size), Theirs(width, size)
            # The first question of all loads modules; the first of a sweep reads all runs. Opening counts both.
            cpu_of(ours), cpu_of(theirs)
            rounds = (3 if quick else 5) if size else 20
            pairs = [(cpu_of(ours), cpu_of(theirs)) for _ in range(rounds)]
            mine, others = [one for one, _ in pairs], [other for _, other in pairs]
            report.figures.append(
                Figure(
                    f"suggestion, {width} parameters, {size:,} runs" if size else f"first 20, {width} parameters",
                    "ms CPU",
                    Spread.of(mine),
                    "Optuna TPE",
                    Spread.of(others),
                    f"{harness.paired_ratio(mine, others):.2f} x",
                )
            )
    for width in WIDTHS:
        size = 1000 if quick else 10_000
        rows = [(opening("ours", width, size), opening("theirs", width, size)) for _ in range(1 if quick else 3)]
        for number, unit in ((0, "s CPU"), (1, "MB peak")):
            mine, others = [one[number] for one, _ in rows], [other[number] for _, other in rows]
            report.figures.append(
                Figure(
                    f"opening {size:,} runs, {width} parameters",
                    unit,
                    Spread.of(mine),
                    "Optuna TPE",
                    Spread.of(others),
                    f"{harness.paired_ratio(mine, others):.2f} x",
                )
            )
    return report


if __name__ == "__main__":
    if sys.argv[1:2] == ["--open"]:
        open_here(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        harness.main(measure, __doc__)
