"""Every transition on a run in every state: what the scripts do is what states.py says, both ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, make_offer, make_sweep, pass_time

from resweep_scheduler.store import RunState, Store

RUN = "run0"


class Scene:
    """A sweep with one run and the agent that owns it or owned it last."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.owner: Agent

    def begin(self, *, limit: int = 3, preemptible: bool = False) -> Agent:
        make_sweep(self.store, max_attempts_without_progress=limit)
        self.owner = Agent(self.store, "owner", preemptible=preemptible)
        self.store.add_runs(SWEEP, make_offer(1))
        return self.owner

    def take(self, *, limit: int = 3, preemptible: bool = False) -> Agent:
        self.begin(limit=limit, preemptible=preemptible).take()
        return self.owner

    def take_and_mark(self, *, limit: int = 3) -> Agent:
        self.take(limit=limit).mark()
        return self.owner

    def lapse(self, owner: Agent) -> None:
        """`owner` is not heard until its lease has run out."""
        assert owner is self.owner
        pass_time(self.store, self.clock, LEASE)

    def restart_owner(self) -> None:
        Agent(self.store, "owner", session="restarted")

    def claim_by_another(self) -> None:
        Agent(self.store, "other").claim()

    def state(self) -> RunState:
        return self.store.run(RUN).state


def _killed(scene: Scene) -> None:
    scene.take()
    scene.store.stop_run(RUN, reason="stopped by user")
    scene.owner.end(None, killed=True)


def _lapsed_killed(scene: Scene) -> None:
    scene.take()
    scene.store.stop_run(RUN, reason="stopped by user")
    scene.lapse(scene.owner)


BEGINNINGS: dict[str, tuple[RunState, Callable[[Scene], object]]] = {
    "pending": (RunState.PENDING, lambda scene: scene.begin()),
    "running": (RunState.RUNNING, lambda scene: scene.take()),
    "preempting": (RunState.PREEMPTING, lambda scene: scene.take_and_mark()),
    "preempting, last try": (RunState.PREEMPTING, lambda scene: scene.take_and_mark(limit=1)),
    "preempted": (RunState.PREEMPTED, lambda scene: scene.take_and_mark().end(1)),
    "finished": (RunState.FINISHED, lambda scene: scene.take().end(0)),
    "failed": (RunState.FAILED, lambda scene: scene.take().end(1)),
    "crashed": (RunState.CRASHED, lambda scene: scene.take().end(None)),
    "killed": (RunState.KILLED, _killed),
    # The lease ran out, and nobody took the run: its owner may come back.
    "lapsed, was running": (RunState.CRASHED, lambda scene: scene.lapse(scene.take())),
    "lapsed, was preempting": (RunState.PREEMPTED, lambda scene: scene.lapse(scene.take_and_mark())),
    "lapsed, preemptible": (RunState.PREEMPTED, lambda scene: scene.lapse(scene.take(preemptible=True))),
    "lapsed, preempting, last try": (RunState.FAILED, lambda scene: scene.lapse(scene.take_and_mark(limit=1))),
    "lapsed, preemptible, last try": (
        RunState.FAILED,
        lambda scene: scene.lapse(scene.take(limit=1, preemptible=True)),
    ),
    "lapsed, to be stopped": (RunState.KILLED, _lapsed_killed),
}

ACTIONS: dict[str, Callable[[Scene], object]] = {
    "claim": lambda scene: scene.claim_by_another(),
    "mark": lambda scene: scene.owner.mark(),
    "end with 0": lambda scene: scene.owner.end(0),
    "end with 1": lambda scene: scene.owner.end(1),
    "end without status": lambda scene: scene.owner.end(None, signal=9),
    "end with 1 after a notice": lambda scene: scene.owner.end(1, preempted=True),
    "end by a stop": lambda scene: scene.owner.end(None, signal=15, killed=True),
    "lease runs out": lambda scene: scene.lapse(scene.owner),
    "agent restarts": lambda scene: scene.restart_owner(),
    "stop": lambda scene: scene.store.stop_run(RUN, reason="stopped by user"),
    "retry": lambda scene: scene.store.retry_runs(SWEEP, [RUN]),
    "adopt": lambda scene: scene.owner.adopt(),
    "heartbeat": lambda scene: scene.owner.heartbeat(),
    "log": lambda scene: scene.owner.log(0),
}

R = RunState
# What each action makes of each beginning; what is not listed stays as it is.
CHANGES: dict[str, dict[str, RunState]] = {
    "claim": {
        "pending": R.RUNNING,
        "preempted": R.RUNNING,
        "lapsed, was preempting": R.RUNNING,
        "lapsed, preemptible": R.RUNNING,
    },
    "mark": {"running": R.PREEMPTING},
    "end with 0": {
        "running": R.FINISHED,
        "preempting": R.FINISHED,
        "preempting, last try": R.FINISHED,
        "lapsed, was running": R.FINISHED,
        "lapsed, was preempting": R.FINISHED,
        "lapsed, preemptible": R.FINISHED,
        "lapsed, preempting, last try": R.FINISHED,
        "lapsed, preemptible, last try": R.FINISHED,
    },
    "end with 1": {
        "running": R.FAILED,
        "preempting": R.PREEMPTED,
        "preempting, last try": R.FAILED,
        "lapsed, was running": R.FAILED,
        "lapsed, preemptible": R.FAILED,
    },
    "end without status": {
        "running": R.CRASHED,
        "preempting": R.PREEMPTED,
        "preempting, last try": R.FAILED,
        "lapsed, preemptible": R.CRASHED,
        "lapsed, preemptible, last try": R.CRASHED,
    },
    "end with 1 after a notice": {
        "running": R.PREEMPTED,
        "preempting": R.PREEMPTED,
        "preempting, last try": R.FAILED,
        "lapsed, was running": R.PREEMPTED,
    },
    "end by a stop": {
        "running": R.KILLED,
        "preempting": R.KILLED,
        "preempting, last try": R.KILLED,
        "lapsed, was running": R.KILLED,
        "lapsed, was preempting": R.KILLED,
        "lapsed, preemptible": R.KILLED,
        "lapsed, preempting, last try": R.KILLED,
        "lapsed, preemptible, last try": R.KILLED,
    },
    "lease runs out": {"running": R.CRASHED, "preempting": R.PREEMPTED, "preempting, last try": R.FAILED},
    "agent restarts": {"running": R.CRASHED, "preempting": R.PREEMPTED, "preempting, last try": R.FAILED},
    "stop": {
        "pending": R.KILLED,
        "preempted": R.KILLED,
        "lapsed, was preempting": R.KILLED,
        "lapsed, preemptible": R.KILLED,
    },
    "retry": {
        "failed": R.PREEMPTED,
        "crashed": R.PREEMPTED,
        "killed": R.PREEMPTED,
        "lapsed, was running": R.PREEMPTED,
        "lapsed, preempting, last try": R.PREEMPTED,
        "lapsed, preemptible, last try": R.PREEMPTED,
        "lapsed, to be stopped": R.PREEMPTED,
    },
    "adopt": {
        "lapsed, was running": R.RUNNING,
        "lapsed, was preempting": R.PREEMPTING,
        "lapsed, preemptible": R.RUNNING,
        "lapsed, preempting, last try": R.PREEMPTING,
        "lapsed, preemptible, last try": R.RUNNING,
    },
    "heartbeat": {},
    "log": {},
}
BY_OWNER = frozenset(ACTIONS) - {"claim", "lease runs out", "agent restarts", "stop", "retry"}


CASES = [
    (beginning, action)
    for beginning in BEGINNINGS
    for action in ACTIONS
    if not (beginning == "pending" and action in BY_OWNER)  # nobody has a token to do this with
]


@pytest.mark.parametrize(("beginning", "action"), CASES)
def test_every_action_in_every_state(store: Store, clock: Clock, beginning: str, action: str) -> None:
    """The state after is the one of the table, and events, counters, places and records agree."""
    scene = Scene(store, clock)
    before, begin = BEGINNINGS[beginning]
    begin(scene)
    assert scene.state() is before
    ACTIONS[action](scene)
    assert scene.state() is CHANGES[action].get(beginning, before)
    check_promises(store, SWEEP, complete=False)


def test_table_of_successors_is_what_the_scripts_do() -> None:
    """states.py names every change that some script makes, and none that no script makes."""
    made = {(BEGINNINGS[name][0], after) for changes in CHANGES.values() for name, after in changes.items()}
    said = {(before, after) for before in RunState for after in before.successors}
    assert {pair for pair in made if pair[0] is not pair[1]} == said


def test_only_terminal_states_are_terminal_and_only_owned_ones_owned() -> None:
    """An ended run leaves its state only by a retry or by an owner that comes back, a waiting one by a claim."""
    assert {state for state in RunState if state.is_terminal} == {R.FINISHED, R.FAILED, R.CRASHED, R.KILLED}
    assert {state for state in RunState if state.is_owned} == {R.RUNNING, R.PREEMPTING}
    assert not R.FINISHED.successors
