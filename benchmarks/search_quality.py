"""How good the proposals are: simple regret after as many finished runs, with one or many in flight.

A sweep is simulated: `k` agents each take a run, which lasts a random (lognormal) time; whoever finishes first is
told first, and its agent asks for the next. With ``--preempted`` 30 % of the runs are preempted once or more: they lose
half of what they had done, are resumed and so finish later. Figures are medians over seeds; every seed has the
same durations for every method.

Results are appended to a file of JSON lines, so pieces can be run apart; ``--table`` prints the table of all that the
file holds. For the methods of others: pip install "sweeps==0.3.0" torch.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quality_methods import METHODS, Method
from quality_problems import PROBLEMS, Problem

CHECKPOINTS = (25, 50, 100, 200)
SPREAD = 0.6  # of the logarithm of durations
PREEMPTED_SHARE = 0.3
# A median is level with the best if it is within this factor, or so small that nobody would train for the difference.
LEVEL_FACTOR = 1.1
UNDISTURBED = {"wandb_optuna": "optuna_tpe"}
"""Which method a method is when no run is preempted, where that is another one."""
NEGLIGIBLE = {"branin": 1e-3, "hartmann6": 1e-3, "rosenbrock5": 1e-2, "mixed": 1e-3, "svm": 1e-9, "mlp": 1e-4}


class Durations:
    """How long the runs of a seed take, and how often they are preempted."""

    def __init__(self, seed: int, preempted: bool) -> None:
        self._seed = seed
        self._preempted = preempted

    def pieces(self, index: int) -> list[float]:
        """The lengths of the attempts of a run; all but the last end by preemption."""
        draws = random.Random(f"{self._seed}:{index}")
        work = draws.lognormvariate(0, SPREAD)
        pieces: list[float] = []
        while self._preempted and draws.random() < PREEMPTED_SHARE:
            piece = work * draws.random()
            pieces.append(piece)
            work -= piece / 2
        return [*pieces, work]


def simulate(
    method: Method, problem: Problem, *, in_flight: int, runs: int, durations: Durations
) -> tuple[list[float], float]:
    """The best value after each finished run, and the CPU seconds of all asking and telling."""
    events: list[tuple[float, int, float, list[float]]] = []
    best: list[float] = []
    asked, spent = 0, 0.0

    def start(now: float) -> None:
        nonlocal asked, spent
        began = time.process_time()
        point = method.ask(asked)
        spent += time.process_time() - began
        first, *rest = durations.pieces(asked)
        heapq.heappush(events, (now + first, asked, problem.evaluate(point), rest))
        asked += 1

    for _ in range(in_flight):
        start(0.0)
    while len(best) < runs:
        now, index, value, rest = heapq.heappop(events)
        if rest:
            method.preempt(index)
            heapq.heappush(events, (now + rest[0], index, value, rest[1:]))
            continue
        began = time.process_time()
        method.tell(index, value)
        spent += time.process_time() - began
        best.append(min(value, best[-1]) if best else value)
        start(now)
    return best, spent


def run_all(options: argparse.Namespace) -> None:
    """Run what was asked for and is not in the file yet."""
    done = {_identity(one) for one in read(options.file)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.functions:
            for in_flight in options.in_flight:
                for method in options.methods:
                    record = {
                        "method": options.label or method,
                        "function": name,
                        "in_flight": in_flight,
                        "seed": seed,
                        "preempted": options.preempted,
                        "runs": options.runs,
                    }
                    if _identity(record) in done:
                        continue
                    searcher = METHODS[method](PROBLEMS[name], seed)
                    durations = Durations(seed, options.preempted)
                    best, spent = simulate(
                        searcher, PROBLEMS[name], in_flight=in_flight, runs=options.runs, durations=durations
                    )
                    record["best"] = {at: best[at - 1] for at in CHECKPOINTS if at <= options.runs}
                    record["cpu_ms"] = round(spent * 1000 / (options.runs + in_flight), 2)
                    with options.file.open("a") as file:
                        file.write(json.dumps(record) + "\n")
                    print(json.dumps(record), file=sys.stderr, flush=True)


def _identity(record: dict[str, Any]) -> tuple[object, ...]:
    return tuple(record[key] for key in ("method", "function", "in_flight", "seed", "preempted"))


def read(file: Path) -> list[dict[str, Any]]:
    """All records of a file; of those of the same piece, the last."""
    if not file.exists():
        return []
    records = [json.loads(line) for line in file.read_text().splitlines()]
    return list({_identity(one): one for one in records}.values())


def table(records: Sequence[dict[str, Any]], methods: Sequence[str], *, preempted: bool) -> str:
    """The medians as a Markdown table: bold where best or level with it.

    With `preempted`, each method's median without preemption follows, and how often preemption cost nothing.
    """
    medians = _medians(records)
    mine = [method for method in methods if any(key[3:] == (method, preempted) for key in medians)]
    if not mine:
        raise SystemExit(f"no results of {', '.join(methods) or 'any method'} in the file; run without --table first")
    calm = [] if not preempted else list(dict.fromkeys(UNDISTURBED.get(method, method) for method in mine))
    head = [*mine, *(f"{method}, undisturbed" for method in calm)]
    lines = [f"| function | in flight | finished | {' | '.join(head)} |", "|---" * (3 + len(head)) + "|"]
    wins = cells = 0
    harmless, compared = dict.fromkeys(mine, 0), dict.fromkeys(mine, 0)
    for name in PROBLEMS:
        for in_flight in sorted({key[1] for key in medians if key[0] == name and key[4] == preempted}):
            for at in CHECKPOINTS:
                row = {one: medians.get((name, in_flight, at, one, preempted)) for one in mine}
                found = [value for value in row.values() if value is not None]
                if not found:
                    continue
                level = _level(name, min(found))
                words = [_cell(value, bold=value is not None and value <= level) for value in row.values()]
                before = {one: medians.get((name, in_flight, at, one, False)) for one in calm}
                words += [_cell(value, bold=False) for value in before.values()]
                lines.append(f"| {name} | {in_flight} | {at} | {' | '.join(words)} |")
                first = row[mine[0]]
                if first is not None and len(found) > 1:
                    cells += 1
                    wins += first <= level
                for method, value in row.items():
                    undisturbed = before.get(UNDISTURBED.get(method, method))
                    if value is not None and undisturbed is not None:
                        compared[method] += 1
                        harmless[method] += value <= _level(name, undisturbed)
    seeds = {one: _seeds(records, one, preempted=preempted) for one in mine}
    lines += ["", f"{mine[0]} is best or level in {wins} of {cells} cells. Seeds: {seeds}."]
    if preempted:
        unharmed = {method: f"{harmless[method]} of {compared[method]} cells" for method in mine}
        lines.append(f"Level with or better than undisturbed: {unharmed}.")
    return "\n".join(lines)


def _medians(records: Sequence[dict[str, Any]]) -> dict[tuple[str, int, int, str, bool], float]:
    """The median regret by function, runs in flight, finished runs, method and whether runs were preempted."""
    floor = {name: problem.optimum for name, problem in PROBLEMS.items()}
    for one in records:
        if PROBLEMS[one["function"]].optimum is None:
            lowest = min(one["best"].values())
            floor[one["function"]] = min(floor[one["function"]] or math.inf, lowest)
    regrets: dict[tuple[str, int, int, str, bool], list[float]] = defaultdict(list)
    for one in records:
        for at, value in one["best"].items():
            key = (one["function"], one["in_flight"], int(at), one["method"], one["preempted"])
            regrets[key].append(value - (floor[one["function"]] or 0.0))
    return {key: statistics.median(values) for key, values in regrets.items()}


def _level(function: str, least: float) -> float:
    """The largest median that is level with `least`."""
    return max(least * LEVEL_FACTOR, least + NEGLIGIBLE[function])


def _cell(value: float | None, *, bold: bool) -> str:
    text = "-" if value is None else f"{value:.3g}"
    return f"**{text}**" if bold else text


def _seeds(records: Sequence[dict[str, Any]], method: str, *, preempted: bool) -> str:
    """How many seeds the cells of a method have: the least and the most."""
    cells: dict[tuple[str, int], int] = defaultdict(int)
    for one in records:
        if (one["method"], one["preempted"]) == (method, preempted):
            cells[one["function"], one["in_flight"]] += 1
    least, most = min(cells.values()), max(cells.values())
    return f"{least}" if least == most else f"{least} to {most}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["resweep"])
    parser.add_argument("--functions", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--in-flight", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--preempted", action="store_true", help="preempt 30 %% of the runs once or more")
    parser.add_argument("--label", help="the name in the table, to compare versions of one method")
    parser.add_argument("--file", type=Path, default=Path("quality.jsonl"), help="results; appended to")
    parser.add_argument("--table", nargs="*", metavar="METHOD", help="print the table of the file, these columns only")
    options = parser.parse_args()
    if options.table is None:
        run_all(options)
        return
    records = read(options.file)
    present = {one["method"] for one in records}
    methods = options.table or [name for name in METHODS if name in present]
    print(table(records, methods, preempted=options.preempted))


if __name__ == "__main__":
    main()
