"""What is done to sweeps: created, commanded, given suggestions, retried, removed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.errors import (
    IllegalTransitionError,
    RunIdTakenError,
    SweepIdTakenError,
    UnknownRunError,
    UnknownSweepError,
)
from resweep_scheduler.store.keys import SWEEP_INDEX, validate_sweep_id
from resweep_scheduler.store.records import Offer, SweepSettings
from resweep_scheduler.store.states import RunState, SweepCommand, SweepState

_REMOVE_AT_ONCE = 200


def encode_offer(offer: Offer | None) -> dict[str, Any] | None:
    """An offer as the scripts take it."""
    if offer is None:
        return None
    return {
        "first_index": offer.first_index,
        "exhausted": offer.exhausted,
        "runs": [{"id": run.run_id, "params": json.dumps(run.params)} for run in offer.runs],
        "asker": offer.asker,
    }


def _encode_metrics(metrics: Sequence[tuple[str, str]]) -> str:
    return json.dumps([{"name": name, "goal": goal} for name, goal in metrics]) if metrics else ""


class SweepTransitions(StoreBase):
    """The transitions of sweeps."""

    def create_sweep(
        self, *, sweep_id: str, nonce: str, config_text: str, config_json: str, settings: SweepSettings
    ) -> bool:
        """Creates a sweep; the same call again (same nonce) changes nothing.

        Args:
            nonce: Made by the caller, once for this sweep.
            config_text: The config as the user gave it.
            config_json: The normalised config.

        Returns:
            True when created, False when this very call had created it before.

        Raises:
            SweepIdTakenError: Another sweep has the id; sweep ids are unique on a server.
        """
        validate_sweep_id(sweep_id)
        taken = SweepIdTakenError(f"a sweep id is used once on a server, {sweep_id!r} exists; choose another one")
        self._try(lambda: self.client.hsetnx(SWEEP_INDEX, sweep_id, str(self.scope)))
        if self._try(lambda: self.client.hget(SWEEP_INDEX, sweep_id)) != str(self.scope):
            raise taken
        fields = {
            "config_text": config_text,
            "config": config_json,
            "name": settings.name,
            "lease_ms": str(settings.lease_ms),
            "heartbeat_ms": str(settings.heartbeat_ms),
            "max_gap": str(max(1, settings.lease_ms // 3)),
            "run_cap": str(settings.run_cap or 0),
            "metric_name": settings.metric_name or "",
            "metric_goal": settings.metric_goal or "",
            "metric_target": "" if settings.metric_target is None else repr(float(settings.metric_target)),
            "metrics": _encode_metrics(settings.metrics),
            "retry_failed": str(settings.retry_failed),
            "retry_crashed": str(settings.retry_crashed),
            "max_fruitless": str(settings.max_attempts_without_progress),
            "stopping": "" if settings.stopping is None else json.dumps(settings.stopping),
        }
        key = self.keys.sweep(sweep_id)
        outcome = self._run_script("create_sweep", key, sid=sweep_id, nonce=nonce, fields=fields)["outcome"]
        if outcome == "taken":
            raise taken
        return bool(outcome == "created")

    def command_sweep(self, sweep_id: str, command: SweepCommand) -> SweepState:
        """Pauses, resumes, stops or cancels a sweep and returns the state after.

        Raises:
            UnknownSweepError: No such sweep in this project.
            IllegalTransitionError: A sweep that is over cannot be paused or stopped.
        """
        key = self.keys.sweep(sweep_id)
        answer = self._run_script("set_sweep_state", key, sid=sweep_id, command=command.value)
        if answer["outcome"] == "unknown":
            raise self._unknown_sweep(sweep_id)
        if answer["outcome"] == "refused":
            rule = "Cannot pause finished sweep." if command is SweepCommand.PAUSE else "Sweep already finished."
            raise IllegalTransitionError(
                f"{rule} {sweep_id} is {answer['state']}; `resweep resume {sweep_id}` opens it again"
            )
        return SweepState(answer["state"])

    def add_runs(self, sweep_id: str, offer: Offer) -> int:
        """Takes suggestions into the sweep, each index once; returns the next index.

        Raises:
            UnknownSweepError: No such sweep.
            RunIdTakenError: A run id of the offer belongs to another run.
        """
        key = self.keys.sweep(sweep_id)
        answer = self._run_script("add_runs", key, sid=sweep_id, offer=encode_offer(offer))
        if answer["outcome"] == "unknown":
            raise self._unknown_sweep(sweep_id)
        if answer["outcome"] == "taken":
            taken = answer["run_id"]
            raise RunIdTakenError(f"run ids are unique in a project, {taken} exists; offer another id", taken)
        return int(answer["next_index"])

    def retry_runs(self, sweep_id: str, run_ids: Sequence[str]) -> dict[str, RunState]:
        """Puts failed, crashed and killed runs back on the run queue; returns the state that each of them had.

        Runs in other states are not in the answer and stay as they are.
        """
        retried: dict[str, RunState] = {}
        for start in range(0, len(run_ids), _REMOVE_AT_ONCE):
            part = list(run_ids[start : start + _REMOVE_AT_ONCE])
            answer = self._run_script("retry_run", self.keys.sweep(sweep_id), sid=sweep_id, run_ids=part)
            if answer["outcome"] == "unknown":
                raise self._unknown_sweep(sweep_id)
            retried |= {run_id: RunState(state) for run_id, state in answer.get("retried", {}).items()}
        return retried

    def stop_run(self, run_id: str, *, reason: str) -> RunState:
        """Ends a run for good: at once when it waits, through its agent when it runs. Returns the state after the call.

        Raises:
            UnknownRunError: No such run in this project.
        """
        answer = self._run_script("stop_run", self.keys.run(run_id), run_id=run_id, reason=reason)
        if answer["outcome"] == "gone":
            raise UnknownRunError(f"no run {run_id!r} in {self.scope}; `resweep runs SWEEP` lists them")
        return RunState(answer["state"])

    def remove_runs(self, run_ids: Sequence[str], *, only_over: str | None = None) -> int:
        """Forgets runs that no attempt owns, with history and output; returns how many were removed.

        Args:
            run_ids: The runs.
            only_over: The sweep that they are of, when they are removed only as long as it is over.

        Raises:
            IllegalTransitionError: That sweep is not over.
        """
        removed = 0
        for start in range(0, len(run_ids), _REMOVE_AT_ONCE):
            part = list(run_ids[start : start + _REMOVE_AT_ONCE])
            key = self.keys.project_runs
            answer = self._run_script("remove_runs", key, run_ids=part, project_runs=key, only_over=only_over)
            if only_over is not None and answer.get("refused"):
                raise self._not_over(only_over)
            removed += answer["removed"]
        return removed

    def remove_sweep(self, sweep_id: str, *, only_over: bool = False) -> int:
        """Forgets a sweep and its runs; returns how many runs were removed.

        Args:
            sweep_id: The sweep.
            only_over: Stop as soon as somebody resumes it.

        Raises:
            UnknownSweepError: No such sweep.
            IllegalTransitionError: Some of its runs are running, or it is not over though it has to be.
        """
        key = self.keys.sweep(sweep_id)
        if not self._try(lambda: self.client.exists(key)):
            raise self._unknown_sweep(sweep_id)
        self._refuse_running(sweep_id)
        members = self._members(self.keys.sweep(sweep_id, "runs"))
        removed = self.remove_runs(members, only_over=sweep_id if only_over else None)
        self._refuse_running(sweep_id)  # one may have been claimed meanwhile
        state = self._try(lambda: self.client.hget(key, "state"))
        if only_over and state is not None and not SweepState(str(state)).is_over:
            raise self._not_over(sweep_id)
        parts = (
            "queue",
            "ready",
            "leases",
            "runs",
            "params",
            "agents",
            "seen",
            "events",
            "wake",
            "askers",
            "hooks",
            "clients",
        )
        self._try(lambda: self.client.delete(key, *(self.keys.sweep(sweep_id, part) for part in parts)))
        self._try(lambda: self.client.hdel(SWEEP_INDEX, sweep_id))
        return removed

    def _refuse_running(self, sweep_id: str) -> None:
        running = self._try(lambda: self.client.zcard(self.keys.sweep(sweep_id, "leases")))
        if running:
            raise IllegalTransitionError(
                f"a sweep with running runs is not removed, {running} of {sweep_id} run; "
                f"`resweep cancel {sweep_id}` first"
            )

    def _not_over(self, sweep_id: str) -> IllegalTransitionError:
        return IllegalTransitionError(f"only sweeps that are over are removed, {sweep_id} goes on; leave it")

    def _unknown_sweep(self, sweep_id: str) -> UnknownSweepError:
        return UnknownSweepError(f"no sweep {sweep_id!r} in {self.scope}; `resweep ls` lists the sweeps of this server")
