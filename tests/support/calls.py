"""One call of each transition of the store, ready to be made: what the tests of lost and late messages send.

`CALLS` has a maker for every script in store/lua. A maker brings a sweep to where the call makes sense and returns it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from resweep_scheduler.store import (
    AskOutcome,
    ClaimedRun,
    ClaimOutcome,
    ClaimRequest,
    ClaimToken,
    EndRequest,
    Hold,
    InitOutcome,
    LatestValue,
    NewRun,
    Offer,
    Store,
    SweepCommand,
    SweepSettings,
    SweepState,
    new_id,
)
from resweep_scheduler.store.states import RunState
from support.stopping import hyperband

LEASE_MS = 60_000
SETTINGS = SweepSettings(
    lease_ms=LEASE_MS, heartbeat_ms=LEASE_MS // 6, max_attempts_without_progress=0, stopping=hyperband(1, 2)
)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a script.

    Attributes:
        make: Makes it, on any store.
        answered: Whether an answer is one that a repeated call may get.
        supersede: What others do meanwhile, so that the call comes too late; None for commands of people, which carry
            no token and are executed whenever they come.
    """

    make: Callable[[Store], Any]
    answered: Callable[[Any], bool]
    supersede: Callable[[], object] | None = None


@dataclass(slots=True)
class Stage:
    """A sweep with four suggested runs and the agents `one` and `two`."""

    store: Store
    sweep_id: str = field(default_factory=new_id)
    nonces: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store.create_sweep(
            sweep_id=self.sweep_id, nonce="creator", config_text="", config_json="{}", settings=SETTINGS
        )
        self.store.add_runs(self.sweep_id, self.offer(0, 4))
        for agent in ("one", "two"):
            self.register(agent, f"{agent}a")

    def offer(self, first: int, count: int) -> Offer:
        runs = tuple(
            NewRun(f"{self.sweep_id}-{index}", index, {"point": index}) for index in range(first, first + count)
        )
        return Offer(first_index=first, runs=runs)

    def register(self, agent: str, session: str, *, store: Store | None = None) -> list[str]:
        return (store or self.store).register(self.sweep_id, agent=agent, session=session, host="here", pid=1)

    def request(self, agent: str) -> ClaimRequest:
        """The agent's next claim: the same one until `claim` got an answer to it."""
        nonce = f"{agent}a.{self.nonces.get(agent, 1)}"
        return ClaimRequest(sweep_id=self.sweep_id, agent=agent, nonce=nonce, lease_ms=LEASE_MS)

    def claim(self, agent: str) -> ClaimedRun:
        answer = self.store.claim(self.request(agent))
        assert answer.outcome is ClaimOutcome.RUN, answer
        assert answer.run is not None
        self.nonces[agent] = self.nonces.get(agent, 1) + 1
        return answer.run

    def begin(self, agent: str = "one") -> ClaimToken:
        """The token of a run that was claimed, launched and initialised."""
        token = self.claim(agent).token
        self.store.heartbeat(self.sweep_id, agent=agent, token=token, lease_ms=LEASE_MS)
        self.store.init_run(run_id=token.run_id, resume="allow", nonce=token.nonce, attempt=token.attempt)
        return token

    def end(self, token: ClaimToken, *, exit_code: int | None = None, preempted: bool = False) -> None:
        self.store.end_attempt(EndRequest(token, exit_code, preempted=preempted))

    def hand_over(self, token: ClaimToken) -> None:
        """The attempt is preempted, and agent `two` goes on with the run."""
        self.end(token, preempted=True)
        assert self.claim("two").token.run_id == token.run_id

    def lapse(self, token: ClaimToken) -> None:
        """The lease of the attempt runs out and is reaped, as if nobody had kept it."""
        leases = self.store.keys.sweep(self.sweep_id, "leases")
        self.store.client.zadd(leases, {token.run_id: 0})
        waiting = self.claim("two").token
        assert waiting.run_id != token.run_id


def _claim(stage: Stage) -> Call:
    request = stage.request("one")

    def supersede() -> None:
        # Its agent asked again, got that run, ended it, and asked for the next one.
        stage.end(stage.claim("one").token, exit_code=0)
        stage.claim("one")

    def answered(answer: Any) -> bool:
        return answer.outcome is ClaimOutcome.RUN and answer.run.token.attempt == 1

    return Call(lambda store: store.claim(request), answered, supersede)


def _heartbeat(stage: Stage) -> Call:
    token = stage.claim("one").token
    return Call(
        lambda store: store.heartbeat(stage.sweep_id, agent="one", token=token, lease_ms=LEASE_MS),
        lambda answer: answer.hold is Hold.OWNER,
        lambda: stage.hand_over(token),
    )


def _mark_preempting(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.mark_preempting(token, reason="script"),
        lambda answer: answer.hold is Hold.OWNER,
        lambda: stage.hand_over(token),
    )


def _note_notice(stage: Stage) -> Call:
    def replace() -> None:
        stage.register("one", "oneb")

    return Call(
        lambda store: store.note_notice(stage.sweep_id, agent="one", session="onea", number=1, source="aws"),
        lambda answer: answer is True,
        replace,
    )


def _log(stage: Stage) -> Call:
    token = stage.begin()
    rows = [(0, '{"loss":2}', 2.0), (1, '{"loss":1}', 1.0)]
    latest = [LatestValue(2, 1.0)]
    return Call(
        lambda store: store.log(token, first_seq=1, rows=rows, summary='{"loss":1}', metric=1.0, latest=latest),
        lambda answer: answer.hold is Hold.OWNER and answer.accepted == 0,
        lambda: stage.hand_over(token),
    )


def _end_attempt(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.end_attempt(EndRequest(token, 1, preempted=True)),
        lambda answer: answer.hold is Hold.ENDED and answer.state is RunState.PREEMPTED,
        lambda: stage.hand_over(token),
    )


def _end_and_claim(stage: Stage) -> Call:
    end, claim = EndRequest(stage.begin(), 0), stage.request("one")

    def supersede() -> None:
        # Its agent asked again, got the next run, ended it, and asked for one more.
        stage.store.end_attempt(end)
        stage.end(stage.claim("one").token, exit_code=0)
        stage.claim("one")

    def answered(answer: Any) -> bool:
        ended, claimed = answer
        return ended.hold is Hold.ENDED and claimed.outcome is ClaimOutcome.RUN and claimed.run.token.attempt == 1

    return Call(lambda store: store.end_and_claim(end, claim), answered, supersede)


def _adopt(stage: Stage) -> Call:
    run = stage.claim("one")
    stage.store.heartbeat(stage.sweep_id, agent="one", token=run.token, lease_ms=LEASE_MS)
    stage.lapse(run.token)

    def supersede() -> None:
        stage.store.retry_runs(stage.sweep_id, [run.token.run_id])
        assert stage.claim("two").token.run_id == run.token.run_id

    return Call(
        lambda store: store.adopt(
            stage.sweep_id, agent="one", token=run.token, claimed_at=run.claimed_at, lease_ms=LEASE_MS
        ),
        lambda answer: answer.hold is Hold.OWNER,
        supersede,
    )


def _prune_run(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.prune_run(token, iteration=0, reason="early_terminate: weak", data={}),
        lambda answer: answer.hold is Hold.OWNER and answer.stop == "early_terminate: weak",
        lambda: stage.hand_over(token),
    )


def _release(stage: Stage) -> Call:
    stage.begin()
    return Call(
        lambda store: stage.register("one", "one-again", store=store),
        lambda released: released == [],
        lambda: (stage.register("one", "one-again"), stage.register("one", "one-once-more")),
    )


def _add_runs(stage: Stage) -> Call:
    return Call(
        lambda store: store.add_runs(stage.sweep_id, stage.offer(4, 3)),
        lambda next_index: next_index == 7,
        lambda: stage.store.add_runs(stage.sweep_id, stage.offer(4, 3)),
    )


def _begin_asking(stage: Stage) -> Call:
    stage.store.remove_runs([run.run_id for run in stage.offer(0, 4).runs])
    return Call(
        lambda store: store.begin_asking(stage.sweep_id, session="onea", agents=["one"], hold_ms=LEASE_MS),
        lambda answer: answer.outcome is AskOutcome.ASK,
        lambda: stage.store.add_runs(stage.sweep_id, stage.offer(4, 3)),
    )


def _note_deliveries(stage: Stage) -> Call:
    def note(store: Store, before: str, after: str) -> bool:
        return store.note_deliveries(stage.sweep_id, before=before, after=after, deliveries=[f"{after}/0"])

    return Call(
        lambda store: note(store, "", "1-0"),
        lambda noted: noted is True,
        lambda: (note(stage.store, "", "1-0"), note(stage.store, "1-0", "2-0")),
    )


def _create_sweep(stage: Stage) -> Call:
    sweep_id = new_id()

    def make(store: Store) -> bool:
        return store.create_sweep(sweep_id=sweep_id, nonce="me", config_text="", config_json="{}", settings=SETTINGS)

    def supersede() -> None:
        make(stage.store)
        stage.store.command_sweep(sweep_id, SweepCommand.PAUSE)

    return Call(make, lambda created: created is False, supersede)


def _set_sweep_state(stage: Stage) -> Call:
    stage.begin()
    return Call(
        lambda store: store.command_sweep(stage.sweep_id, SweepCommand.STOP),
        lambda state: state is SweepState.FINISHED,
    )


def _retry_run(stage: Stage) -> Call:
    token = stage.begin()
    stage.end(token, exit_code=1)
    return Call(
        lambda store: store.retry_runs(stage.sweep_id, [token.run_id]),
        lambda retried: retried == {},
        lambda: (stage.store.retry_runs(stage.sweep_id, [token.run_id]), stage.claim("two")),
    )


def _stop_run(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.stop_run(token.run_id, reason="by hand"),
        lambda state: state is RunState.RUNNING,
        lambda: stage.end(token, exit_code=0),
    )


def _init_run(stage: Stage) -> Call:
    token = stage.claim("one").token
    return Call(
        lambda store: store.init_run(
            run_id=token.run_id, resume="never", nonce=token.nonce, attempt=token.attempt, config={"batch": 8}
        ),
        lambda answer: answer.outcome is InitOutcome.NEW and answer.token == token,
        lambda: stage.hand_over(token),
    )


def _commit_checkpoint(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.commit_checkpoint(token, path="/checkpoints/1", step=1),
        lambda answer: answer.hold is Hold.OWNER,
        lambda: stage.hand_over(token),
    )


def _fall_back(stage: Stage) -> Call:
    token = stage.begin()
    for step in (1, 2):
        stage.store.commit_checkpoint(token, path=f"/checkpoints/{step}", step=step)
    return Call(
        lambda store: store.fall_back(token, lost="/checkpoints/2", path="/checkpoints/1", reason="damaged"),
        lambda answer: answer.hold is Hold.OWNER,
        lambda: stage.hand_over(token),
    )


def _open_writer(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.open_writer(token, init="init"),
        lambda answer: answer.hold is Hold.OWNER and answer.number == 1,
        lambda: stage.hand_over(token),
    )


def _append_output(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.append_output(token, "step 1\n", piece=1),
        lambda answer: answer.hold is Hold.OWNER,
        lambda: stage.hand_over(token),
    )


def _update_config(stage: Stage) -> Call:
    token = stage.begin()
    return Call(
        lambda store: store.update_config(token, config={"batch": 8}),
        lambda answer: answer.hold is Hold.OWNER,
        lambda: stage.hand_over(token),
    )


def _leave(stage: Stage) -> Call:
    return Call(
        lambda store: store.leave(stage.sweep_id, agent="one", session="onea"),
        lambda nothing: nothing is None,
        lambda: stage.register("one", "one-again"),
    )


def _finish_run(stage: Stage) -> Call:
    run_id = new_id()
    begun = stage.store.init_run(run_id=run_id, resume="allow", nonce="first")
    token = begun.token
    assert token is not None
    return Call(
        lambda store: store.finish_run(token, exit_code=0),
        lambda answer: answer.hold is Hold.ENDED and answer.state is RunState.FINISHED,
        lambda: stage.store.init_run(run_id=run_id, resume="allow", nonce="second"),
    )


def _remove_runs(stage: Stage) -> Call:
    token = stage.begin()
    stage.end(token, exit_code=0)
    return Call(lambda store: store.remove_runs([token.run_id]), lambda removed: removed == 0)


CALLS: dict[str, Callable[[Stage], Call]] = {
    "add_runs": _add_runs,
    "adopt": _adopt,
    "append_output": _append_output,
    "begin_asking": _begin_asking,
    "claim": _claim,
    "commit_checkpoint": _commit_checkpoint,
    "create_sweep": _create_sweep,
    "end_and_claim": _end_and_claim,
    "end_attempt": _end_attempt,
    "fall_back": _fall_back,
    "finish_run": _finish_run,
    "heartbeat": _heartbeat,
    "init_run": _init_run,
    "leave": _leave,
    "log": _log,
    "open_writer": _open_writer,
    "mark_preempting": _mark_preempting,
    "prune_run": _prune_run,
    "note_deliveries": _note_deliveries,
    "note_notice": _note_notice,
    "release": _release,
    "remove_runs": _remove_runs,
    "retry_run": _retry_run,
    "set_sweep_state": _set_sweep_state,
    "stop_run": _stop_run,
    "update_config": _update_config,
}
