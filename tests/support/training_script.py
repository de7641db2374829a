"""A training script that does as the tests say; `support.training.Training` makes its environment.

Each step adds its number to a total, logs it and saves a checkpoint: so the total of a step tells whether a resumed run
went on from the right checkpoint.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import resweep

SLEEPER = "import time; time.sleep(600)"


class PreemptedError(Exception):
    """SIGTERM came."""


def on_sigterm(number: int, frame: FrameType | None) -> None:
    raise PreemptedError


def start_grandchildren(kinds: list[str]) -> list[int]:
    """Processes that would outlive this one, in its process group or in a session of their own."""
    return [
        subprocess.Popen([sys.executable, "-S", "-c", SLEEPER], start_new_session=kind == "session").pid
        for kind in kinds
    ]


def leave_trace(folder: Path, name: str, **facts: object) -> None:
    """Write a file at once or not at all."""
    part = folder / f".{name}"
    part.write_text(json.dumps(facts))
    part.rename(folder / name)


def train(run: resweep.Run, order: dict[str, str], trace: Path) -> None:
    total, step = 0, -1
    restored = run.restore_checkpoint()
    if restored is not None:
        state = json.loads(restored.read_text())
        total, step = state["total"], state["step"]
    run.config["resumed_from"] = step
    for _ in range(int(order["babble"]) // 100):
        print("." * 99)
    if order["mark"] == "start":
        run.mark_preempting()
    for number in range(step + 1, int(order["steps"])):
        if number == int(order["gate_step"]):
            leave_trace(trace, f"{run.id}-{run.attempt}.gate", step=number)
            while not Path(order["gate"]).exists():
                time.sleep(0.02)
        time.sleep(float(order["step_seconds"]))
        total += number
        run.log({"total": total, "score": float(number)}, step=number)
        print(f"step {number}", flush=True)
        if order["saves"] == "yes":
            state_file = trace / f"{run.id}-{run.attempt}.state"
            state_file.write_text(json.dumps({"total": total, "step": number}))
            run.save_checkpoint(state_file, step=number)


def main() -> int:
    order = json.loads(os.environ["TRAINING_ORDER"])
    trace = Path(order["trace"])
    if (largest_file := int(order["largest_file"])) >= 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if order["mark"] == "sigterm":
        signal.signal(signal.SIGTERM, on_sigterm)
    elif order["mark"] == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with resweep.init(config={"optimiser": "sum"}) as run:
        grandchildren = start_grandchildren(json.loads(order["grandchildren"]))
        leave_trace(trace, f"{run.id}-{run.attempt}", pid=os.getpid(), agent=os.getppid(), grandchildren=grandchildren)
        try:
            train(run, order, trace)
        except PreemptedError:
            run.mark_preempting()
            run.finish(exit_code=1)
            return 1
        leave_trace(trace, f"{run.id}-{run.attempt}.done")
    return int(order["exit_code"])


if __name__ == "__main__":
    sys.exit(main())
