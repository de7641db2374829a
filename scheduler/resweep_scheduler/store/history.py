"""What a training script does with its run: init, log, config, checkpoints, finish."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from resweep_scheduler.store.attempts import decode_write
from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.reads import Reads
from resweep_scheduler.store.records import (
    ClaimToken,
    EndAnswer,
    Hold,
    InitAnswer,
    InitOutcome,
    LatestValue,
    Note,
    RunMeta,
    WriteAnswer,
)
from resweep_scheduler.store.states import RunState

_NO_META = RunMeta()


def _encode_meta(meta: RunMeta) -> dict[str, str]:
    fields = {"name": meta.name, "group": meta.group, "notes": meta.notes}
    encoded = {name: value for name, value in fields.items() if value is not None}
    if meta.tags is not None:
        encoded["tags"] = json.dumps(list(meta.tags))
    return encoded


def _encode_config(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in config.items()}


def _encode_row(step: int, text: str, value: float | None = None) -> list[Any]:
    # Lua's JSON reads numbers less exactly than they are written.
    return [step, text] if value is None else [step, text, repr(float(value))]


def _encode_latest(found: LatestValue | None) -> Any:
    return False if found is None else [found.row, repr(float(found.value))]


class HistoryTransitions(Reads, StoreBase):
    """The writes of a script. Rows and summaries are JSON texts that Redis does not look into."""

    def init_run(
        self,
        *,
        run_id: str,
        resume: str,
        nonce: str,
        attempt: int | None = None,
        config: Mapping[str, Any] | None = None,
        meta: RunMeta = _NO_META,
    ) -> InitAnswer:
        """Begins or resumes a run, by the table of resuming; the same call again gives the same answer.

        Args:
            resume: "must", "allow", "auto", "never", or "" when unset.
            nonce: Inside a sweep the claim's, outside one made by the caller for this init.
            attempt: The claim's attempt number inside a sweep; None outside: a new attempt begins.
            config: Top-level keys to set; keys that the sweep chose must not be among them.

        Returns:
            The outcome; with NEW, RESUMED and OVERWRITTEN also record, token, starting step and the sweep's objective.
        """
        answer = self._run_script(
            "init_run", self.keys.run(run_id), run_id=run_id, resume=resume, nonce=nonce, attempt=attempt,
            config=_encode_config(config or {}), meta=_encode_meta(meta), project_runs=self.keys.project_runs,
        )  # fmt: skip
        outcome = InitOutcome(answer["outcome"])
        if outcome not in (InitOutcome.NEW, InitOutcome.RESUMED, InitOutcome.OVERWRITTEN):
            return InitAnswer(outcome)
        run = self.run(run_id)
        goes_on = outcome is not InitOutcome.OVERWRITTEN and answer["rows"] > 0
        return InitAnswer(
            outcome=outcome,
            run=run,
            token=ClaimToken(run_id, answer["attempt"], nonce),
            starting_step=int(answer.get("step", -1)) + 1 if goes_on else 0,
            objective=self.objective(run.sweep_id),
            next_seq=int(answer["seq"]) + 1,
        )

    def log(
        self,
        token: ClaimToken,
        *,
        first_seq: int,
        rows: Sequence[tuple[int, str] | tuple[int, str, float]],
        summary: str | None = None,
        metric: float | None = None,
        latest: Sequence[LatestValue | None] = (),
        final: bool = False,
        writer: int | None = None,
    ) -> WriteAnswer:
        """Stores rows, each once.

        Args:
            first_seq: Sequence number of the first row within the attempt; the first row ever has 1.
            rows: (step, values as JSON text), in the order in which they were logged. Where the sweep stops runs early,
                a row with a finite value of the metric has it as a third part.
            summary: The whole summary as JSON text, when it changed; an older batch does not bring its own back.
            metric: The best finite value of the sweep's metric in this batch.
            latest: The last finite value of each of the sweep's metrics in this batch.
            final: The script is over, and is not stopped early any more; its values count all the same.
            writer: The number of the client that sends them, where an attempt may have had several (``open_writer``).

        Returns:
            Hold OWNER or ENDED: stored. LAPSED: keep the rows and try again. STALE, GONE: drop them.
        """
        answer = self._run_script(
            "log", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt, nonce=token.nonce,
            first_seq=first_seq, rows=[_encode_row(*row) for row in rows], summary=summary,
            metric=None if metric is None else repr(float(metric)),
            latest=[_encode_latest(found) for found in latest] if any(latest) else None,
            final=final or None, writer=writer,
        )  # fmt: skip
        return decode_write(answer)

    def prune_run(
        self,
        token: ClaimToken,
        *,
        iteration: int,
        reason: str = "",
        data: Mapping[str, Any] | None = None,
        notes: Mapping[str, Note] | None = None,
    ) -> WriteAnswer:
        """Stops a running run early, by a decision that was made outside Redis; preempting runs go on.

        Args:
            iteration: How many values of the metric the decision knew of; if some were taken back since, it is void.
            reason: For people; begins with "early_terminate: ". Empty: the run goes on, only the notes are kept.
            data: What the event `stop` tells besides.
            notes: What the pruner shall know of this run the next time, whoever asks it then.
        """
        answer = self._run_script(
            "prune_run", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt, nonce=token.nonce,
            iteration=iteration, data={**(data or {}), "reason": reason, "iteration": iteration} if reason else None,
            notes=json.dumps(notes) if notes else None,
        )  # fmt: skip
        return decode_write(answer)

    def update_config(
        self, token: ClaimToken, *, config: Mapping[str, Any] | None = None, meta: RunMeta = _NO_META
    ) -> WriteAnswer:
        """Sets top-level keys of the config, and name, group, notes, tags where given."""
        answer = self._run_script(
            "update_config", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt,
            nonce=token.nonce, config=_encode_config(config or {}), meta=_encode_meta(meta),
        )  # fmt: skip
        return decode_write(answer)

    def commit_checkpoint(
        self,
        token: ClaimToken,
        *,
        path: str,
        step: int | None,
        metadata: Mapping[str, Any] | None = None,
        after: int = 0,
        keep: int = 2,
    ) -> WriteAnswer:
        """Names the checkpoint from which the next attempt goes on; only the owner can.

        Args:
            after: Sequence number of the last row that the attempt logged before; a call with a lower one than that of
                the checkpoint which is committed was held up in the network, and is not taken.
            keep: How many are remembered, this one included.
        """
        record = {"path": path, "metadata": json.dumps(dict(metadata or {})), "after": after}
        if step is not None:
            record["step"] = step
        answer = self._run_script(
            "commit_checkpoint", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt,
            nonce=token.nonce, checkpoint=record, keep=keep,
        )  # fmt: skip
        return decode_write(answer)

    def fall_back(
        self,
        token: ClaimToken,
        *,
        lost: str,
        path: str | None,
        reason: str,
        metadata: Mapping[str, Any] | None = None,
    ) -> WriteAnswer:
        """Says that the newest checkpoint cannot be used, and which kept one the run goes on from instead.

        Args:
            lost: Path of the newest one; when that is another one meanwhile, nothing changes.
            path: Of the one that is used; None when none can be, which changes nothing and is told by an event.
            reason: What is wrong with the newest one, for people.
            metadata: Of the one that is used.
        """
        answer = self._run_script(
            "fall_back", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt, nonce=token.nonce,
            lost=lost, path=path, metadata=json.dumps(dict(metadata or {})), reason=reason,
        )  # fmt: skip
        return decode_write(answer)

    def finish_run(self, token: ClaimToken, *, exit_code: int, certain: bool = True) -> EndAnswer:
        """Ends a run outside any sweep; inside one nothing changes, because the agent reports the end.

        Args:
            certain: The script that owns the run says so. If another one might have said it, the end holds until a
                certain one follows, and new rows put the run back to running.
        """
        answer = self._run_script(
            "finish_run", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt,
            nonce=token.nonce, exit_code=exit_code, unsure=None if certain else True,
        )  # fmt: skip
        state = answer.get("state")
        return EndAnswer(Hold(answer["hold"]), RunState(state) if state else None)
