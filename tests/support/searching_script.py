"""A training script whose score is a function of its parameters; it takes as long as SEARCHING_SECONDS says."""

from __future__ import annotations

import os
import time

import resweep

with resweep.init() as run:
    time.sleep(float(os.environ.get("SEARCHING_SECONDS", "0")))
    run.log({"score": -((run.config["x"] - 0.3) ** 2) - (run.config["y"] - 0.7) ** 2})
