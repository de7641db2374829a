"""Runs all benchmarks one after the other and prints their tables, as docs/performance.md has them.

The tables go to standard output, progress and failures to standard error. A benchmark that fails is named and the
rest still runs; the exit code is 1 then. A target that is missed is no failure.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import harness

BENCHMARKS = (
    "gap",
    "throughput",
    "agents",
    "preemption",
    "notices",
    "goodput",
    "log_cost",
    "import_time",
    "memory",
    "checkpoints",
    "stopping",
    "search_service",
    "slurm",
    "gateway",
)
NEEDS = {"slurm": ("slurmctld", "slurmd", "sbatch", "munged")}
"""Programs that a benchmark starts."""
PACKAGES = ("resweep", "redis", "rq", "optuna", "obstore")


def processor() -> str:
    """The model of the processor, as Linux knows it, and how many of them we may use."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{model}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


def server_version() -> str:
    """What the server says of itself."""
    with harness.private_server("") as server, server.client() as client:
        info = client.info("server")
    if name := info.get("valkey_version"):
        return f"Valkey {name}"
    return f"Redis {info['redis_version']}"


def load() -> str:
    """How busy the machine is: what waited for a processor in the last 1 and 15 minutes."""
    one, _, fifteen = os.getloadavg()
    return f"{one:.1f} (1 min), {fifteen:.1f} (15 min)"


def heading() -> str:
    """Where and when the figures were taken."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return "\n".join(
        [
            f"* {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {processor()}; {platform.system()} {platform.release()}",
            f"* Python {platform.python_version()}, {server_version()}, {packages}",
            f"* load of the machine before: {load()}",
        ]
    )


def run(name: str, folder: Path, *, quick: bool) -> harness.Report | None:
    """One benchmark in a process of its own; None when it failed."""
    result = folder / f"{name}.json"
    command = [sys.executable, str(Path(__file__).with_name(f"{name}.py")), "--json", str(result)]
    done = subprocess.run([*command, *(["--quick"] if quick else [])], stdout=subprocess.DEVNULL, check=False)
    return harness.read_report(result) if done.returncode == 0 and result.exists() else None


def missing(name: str) -> list[str]:
    """The programs that a benchmark needs and that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [program for program in NEEDS.get(name, ()) if shutil.which(program, path=path) is None]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: shows that it works, not how fast")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of {', '.join(BENCHMARKS)}")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    print(heading(), flush=True)
    failed = []
    with tempfile.TemporaryDirectory(prefix="resweep-bench-") as folder:
        for name in options.names or BENCHMARKS:
            if lacking := missing(name):
                print(f"\n* {name}: not measured, {', '.join(lacking)} not installed", flush=True)
                continue
            report = run(name, Path(folder), quick=options.quick)
            if report is None:
                failed.append(name)
            else:
                print(f"\n{harness.as_markdown(report)}", flush=True)
    print(f"\n* load of the machine after: {load()}; the benchmarks are part of it")
    if failed:
        harness.say(f"failed: {', '.join(failed)}; run them alone to see why, for instance: python {failed[0]}.py")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
