"""`wandb agent`: it says every five seconds which of its runs live, and is told what to do.

No command is acknowledged, and an answer may be lost. So commands are not taken from a queue: each heartbeat compares
what the agent should hold, which the store knows, with what it says it runs. The same heartbeat again gets the same
answer. An agent holds one run at a time.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.gateway.graphql import Call, GatewayError, Handler
from resweep_scheduler.gateway.supply import supply
from resweep_scheduler.store import (
    AgentReplacedError,
    ClaimAnswer,
    ClaimedRun,
    ClaimOutcome,
    ClaimRequest,
    EndRequest,
    Hold,
    Scope,
    Store,
    Sweep,
    find_sweep,
    validate_sweep_id,
)
from resweep_scheduler.store.gateway import ClientAgent, Seat, Told

MARK = "wandb:"
"""How the names of these agents begin; those of `sweep-agent` cannot have a colon."""
_IDENTITY = re.compile(rf"([\w-]+)/({MARK}[\w.-]+)/([0-9a-f]+)")
SHORTEST_LEASE = 15_000
"""Milliseconds: three heartbeats of an agent."""
CERTAIN = 3_000
"""Milliseconds for which a process must be missing: a heartbeat that was held up in the network is older than it."""
STARTS = 3
"""Times that an agent is told to start a run whose start it never reports."""
START_PATIENCE = 20_000
"""Milliseconds for which it is told so at least."""
CLAIMS = 4
"""Claims in one heartbeat, at most."""

Command = dict[str, Any]


def is_client_agent(agent: str) -> bool:
    """Whether the holder of a run is a `wandb agent`."""
    return agent.startswith(MARK)


def lease_of(sweep: Sweep) -> int:
    """For how long, in milliseconds, a silent agent keeps its run."""
    return max(sweep.lease_ms, SHORTEST_LEASE)


def create_agent(call: Call) -> dict[str, Any]:
    """CreateAgent: an agent introduces itself. It keeps its id, so the id says all that a gateway must know."""
    call.access.require_person()
    sweep_id = validate_sweep_id(call.word("sweep"))
    scope = find_sweep(call.access.desk.client, sweep_id, url=call.access.desk.url)
    store = call.access.store(scope.entity, scope.project, write=True)
    host = "".join(mark if mark.isalnum() or mark in "._-" else "-" for mark in call.optional("host") or "host")[:60]
    agent = f"{MARK}{host}-{secrets.token_hex(3)}"
    session = secrets.token_hex(8)
    store.register(sweep_id, agent=agent, session=session, host=host, pid=0)
    return {"createAgent": {"agent": {"id": f"{sweep_id}/{agent}/{session}"}}}


def heartbeat(call: Call) -> dict[str, Any]:
    """Heartbeat: which runs live, and what to do next."""
    call.access.require_person()
    identity = _IDENTITY.fullmatch(call.word("id"))
    if identity is None:
        raise GatewayError(f"no agent has the id {call.word('id')!r}; start `wandb agent` again", 404)
    sweep_id, agent, session = identity.groups()
    scope: Scope = find_sweep(call.access.desk.client, validate_sweep_id(sweep_id), url=call.access.desk.url)
    store = call.access.store(scope.entity, scope.project, write=True)
    beat = _Beat(store, store.sweep(sweep_id), agent, session, _live_runs(call.variables.get("runState")))
    try:
        commands = beat.answer()
    except AgentReplacedError:
        commands = [{"type": "exit"}]  # it was sent home before, and has not heard it
    return {"agentHeartbeat": {"agent": {"id": call.word("id")}, "commands": json.dumps(commands)}}


class _Beat:
    """One heartbeat of one agent."""

    def __init__(self, store: Store, sweep: Sweep, agent: str, session: str, live: Collection[str]) -> None:
        self._store = store
        self._sweep = sweep
        self._sweep_id = sweep.sweep_id
        self._agent = agent
        self._session = session
        self._live = live
        self._lease = lease_of(sweep)

    def answer(self) -> list[Command]:
        """What the agent shall do."""
        known = self._known()
        seat = self._store.seat(known.run_id) if known.run_id else None
        if seat is not None and seat.is_owned and seat.agent == self._agent:
            others = self._look_at_others(seat.run_id)
            told = self._told(seat, known.told)
            if seat.run_id in self._live:
                return self._keep(seat, told) + others
            commands = self._miss(seat, known.seq, told)
            if commands is not None:
                return commands + others
            known = self._known()  # the run has ended now
        if self._live:
            return self._look_at_others("")
        return self._next(known)

    def _known(self) -> ClientAgent:
        """What the store knows of this agent, which is introduced again if the store has forgotten it."""
        known = self._store.client_agent(self._sweep_id, self._agent)
        if known is not None and known.session == self._session:
            return known
        self._store.register(self._sweep_id, agent=self._agent, session=self._session, host="", pid=0)
        return ClientAgent(self._session, 0, "", "", Told())

    # -- runs that it has ----------------------------------------------------------------------------------------------

    def _told(self, seat: Seat, told: Told) -> Told:
        """What the agent was told of this run. What is kept may be about the run before: between a claim and `_tell` a
        gateway may die.
        """
        if (told.run_id, told.attempt) == (seat.run_id, seat.token.attempt):
            return told
        return Told(seat.run_id, seat.token.attempt, first=self._store.redis_time())

    def _keep(self, seat: Seat, told: Told) -> list[Command]:
        """Its run lives."""
        answer = self._store.heartbeat(self._sweep_id, agent=self._agent, token=seat.token, lease_ms=self._lease)
        self._tell(replace(told, listed=True, missing=0, beat=self._store.redis_time()))
        return [_stop(seat.run_id)] if answer.stop else []

    def _miss(self, seat: Seat, seq: int, told: Told) -> list[Command] | None:
        """Its run does not live: not yet, or not any more. None when the run has been ended for that."""
        if seat.said is not None:
            self._end(seat, seat.said, "as its script said")
            return None
        now = self._store.redis_time()
        if told.listed or seat.has_writer:
            if not told.missing:
                self._tell(replace(told, missing=now))
            if not told.missing or now - told.missing < CERTAIN:
                return []
            self._end(seat, None, "its process is gone without a word")
            return None
        if told.times >= STARTS and now - told.first >= START_PATIENCE:
            self._end(seat, None, "its agent never reported the start of its script", preempted=True)
            return None
        answer = self._claim(seq)  # the same claim again gives the same run
        return None if answer.run is None else [self._start(answer.run, told)]

    def _end(self, seat: Seat, code: int | None, reason: str, *, preempted: bool = False) -> None:
        self._store.end_attempt(EndRequest(seat.token, code, reason=reason, preempted=preempted))

    def _look_at_others(self, held: str) -> list[Command]:
        """Runs that live and are not held: their leases ran out, they have ended, or somebody else has them."""
        commands = []
        for run_id in self._live:
            if run_id == held:
                continue
            seat = self._store.seat(run_id)
            if seat is None or seat.agent != self._agent:
                commands.append(_stop(run_id))
            elif seat.lapsed:
                answer = self._store.adopt(
                    self._sweep_id,
                    agent=self._agent,
                    token=seat.token,
                    claimed_at=seat.claimed_at,
                    lease_ms=self._lease,
                )
                if answer.hold is not Hold.OWNER or answer.stop:
                    commands.append(_stop(run_id))
        return commands

    # -- the next run --------------------------------------------------------------------------------------------------

    def _next(self, known: ClientAgent) -> list[Command]:
        """It is idle."""
        seq = known.seq if known.seq and not known.claimed else known.seq + 1
        for _ in range(CLAIMS):
            answer = self._claim(seq)
            match answer.outcome:
                case ClaimOutcome.RUN if answer.run is not None:
                    return [self._start(answer.run, Told())]
                case ClaimOutcome.ASK:
                    if not supply(self._store, self._sweep, self._agent):
                        return []
                case ClaimOutcome.DONE:
                    self._store.leave(self._sweep_id, agent=self._agent, session=self._session)
                    self._tell(None)
                    return [{"type": "exit"}]
                case ClaimOutcome.LATE | ClaimOutcome.LOST:
                    seq += 1
                case _:
                    return []
        return []

    def _claim(self, seq: int) -> ClaimAnswer:
        return self._store.claim(
            ClaimRequest(
                sweep_id=self._sweep_id,
                agent=self._agent,
                nonce=f"{self._session}.{seq}",
                lease_ms=self._lease,
                preemptible=SweepConfig.from_json(self._sweep.config_json).preemption.auto is True,
            )
        )

    def _start(self, run: ClaimedRun, told: Told) -> Command:
        token = run.token
        if (told.run_id, told.attempt) != (token.run_id, token.attempt):
            told = Told(token.run_id, token.attempt, first=self._store.redis_time())
        self._tell(replace(told, times=told.times + 1))
        return {
            "type": "resume" if run.resumed else "run",
            "run_id": token.run_id,
            "program": SweepConfig.from_json(self._sweep.config_json).program,
            "args": {name: {"value": value} for name, value in run.params.items()},
        }

    def _tell(self, told: Told | None) -> None:
        self._store.tell(self._sweep_id, self._agent, told)


def _stop(run_id: str) -> Command:
    return {"type": "stop", "run_id": run_id}


def _live_runs(text: object) -> Collection[str]:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        raise GatewayError(f"runState of Heartbeat is a JSON object of run ids, got {text!r}")
    return [str(run_id) for run_id, lives in found.items() if lives]


OPERATIONS: dict[str, Handler] = {"CreateAgent": create_agent, "Heartbeat": heartbeat}
