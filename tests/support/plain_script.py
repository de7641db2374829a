"""A training script as there are many: it knows nothing of resweep, and goes on from its own file if there is one.

It counts to `--steps`, saves each step, and before `--gate` waits until the file `gate-is-open` is there.
"""

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--point", type=int)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--gate", type=int, default=3)
parser.add_argument("--folder", type=Path, required=True)
options = parser.parse_args()

state = options.folder / f"state-{options.point}.json"
done = json.loads(state.read_text())["done"] if state.exists() else []
print(f"begins at step {len(done)}", flush=True)
for step in range(len(done), options.steps):
    if step == options.gate:
        (options.folder / f"at-gate-{os.getpid()}").touch()
        while not (options.folder / "gate-is-open").exists():
            time.sleep(0.02)
    done.append(step)
    part = state.with_suffix(".part")
    part.write_text(json.dumps({"done": done}))
    part.rename(state)
