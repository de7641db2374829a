"""What an agent does with runs: claim, heartbeat, mark, end, adopt; and how it comes and goes."""

from __future__ import annotations

import json
from typing import Any

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.checkpoints import decode_checkpoint
from resweep_scheduler.store.errors import AgentReplacedError, UnknownSweepError
from resweep_scheduler.store.records import (
    ClaimAnswer,
    ClaimedRun,
    ClaimOutcome,
    ClaimRequest,
    ClaimToken,
    EndAnswer,
    EndRequest,
    HeartbeatAnswer,
    Hold,
    WriteAnswer,
)
from resweep_scheduler.store.states import RunState
from resweep_scheduler.store.sweeps import encode_offer

_WORK_POLL = 1.0  # seconds between two claims of an idle agent that nobody wakes
_OUTPUT_CHUNKS = 64


def _token(token: ClaimToken) -> dict[str, Any]:
    return {"run_id": token.run_id, "attempt": token.attempt, "nonce": token.nonce}


def _without_none(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def decode_write(answer: dict[str, Any]) -> WriteAnswer:
    """The answer of any script that writes to a run on behalf of an attempt."""
    return WriteAnswer(
        hold=Hold(answer["hold"]),
        stop=answer.get("stop") or "",
        accepted=int(answer.get("accepted", 0)),
        kept=tuple(answer.get("kept") or ()),
    )


class AttemptTransitions(StoreBase):
    """The transitions of attempts. Each carries the claim token and is checked against it inside Redis."""

    def register(self, sweep_id: str, *, agent: str, session: str, host: str, pid: int) -> list[str]:
        """Introduces an agent (slot); what an older session of the same id held is void at once.

        Args:
            session: Random, one for each process, without a dot.

        Returns:
            Ids of the runs taken from the older session.

        Raises:
            UnknownSweepError: No such sweep in this project.
            AgentReplacedError: A newer process has registered under this id, or this one has left.
        """
        answer = self._run_script(
            "release", self.keys.sweep(sweep_id), sid=sweep_id, agent=agent, session=session, host=host, pid=pid
        )
        if answer["outcome"] == "unknown":
            raise UnknownSweepError(f"no sweep {sweep_id!r} in {self.scope}; `resweep ls` lists the sweeps")
        if answer["outcome"] == "late":
            raise AgentReplacedError(
                f"an agent's name belongs to the process that took it last, and another one has taken {agent!r}; "
                "start this one again, with a --name of its own if both shall work"
            )
        return list(answer.get("released", []))

    def leave(self, sweep_id: str, *, agent: str, session: str) -> None:
        """The agent (slot) goes and claims nothing more."""
        self._run_script("leave", self.keys.sweep(sweep_id), sid=sweep_id, agent=agent, session=session)

    def claim(self, request: ClaimRequest) -> ClaimAnswer:
        """Asks for a run: run queue first, then suggested runs, then the offer.

        Raises:
            UnknownSweepError: No such sweep in this project.
        """
        name, key, arguments = self._claim_call(request)
        return self._decode_claim(self._run_script(name, key, **arguments), request.sweep_id)

    def end_attempt(self, request: EndRequest) -> EndAnswer:
        """Reports how an attempt ended; what follows for the run is decided in Redis."""
        name, key, arguments = self._end_call(request)
        return _decode_end(self._run_script(name, key, **arguments))

    def end_and_claim(self, end: EndRequest, claim: ClaimRequest) -> tuple[EndAnswer, ClaimAnswer]:
        """Both of them in one flight: what stands between two runs of an agent."""
        _, _, report = self._end_call(end)
        _, key, ask = self._claim_call(claim)
        answer = self._run_script("end_and_claim", key, report=_without_none(report), ask=_without_none(ask))
        return _decode_end(answer["report"]), self._decode_claim(answer["answer"], claim.sweep_id)

    def heartbeat(
        self, sweep_id: str, *, agent: str, token: ClaimToken, lease_ms: int, preemptible: bool = False
    ) -> HeartbeatAnswer:
        """Renews the lease; the first one also says that the child is launched.

        Args:
            preemptible: A lost lease means a lost machine, which was not known when the run was claimed.
        """
        answer = self._run_script(
            "heartbeat", self.keys.run(token.run_id), sid=sweep_id, agent=agent, lease_ms=lease_ms,
            preemptible=preemptible or None, **_token(token),
        )  # fmt: skip
        return _decode_heartbeat(answer)

    def mark_preempting(
        self, token: ClaimToken, *, reason: str, source: str | None = None, lead_ms: int | None = None
    ) -> WriteAnswer:
        """From now on any end but exit 0 requeues the run.

        Args:
            reason: For people, such as "script" or "notice: SIGTERM".
            source: Where the notice came from that the mark follows.
            lead_ms: From now until the machine goes, if the notice says it.
        """
        key = self.keys.run(token.run_id)
        answer = self._run_script(
            "mark_preempting", key, reason=reason, source=source, lead_ms=lead_ms, **_token(token)
        )
        return decode_write(answer)

    def note_notice(
        self,
        sweep_id: str,
        *,
        agent: str,
        session: str,
        number: int,
        source: str,
        detail: str = "",
        hint: bool = False,
        lead_ms: int | None = None,
    ) -> bool:
        """Has the events say that an agent got a notice; False when the agent has left or was replaced.

        Args:
            number: Of the notices of this session, from 1: the same call again changes nothing.
            hint: The machine may go; nothing follows from it.
            lead_ms: From now until the machine goes, if the notice says it.
        """
        answer = self._run_script(
            "note_notice", self.keys.sweep(sweep_id), sid=sweep_id, agent=agent, session=session, number=number,
            source=source, detail=detail or None, hint=hint or None, lead_ms=lead_ms,
        )  # fmt: skip
        return bool(answer["outcome"] == "ok")

    def adopt(self, sweep_id: str, *, agent: str, token: ClaimToken, claimed_at: int, lease_ms: int) -> HeartbeatAnswer:
        """Takes back a run whose lease was lost in an outage, if nobody else took it: then ``hold`` is OWNER.

        Args:
            claimed_at: As the claim answered, ms on the Redis clock; tells the newer claim after a rollback of Redis.
        """
        answer = self._run_script(
            "adopt", self.keys.run(token.run_id), sid=sweep_id, agent=agent, claimed_at=claimed_at, lease_ms=lease_ms,
            **_token(token),
        )  # fmt: skip
        return _decode_heartbeat(answer)

    def append_output(self, token: ClaimToken, text: str, *, piece: int) -> WriteAnswer:
        """Adds a piece (some KB) to the tail of what the run printed; the last 64 pieces are kept.

        Args:
            piece: Its number within the attempt; a piece that is sent again has the number that it had before.
        """
        key = self.keys.run(token.run_id)
        return decode_write(
            self._run_script("append_output", key, piece=piece, text=text, keep=_OUTPUT_CHUNKS, **_token(token))
        )

    def wait_for_work(self, sweep_id: str, timeout: float) -> bool:
        """Blocks up to ``timeout`` seconds (at most 1) until there may be work; True when woken.

        The token carries no run: whoever dies with it takes nothing away.
        """
        return self._block_on(self.keys.sweep(sweep_id, "wake"), min(timeout, _WORK_POLL))

    def wait_for_poke(self, sweep_id: str, *, session: str, timeout: float) -> bool:
        """Blocks up to ``timeout`` seconds until this agent process must heartbeat at once; True when it must.

        The wait is cut at 0.6 of the store's socket timeout.
        """
        return self._block_on(self.keys.sweep(sweep_id, f"poke:{session}"), min(timeout, 0.6 * self.timeout))

    def _block_on(self, key: str, timeout: float) -> bool:
        return self._try(lambda: self.client.blpop([key], timeout=max(0.01, timeout))) is not None

    def _claim_call(self, request: ClaimRequest) -> tuple[str, str, dict[str, Any]]:
        arguments = {
            "sid": request.sweep_id,
            "agent": request.agent,
            "nonce": request.nonce,
            "lease_ms": request.lease_ms,
            "preemptible": request.preemptible,
            "offer": encode_offer(request.offer),
        }
        return "claim", self.keys.sweep(request.sweep_id), arguments

    def _end_call(self, request: EndRequest) -> tuple[str, str, dict[str, Any]]:
        arguments = {
            **_token(request.token),
            "exit_code": request.exit_code,
            "signal": request.signal,
            "reason": request.reason,
            "preempted": request.preempted,
            "killed": request.killed,
            "launched": request.launched,
        }
        return "end_attempt", self.keys.run(request.token.run_id), arguments

    def _decode_claim(self, answer: dict[str, Any], sweep_id: str) -> ClaimAnswer:
        if answer["outcome"] == "unknown":
            raise UnknownSweepError(
                f"sweep {sweep_id!r} is not in {self.scope} any more; `resweep ls` lists those that are"
            )
        outcome = ClaimOutcome(answer["outcome"])
        run = None
        if outcome is ClaimOutcome.RUN:
            run = ClaimedRun(
                token=ClaimToken(answer["run_id"], answer["attempt"], answer["nonce"]),
                index=answer["index"],
                params=json.loads(answer["params"]),
                resumed=answer["attempt"] > 1,
                step=answer.get("step"),
                checkpoint=decode_checkpoint(answer.get("checkpoint")),
                claimed_at=answer["claimed_at"],
            )
        reason = answer["run_id"] if outcome is ClaimOutcome.TAKEN else answer.get("reason") or ""
        return ClaimAnswer(outcome, run, answer.get("next_index", 0), reason, answer.get("ready", 0))


def _decode_end(answer: dict[str, Any]) -> EndAnswer:
    state = answer.get("state")
    return EndAnswer(Hold(answer["hold"]), RunState(state) if state else None, answer.get("reason") or "")


def _decode_heartbeat(answer: dict[str, Any]) -> HeartbeatAnswer:
    return HeartbeatAnswer(Hold(answer["hold"]), answer.get("stop") or "", bool(answer.get("preempting")))
