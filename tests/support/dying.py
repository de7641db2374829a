"""Runs a command in this process and kills it when it has done a step of a suggestion: dying.py STEP N COMMAND…

The steps: `asked` (it has the right to compute), `read` (the records of earlier runs), `computed`, `added` (Redis has
the suggestions, and nobody knows it yet). N counts from 1. Nothing of this is in the product.
"""

from __future__ import annotations

import itertools
import os
import runpy
import signal
import sys
from collections.abc import Callable
from typing import Any

from resweep_scheduler.search.suggester import Suggester
from resweep_scheduler.store import AskOutcome, Store
from resweep_scheduler.store.search_history import SearchHistory

STEPS: dict[str, tuple[type, str]] = {
    "asked": (Store, "begin_asking"),
    "read": (SearchHistory, "refresh"),
    "computed": (Suggester, "compute"),
    "added": (Store, "add_runs"),
}


def die_after(owner: type, name: str, occurrence: int) -> None:
    """Let the process be killed when a method has returned for the `occurrence`-th time."""
    real: Callable[..., Any] = getattr(owner, name)
    numbers = itertools.count(1)

    def dying(*arguments: Any, **more: Any) -> Any:
        answer = real(*arguments, **more)
        if name == "begin_asking" and answer.outcome is not AskOutcome.ASK:
            return answer
        if next(numbers) >= occurrence:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, dying)


if __name__ == "__main__":
    step, number, *command = sys.argv[1:]
    die_after(*STEPS[step], int(number))
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")
