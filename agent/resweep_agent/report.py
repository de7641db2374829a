"""Telling the store how an attempt ended."""

from __future__ import annotations

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.launch import Exit, UnfitRunError
from resweep_agent.watch import Attempt
from resweep_scheduler.store import ClaimedRun, ClaimToken, EndAnswer, EndRequest, Hold, Store, StoreError

COMMAND_NOT_FOUND_STATUS = 127
"""The exit status of an attempt whose command does not exist, as a shell has it."""
NOT_STARTED_STATUS = 126
"""The exit status of an attempt whose command cannot be executed with its arguments, as a shell has it."""
LAST_OUTPUT = 0.2
"""Seconds for which the report of a failure waits for the last of the output."""


def end_of(attempt: Attempt, ended: Exit, *, marks: bool) -> EndRequest:
    """The report on an attempt whose child ended.

    Args:
        attempt: The attempt, with what was asked of it.
        ended: How the child ended. A death by signal is no status.
        marks: Whether a notice counts as preempting.
    """
    if attempt.stopped:
        reason = attempt.stopped
    elif attempt.notice:
        reason = f"notice: {attempt.notice}"
    else:
        reason = "" if ended.code == 0 else str(ended)
    return EndRequest(
        token=attempt.run.token,
        exit_code=ended.code,
        signal=ended.signal,
        reason=reason,
        preempted=bool(attempt.notice) and marks,
        killed=bool(attempt.stopped),
    )


def end_of_failed_launch(token: ClaimToken, error: AgentError | UnfitRunError) -> EndRequest:
    """The report on an attempt whose child was never started: the run's own failure, or this machine's."""
    if isinstance(error, UnfitRunError):
        return EndRequest(token, NOT_STARTED_STATUS, reason=str(error), launched=False)
    not_found = error.exit_code is ExitCode.COMMAND_NOT_FOUND
    status = COMMAND_NOT_FOUND_STATUS if not_found else None
    return EndRequest(token, status, reason=str(error), preempted=not not_found, launched=False)


def deliver(
    store: Store, request: EndRequest, run: ClaimedRun, *, sweep_id: str, agent: str, lease_ms: int
) -> EndAnswer:
    """Report the end; a Redis that was rolled back to before our claim is told of the claim first.

    Raises:
        StoreError: The store did not answer, or refused.
    """
    answer = store.end_attempt(request)
    if answer.hold is not Hold.STALE:
        return answer
    adopted = store.adopt(sweep_id, agent=agent, token=run.token, claimed_at=run.claimed_at, lease_ms=lease_ms)
    return store.end_attempt(request) if adopted.hold is Hold.OWNER else answer


def send_last_words(store: Store, attempt: Attempt) -> None:
    """Send the last output of a failure before the run may belong to somebody else; what fails is tried again later."""
    if not attempt.output.closed.wait(LAST_OUTPUT):
        return
    piece = attempt.output.take_tail()
    if piece is None:
        return
    try:
        store.append_output(attempt.run.token, piece.text, piece=piece.number)
    except StoreError:
        attempt.output.put_back(piece)
