"""What the accounts need, read from the store: events, records, and of histories the few rows that decide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from resweep_scheduler.accounts.attempts import Life, lives_of
from resweep_scheduler.accounts.costs import Logged, RunCost, account_run, restart_steps
from resweep_scheduler.store import Store
from resweep_scheduler.store.records import Event, Run
from resweep_scheduler.store.steps import Window

NOTHING = Logged()


def read_run_cost(store: Store, run: Run, events: Iterable[Event], *, now: int) -> RunCost:
    """The cost of one run.

    Args:
        events: Of its sweep, or those of them that are its own.
        now: On the Redis clock, ms.
    """
    return read_sweep_costs(store, [run], events, now=now)[0]


def read_sweep_costs(store: Store, runs: Sequence[Run], events: Iterable[Event], *, now: int) -> list[RunCost]:
    """The cost of each run, in the order of `runs`."""
    lives = lives_of(events)
    mine = [lives.get(run.run_id) or Life(run.run_id, state=run.state.value) for run in runs]
    decided = [life for life in mine if _asks_history(life)]
    windows = [window for life in decided for window in _windows(life)]
    firsts = store.first_steps(windows)
    steps: dict[str, list[int | None]] = {}
    restarts: list[int | None] = []
    for life in decided:
        start = len(restarts)
        steps[life.run_id] = firsts[start : start + len(life.attempts)]
        restarts += restart_steps(life, steps[life.run_id])
    tails = store.tails(windows, restarts)
    logged: dict[str, list[Logged]] = {}
    for window, tail in zip(windows, tails, strict=True):
        logged.setdefault(window.run_id, []).append(Logged(tail.last_before, tail.from_there))
    return [
        account_run(
            life,
            steps.get(life.run_id, [None] * len(life.attempts)),
            logged.get(life.run_id, [NOTHING] * len(life.attempts)),
            now=now,
            attempts=run.attempt,
            busy=round(run.seconds * 1000),
        )
        for run, life in zip(runs, mine, strict=True)
    ]


def _asks_history(life: Life) -> bool:
    """Whether some attempt ended otherwise than by finishing the run: then its steps say what was kept."""
    return any(attempt.is_over and attempt.ended != "finished" for attempt in life.attempts)


def _windows(life: Life) -> list[Window]:
    """An attempt whose claim is not known is taken to log from the beginning."""
    starts = [attempt.start or 0 for attempt in life.attempts]
    return [
        Window(life.run_id, attempt.number, start, end)
        for attempt, start, end in zip(life.attempts, starts, [*starts[1:], None], strict=True)
    ]
