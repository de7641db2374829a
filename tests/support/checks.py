"""Whether a sweep kept what resweep promises, read from its events stream, its run records and its histories.

Every fault test ends with `check_promises`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from resweep_scheduler.store import Event, Run, RunState, Store, Sweep, SweepState
from support.costs import cost_faults

NOTES = frozenset({"stop", "target", "checkpoint", "fallback"})
"""Kinds of events that tell something of a run and change no state."""

ENDS = frozenset({"preempted", "finished", "failed", "crashed", "killed"})
"""Kinds of events that end an attempt; the event's state after has the same name."""

LEADS_TO = {
    "suggested": ("pending",),
    "claimed": ("running",),
    "adopted": ("running", "preempting"),
    "retried": ("preempted",),
}
"""The states after events whose kind is no state."""

HELD_BACK = frozenset({"target", "stopped", "canceled"})
"""Reasons for which a sweep is over though some of its runs were never started, or wait on the run queue."""


@dataclass
class Life:
    """What the events tell of one run up to now.

    Attributes:
        state: The state that the last event left; "" before the first and after the removal.
        owner: Attempt and agent that hold the run, None while nobody does.
        attempts: The attempts that were claimed or adopted, in that order.
        trail: Every event in a few words, for messages.
    """

    index: int | None = None
    state: str = ""
    owner: tuple[int | None, str | None] | None = None
    attempts: list[int] = field(default_factory=list)
    trail: list[str] = field(default_factory=list)


@dataclass
class Replay:
    """The sweep as its events tell it.

    Attributes:
        state: The sweep's state.
        lives: What became of each run, removed ones too.
        faults: Sentences that say what no legal order of events could hold.
    """

    state: str = ""
    lives: dict[str, Life] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(life.state for life in self.lives.values() if life.state)


def replay_events(events: Iterable[Event], *, rolled_back: bool = False) -> Replay:
    """Plays events from the first one on.

    Args:
        events: All events of a sweep, in order.
        rolled_back: Redis lost its last writes, so that a newer owner may have replaced an older one without its end.
    """
    replay = Replay()
    for event in events:
        if event.kind == "notice":
            if event.run_id or event.before or event.after:
                replay.faults.append(f"a notice to {event.agent} is about a run, or changed a state")
        elif event.run_id is None:
            _play_sweep_event(replay, event)
        else:
            _play_run_event(replay, event, rolled_back=rolled_back)
    return replay


def _play_sweep_event(replay: Replay, event: Event) -> None:
    if event.before != replay.state:
        replay.faults.append(f"the sweep was {replay.state or 'nothing'} when {event.before} → {event.after} came")
    replay.state = event.after


def _play_run_event(replay: Replay, event: Event, *, rolled_back: bool) -> None:
    assert event.run_id is not None
    life = replay.lives.setdefault(event.run_id, Life())
    life.trail.append(f"{event.kind}({event.attempt or 0} {event.agent or '-'}) {event.before}→{event.after}")

    def fault(text: str) -> None:
        replay.faults.append(f"run {event.run_id}: {text}: {'; '.join(life.trail)}")

    if event.before != life.state:
        fault(f"it was {life.state or 'nothing'}")
    if text := _illegal(event, rolled_back=rolled_back):
        fault(text)
    if event.kind == "suggested":
        life.index = event.data.get("index")
    if event.kind in ("claimed", "adopted"):
        _play_owner(life, event, fault_of=fault, rolled_back=rolled_back)
    elif event.kind not in NOTES and life.owner is not None:
        if (event.attempt, event.agent) != life.owner:
            fault(f"attempt and agent of the event are not those of the owner {life.owner}")
        if event.kind in ENDS:
            life.owner = None
    life.state = event.after


def _play_owner(life: Life, event: Event, *, fault_of: Callable[[str], None], rolled_back: bool) -> None:
    attempt, last = event.attempt or 0, life.attempts[-1] if life.attempts else 0
    if life.owner is not None and not rolled_back:
        fault_of(f"two owners at a time, the first is {life.owner}")
    if event.kind == "claimed" and attempt <= last:
        fault_of(f"attempt {attempt} was claimed after attempt {last}")
    if event.kind == "adopted" and attempt != last and not (rolled_back and attempt > last):
        fault_of(f"attempt {attempt} was adopted after attempt {last}")
    if event.kind == "claimed" or attempt != last:
        life.attempts.append(attempt)
    life.owner = (event.attempt, event.agent)


def _illegal(event: Event, *, rolled_back: bool) -> str:
    """Why no event may have these states; empty when it may."""
    before, after = event.before, event.after
    if event.kind in NOTES:
        return "" if before == after else "a note changed the state"
    if event.kind == "removed":
        return "" if before and not after else "what is removed becomes nothing"
    if after not in LEADS_TO.get(event.kind, (event.kind,)):
        return f"an event {event.kind} does not lead to {after or 'nothing'}"
    # The owner of a lapsed lease told how its attempt ended, and it is what had been assumed.
    confirmed = event.kind in ("preempted", "failed", "crashed") and before == after
    # The record showed an older claim than the one that was adopted.
    replaced = rolled_back and event.kind == "adopted" and before in ("running", "preempting")
    legal = RunState(before).successors if before else {RunState.PENDING}
    return "" if after in legal or confirmed or replaced else f"{before or 'nothing'} → {after} is not legal"


def check_promises(
    store: Store,
    sweep_id: str,
    *,
    complete: bool = True,
    steps: Sequence[int] | None = None,
    rolled_back: bool = False,
) -> Replay:
    """Asserts that nothing was lost, nothing counted twice, and every record agrees with the events.

    Nobody may write to the sweep meanwhile.

    Args:
        complete: The sweep is over: no lease is left, and every run has ended (a sweep that was stopped, canceled or
            reached its target may have runs that wait). Without it, runs may wait on the run queue or be owned.
        steps: Such as `range(20)`: every finished run has exactly these steps, and no attempt logged one twice.
        rolled_back: Redis lost its last writes in the test, as after a restart from a snapshot.

    Returns:
        The replay, for further questions.

    Raises:
        AssertionError: The message has one line for each fault.
    """
    sweep, runs = store.sweep(sweep_id), store.runs(sweep_id)
    replay = replay_events(store.events(sweep_id), rolled_back=rolled_back)
    faults = [
        *replay.faults,
        *_compare_with_records(replay, sweep, runs),
        *_check_places(store, sweep, runs),
        *_check_indices(store, sweep, runs),
        *(_check_end(store, sweep, runs) if complete else ()),
    ]
    faults += _check_levels(store, sweep_id, runs)
    faults += cost_faults(store, sweep_id, runs)
    for run in runs:
        faults += _check_history(store, run, replay.lives.get(run.run_id, Life()), steps)
    assert not faults, f"sweep {sweep_id} broke its promises:\n" + "\n".join(f"- {fault}" for fault in faults)
    return replay


def _compare_with_records(replay: Replay, sweep: Sweep, runs: Sequence[Run]) -> list[str]:
    """Events, records and counters tell the same."""
    faults = []
    if replay.state != sweep.state:
        faults.append(f"the sweep is {sweep.state}, by its events {replay.state}")
    recorded = Counter(run.state for run in runs)
    for state in RunState:
        told = (sweep.counts[state], recorded[state], replay.counts[state])
        if len(set(told)) > 1:
            faults.append(f"counter, records and events disagree on how many are {state}: {told}")
    known = {run.run_id for run in runs}
    for run_id, life in replay.lives.items():
        if (run_id in known) != bool(life.state):
            faults.append(f"run {run_id} {'has no' if life.state else 'still has a'} record: {'; '.join(life.trail)}")
    for run in runs:
        life = replay.lives.get(run.run_id, Life())
        trail = "; ".join(life.trail)
        if life.state != run.state:
            faults.append(f"run {run.run_id} is {run.state}, by its events {life.state or 'nothing'}: {trail}")
        if (run.state.is_owned) != (life.owner is not None) or (life.owner and life.owner != (run.attempt, run.agent)):
            faults.append(
                f"run {run.run_id}, {run.state}, attempt {run.attempt} of {run.agent}: by events {life.owner}"
            )
    return faults


def _check_places(store: Store, sweep: Sweep, runs: Sequence[Run]) -> list[str]:
    """Every run stands in exactly the place that its state says: run queue, ready list, leases, or none."""
    client, key = store.client, store.keys.sweep
    ready = [str(run_id) for run_id in client.lrange(key(sweep.sweep_id, "ready"), 0, -1)]
    leased = [lease.run_id for lease in store.leases(sweep.sweep_id)]
    expected = {
        "on the run queue": (sweep.queue, [run.run_id for run in runs if run.state is RunState.PREEMPTED]),
        "ready": (ready, [run.run_id for run in runs if run.state is RunState.PENDING]),
        "under a lease": (leased, [run.run_id for run in runs if run.state.is_owned]),
    }
    faults = []
    for place, (found, wanted) in expected.items():
        if sorted(found) != sorted(wanted):
            faults.append(f"{place} are {sorted(found)}, by their states {sorted(wanted)} should be")
    by_index = {run.run_id: run.index for run in runs}
    indices = [by_index[run_id] or 0 for run_id in ready if run_id in by_index]
    if indices != sorted(indices):
        faults.append(f"ready runs stand in another order than they were suggested: {indices}")
    return faults


def _check_indices(store: Store, sweep: Sweep, runs: Sequence[Run]) -> list[str]:
    """Each index of the search belongs to one run, and the search is shown every run once."""
    faults = []
    indices = Counter(run.index for run in runs)
    if doubled := sorted(str(index) for index, number in indices.items() if number > 1):
        faults.append(f"several runs have the same index: {', '.join(doubled)}")
    if foreign := [run.run_id for run in runs if run.index is None or not 0 <= run.index < sweep.next_index]:
        faults.append(f"runs whose index the search never gave (next is {sweep.next_index}): {foreign}")
    shown = [(record.index, record.state, dict(record.params)) for record in store.search_runs(sweep.sweep_id)]
    wanted = sorted(((run.index or 0, run.state, dict(run.params)) for run in runs), key=lambda entry: entry[0])
    if shown != wanted:
        faults.append(f"the search is shown {shown}, the records are {wanted}")
    return faults


def _check_end(store: Store, sweep: Sweep, runs: Sequence[Run]) -> list[str]:
    """Nothing is left to do."""
    faults = []
    if not sweep.state.is_over:
        faults.append(f"the sweep is {sweep.state} ({sweep.reason or 'its search is open'})")
    if owned := [f"{run.run_id} by {run.agent}" for run in runs if run.state.is_owned]:
        faults.append(f"still owned: {', '.join(owned)}")
    if leases := store.leases(sweep.sweep_id):
        faults.append(f"leases are left: {leases}")
    if sweep.reason in HELD_BACK and sweep.state in (SweepState.FINISHED, SweepState.CANCELED):
        return faults
    if sweep.queue:
        faults.append(f"the run queue is not empty: {list(sweep.queue)}")
    if waiting := [f"{run.run_id} {run.state}" for run in runs if not run.state.is_terminal]:
        faults.append(f"in no terminal state: {', '.join(waiting)}")
    return faults


def _check_levels(store: Store, sweep_id: str, runs: Sequence[Run]) -> list[str]:
    """Early termination compares runs by the values that they have, and by no others."""
    client: Any = store.client
    rule = json.loads(client.hget(store.keys.sweep(sweep_id), "stopping") or "null")
    curves = {run.run_id: store.curve(run.run_id) for run in runs}
    if rule is None or not ("bands" in rule or "interval" in rule):
        drawn = [run_id for run_id, curve in curves.items() if curve]
        return [f"runs have curves that no rule needs: {drawn}"] if rule is None and drawn else []
    faults = []
    longest = max((len(curve) for curve in curves.values()), default=0)
    for level in range(1, longest + 2):
        compared = level in rule.get("bands", ()) or (
            "interval" in rule and level >= rule["min_iter"] and (level - rule["min_iter"]) % rule["interval"] == 0
        )
        there = {
            run.run_id: rule["sign"] * curves[run.run_id][level - 1].value
            for run in runs
            if compared and len(curves[run.run_id]) >= level and ("bands" in rule or run.state is RunState.FINISHED)
        }
        known = dict(client.zrange(store.keys.sweep(sweep_id, f"level:{level}"), 0, -1, withscores=True))
        if known != there:
            faults.append(f"at iteration {level} runs are compared with {known}, by their curves it should be {there}")
    return faults


def _check_history(store: Store, run: Run, life: Life, steps: Sequence[int] | None) -> list[str]:
    """Rows come from attempts that existed, a later attempt's after an earlier one's, and every step is there once."""
    faults = []
    entries: Any = store.client.xrange(store.keys.run(run.run_id, "history"))
    rows = [(int(fields["attempt"]), int(fields["step"])) for _, fields in entries]
    if any(later < earlier for (earlier, _), (later, _) in pairwise(rows)):
        faults.append(f"run {run.run_id}: a stale attempt logged; (attempt, step) of its rows: {rows}")
    if strangers := {attempt for attempt, _ in rows} - set(life.attempts):
        faults.append(f"run {run.run_id}: rows of attempts that nobody claimed: {sorted(strangers)}")
    began_anew = store.client.hget(store.keys.run(run.run_id), "init_outcome") == "overwritten"
    counted = [step for attempt, step in rows if attempt == run.attempt or not began_anew]
    if run.step != max(counted, default=None):
        faults.append(f"run {run.run_id}: its last step is {run.step}; (attempt, step) of its rows: {rows}")
    if steps is None:
        return faults
    if doubled := [row for row, number in Counter(rows).items() if number > 1]:
        faults.append(f"run {run.run_id}: an attempt logged a step twice, (attempt, step): {doubled}")
    present = [row.step for row in store.history(run.run_id)]
    if run.state is RunState.FINISHED and present != list(steps):
        faults.append(f"run {run.run_id}: its steps should be {list(steps)}, they are {present}")
    drawn = [point.step for point in store.curve(run.run_id)]
    if run.state is RunState.FINISHED and drawn and drawn != list(steps):
        faults.append(f"run {run.run_id}: its curve should have the steps {list(steps)}, it has {drawn}")
    return faults
