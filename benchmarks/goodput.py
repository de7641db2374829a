"""Goodput of 1,000 machines over a day, when machines are taken away at random: time that ended in kept work / time paid.

Preemptions are a Poisson process for each machine, with a mean of 1, 5 and 20 times the checkpoint interval (1 h)
between two. `fleet.py` says what is simulated; all of it goes through the store's own scripts on a real server, under a
clock that is set (`virtual_time.py`). Besides resweep's, the same fleet lives by the rules of others:

* W&B: a run without a status is seen as lost after 5 minutes without a heartbeat, and goes on at its last checkpoint
  (docs.wandb.ai, "Resume a run", preemptible sweeps). Its agent does not pass SIGTERM on unless it is told to
  (`--forward-signals`), so no notice helps.
* Ray Tune: a node is dead after 5 health checks, one every 3 s, each with a timeout of 10 s: at most 65 s
  (src/ray/common/ray_config_def.h: health_check_period_ms, health_check_timeout_ms, health_check_failure_threshold).
  By default, `FailureConfig(max_failures=0)`, a trial whose node died is over (ray.tune FailureConfig: "Setting to 0
  will disable retries"); with max_failures=-1 it goes on at its last checkpoint. Only nodes that were drained with the
  reason "preemption" do not count as failures (python/ray/tune/experiment/trial.py, RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE);
  nothing drains a machine that just vanishes.

`--plot FILE` writes the plot of docs/goodput.md.
"""  # noqa: E501

from __future__ import annotations

import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import harness
from fleet import CHECKPOINT, Fleet, Outcome, Policy
from goodput_plot import draw
from harness import Figure, Report, Spread
from virtual_time import VirtualClock, VirtualStore

FACTORS = (1, 5, 20)
SIDE_BY_SIDE = 4
POLICIES = (
    Policy("resweep, notice, saves", warned=True, saves=True),
    Policy("resweep, notice", warned=True),
    Policy("resweep, no notice"),
    Policy("W&B's rules", beat=30, silence=300, fruitless=0),
    Policy("Ray Tune, max_failures=-1", beat=1, silence=65, fruitless=0),
    Policy("Ray Tune, defaults", beat=1, silence=65, retried=False, fruitless=0),
)
OTHERS = [policy.name for policy in POLICIES[3:]]
COMPARED = (
    *((policy.name, OTHERS[0]) for policy in POLICIES[:3]),
    *((POLICIES[2].name, name) for name in OTHERS[1:]),
)
"""A policy of resweep and one of others."""


def simulate_all(machines: int, server: harness.Server) -> dict[tuple[str, int], Outcome]:
    """Every policy with every mean time, on the same losses."""

    def simulate(policy: Policy, factor: int) -> Outcome:
        with server.client() as client:
            store = VirtualStore(client, harness.SCOPE, VirtualClock())
            store.load()
            outcome = Fleet(store, policy, machines=machines, mean=factor * CHECKPOINT).simulate()
        harness.say(f"goodput: {factor:2} x, {policy.name}: {100 * outcome.goodput:.1f} % ({store.calls:,} calls)")
        return outcome

    cases = [(policy, factor) for factor in FACTORS for policy in POLICIES]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:  # the server is busy all the time
        outcomes = pool.map(lambda case: simulate(*case), cases)
        return {(policy.name, factor): outcome for (policy, factor), outcome in zip(cases, outcomes, strict=True)}


def measure(quick: bool) -> Report:
    """Each policy of resweep beside those of others."""
    with harness.private_server("") as server:
        outcomes = simulate_all(20 if quick else 1000, server)
    if plot is not None:
        goodputs = {policy.name: [outcomes[policy.name, factor].goodput for factor in FACTORS] for policy in POLICIES}
        plot.write_text(draw(goodputs, FACTORS), encoding="utf-8")
    harness.say(where_it_went(outcomes))
    figures = []
    for factor in FACTORS:
        for ours, theirs in COMPARED:
            mine, other = (100 * outcomes[name, factor].goodput for name in (ours, theirs))
            name = f"{ours}, {factor} x"
            difference = f"{mine - other:+.1f} points"
            figures.append(Figure(name, "%", Spread.of([mine]), theirs, Spread.of([other]), difference))
    given_up = sum(outcomes[policy.name, factor].given_up for policy in POLICIES[:3] for factor in FACTORS)
    remarks = [
        "1, 5, 20 x: the mean time between two preemptions of a machine, in checkpoint intervals (of 1 h)",
        f"of the runs of resweep, all policies together, {given_up:,} were given up (max_attempts_without_progress: 3)",
    ]
    return Report("Goodput under Poisson preemptions: 1,000 machines, one day", figures, remarks)


def where_it_went(outcomes: dict[tuple[str, int], Outcome]) -> str:
    """The table of docs/goodput.md."""
    lines = [
        "| mean time between preemptions | rules | goodput | done again | starting, saving | waiting | restart after |",
        "|---|---|---|---|---|---|---|",
    ]
    for factor in FACTORS:
        for policy in POLICIES:
            one = outcomes[policy.name, factor]
            shares = (one.goodput, *(part / one.paid for part in (one.done_again, one.overhead, one.idle)))
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
            delay = f"{statistics.median(one.delays):.0f} s" if one.delays else "never"
            lines.append(f"| {factor} x the interval | {policy.name} | {cells} | {delay} |")
    return "\n".join(lines)


plot: Path | None = None

if __name__ == "__main__":
    if "--plot" in sys.argv:
        place = sys.argv.index("--plot")
        plot = Path(sys.argv[place + 1])
        del sys.argv[place : place + 2]
    harness.main(measure, __doc__)
