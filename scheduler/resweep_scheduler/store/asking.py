"""Who asks the search: the right to compute the next suggestions, and the sign that a search service is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.errors import UnknownSweepError
from resweep_scheduler.store.states import SweepState


class AskOutcome(StrEnum):
    """What becomes of an agent that found no run and may ask the search."""

    ASK = "ask"  # compute suggestions, for all that wait
    CLAIM = "claim"  # there are runs by now, or the search is over: claim again
    HAND_OVER = "hand_over"  # call the search service, and wait
    WAIT = "wait"  # somebody else computes


@dataclass(frozen=True, slots=True)
class AskAnswer:
    """Answer to ``begin_asking``."""

    outcome: AskOutcome
    wanted: int = 1  # runs that are waited for
    next_index: int = 0  # where the search goes on
    served: bool = False  # a search service looks after the sweep


@dataclass(frozen=True, slots=True)
class Demand:
    """How a sweep is supplied with suggested runs."""

    is_open: bool  # agents get new runs
    next_index: int  # where the search goes on
    ready: int  # suggested runs not yet claimed
    waiting: int  # agents (slots) that wait for the search
    agents: int  # agents (slots) that were seen lately
    left: int | None  # runs up to the cap, None without one


class AskingTransitions(StoreBase):
    """What agents and search services agree on before they compute. All of it saves work; none of it is relied on."""

    def begin_asking(
        self,
        sweep_id: str,
        *,
        session: str,
        agents: Sequence[str] = (),
        hold_ms: int,
        alone: bool = False,
        service: bool = False,
        only_wait: bool = False,
    ) -> AskAnswer:
        """Takes the right to compute the next suggestions, if nobody has it.

        Args:
            session: Random, one for each process; the offer that ends the asking carries it.
            agents: The agents (slots) that wait for a run; they are woken when suggestions come.
            hold_ms: After this time another one may compute, too.
            alone: Do not hand it over to a search service.
            service: The caller is one.
            only_wait: The caller cannot compute; the agents wait for those who can.

        Raises:
            UnknownSweepError: No such sweep in this project.
        """
        answer = self._run_script(
            "begin_asking", self.keys.sweep(sweep_id), sid=sweep_id, session=session, agents=list(agents) or None,
            hold_ms=hold_ms, alone=alone, service=service, only_wait=only_wait,
        )  # fmt: skip
        if answer["outcome"] == "unknown":
            raise UnknownSweepError(f"no sweep {sweep_id!r} in {self.scope}; `resweep ls` lists the sweeps")
        return AskAnswer(
            AskOutcome(answer["outcome"]), int(answer["wanted"]), int(answer["next_index"]), bool(answer["served"])
        )

    def demand(self, sweep_id: str, *, seen_since: int) -> Demand:
        """What a search service must know to keep a sweep supplied.

        Args:
            seen_since: Agents count that were seen at this time (ms on the Redis clock) or later.

        Raises:
            UnknownSweepError: No such sweep in this project.
        """
        key = self.keys.sweep

        def fill(pipe: Any) -> None:
            pipe.hmget(key(sweep_id), ["state", "closed", "next_index", "run_cap"])
            pipe.llen(key(sweep_id, "ready"))
            pipe.zcard(key(sweep_id, "askers"))
            pipe.zcount(key(sweep_id, "seen"), seen_since, "+inf")

        (state, closed, next_index, run_cap), ready, waiting, agents = self._read(fill)
        if state is None:
            raise UnknownSweepError(f"no sweep {sweep_id!r} in {self.scope}; `resweep ls` lists the sweeps")
        left = int(run_cap or 0) - int(next_index) if int(run_cap or 0) else None
        working = SweepState(state) in (SweepState.PENDING, SweepState.RUNNING)
        return Demand(working and not closed, int(next_index), int(ready), int(waiting), int(agents), left)

    def announce_service(self, sweep_ids: Sequence[str], *, name: str, ttl_ms: int) -> None:
        """Says for a while that a search service looks after these sweeps."""

        def fill(pipe: Any) -> None:
            for sweep_id in sweep_ids:
                pipe.set(self.keys.sweep(sweep_id, "service"), name, px=ttl_ms)

        self._read(fill)

    def service(self, sweep_id: str) -> str | None:
        """The name of a search service that looks after the sweep; None if none was heard of lately."""
        (name,) = self._read(lambda pipe: pipe.get(self.keys.sweep(sweep_id, "service")))
        return None if name is None else str(name)

    def withdraw_service(self, sweep_ids: Sequence[str]) -> None:
        """The service goes; agents ask by themselves at once."""

        def fill(pipe: Any) -> None:
            for sweep_id in sweep_ids:
                pipe.delete(self.keys.sweep(sweep_id, "service"))

        self._read(fill)
