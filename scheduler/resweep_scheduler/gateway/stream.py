"""file_stream: rows, summary, output, marks and the end of a run, as its client sends them every few seconds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resweep_scheduler.gateway.access import Access, Standing
from resweep_scheduler.gateway.agents import is_client_agent, lease_of
from resweep_scheduler.gateway.graphql import GatewayError
from resweep_scheduler.gateway.writers import HISTORY, OUTPUT, SPAN, SUMMARY, first_line, is_current, marked_writer
from resweep_scheduler.store import EndRequest, Hold, StoreUnavailableError, validate_run_id
from resweep_scheduler.store.batches import make_batch
from resweep_scheduler.store.gateway import Seat
from resweep_scheduler.store.store import Store

BATCH = 500
"""Rows in one script."""
LONGEST_OUTPUT = 64 * 1024
"""Characters of output that are kept of one request: its end, as of the whole output."""
MARK_REASON = "script"
SILENCE = 15_000
"""Milliseconds after which an agent that has not been heard is taken for gone: three heartbeats."""
STOP = {"stopped": True}
_PRIVATE = ("_wandb", "_step", "_runtime", "_timestamp")
"""Names in a summary that are the client's own."""
_STAMP = re.compile(r"^(?:ERROR )?\d{4}-\d\d-\d\dT[\d:.]+ ")


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the history."""

    step: int
    values: dict[str, Any]


def file_stream(access: Access, entity: str, project: str, run_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Take what a client sends; tell it to stop when its run is not its own any more, or when it shall end.

    Raises:
        GatewayError: The run is unknown, or the body is not what a client sends.
        StoreUnavailableError: The client shall send the same again.
    """
    store = access.store(entity, project, write=True)
    seat = store.seat(validate_run_id(run_id))
    if seat is None:
        raise GatewayError(f"no run {run_id!r} in {store.scope}; it was removed", 404)
    files = body.get("files") or {}
    if not isinstance(files, Mapping):
        raise GatewayError("`files` of file_stream is an object")
    marked = marked_writer(files)
    if access.standing(store, seat) is Standing.STALE or not is_current(seat, marked):
        return STOP
    visit = _Visit(store, seat, agents_child=is_client_agent(seat.agent))
    if seat.lapsed:
        visit.adopt()
    if body.get("preempting"):
        visit.check(store.mark_preempting(seat.token, reason=MARK_REASON).hold)
    # A run that only one client ever began has no other that could say anything.
    certain = marked is not None or access.attempt is not None or seat.writer == 1
    visit.take_rows(files, certain=certain, final=certain and bool(body.get("complete")))
    if visit.stale:
        return STOP
    if access.attempt is None:
        # Where `sweep-agent` launched the script, it takes the output and sees the end itself.
        visit.take_output(files.get(OUTPUT))
        if body.get("complete"):
            visit.end(body.get("exitcode"), certain=certain)
        elif visit.agents_child:
            visit.keep_lease()
    return STOP if visit.stop else {}


class _Visit:
    """One request of the client that may write."""

    def __init__(self, store: Store, seat: Seat, *, agents_child: bool) -> None:
        self._store = store
        self._seat = seat
        self.agents_child = agents_child  # `wandb agent` started it, so we hold its lease
        self.stop = bool(seat.stop)
        self.stale = False

    def check(self, hold: Hold) -> None:
        """What the store said of a write.

        Raises:
            StoreUnavailableError: The lease ran out, and its agent has not adopted the run yet.
        """
        if hold is Hold.LAPSED:
            raise StoreUnavailableError(f"the lease of run {self._seat.run_id} ran out; its agent will adopt the run")
        if hold in (Hold.STALE, Hold.GONE):
            self.stale = True

    def take_rows(self, files: Mapping[str, Any], *, certain: bool, final: bool) -> None:
        """Rows and summary."""
        offset, lines = _part(files, HISTORY)
        _, summaries = _part(files, SUMMARY)
        summary = _summary(summaries[-1]) if summaries else None
        if not certain and not (self._seat.is_owned or self._seat.lapsed):
            # While the run goes on, the right client's next summary takes the place of another one's. Now none follows.
            summary = None
        if not lines and summary is None and not final:
            return
        seat = self._seat
        start = offset - first_line(seat.writer) if offset >= SPAN else offset
        rows = list(_rows(lines, start))
        objective = self._store.objective(seat.sweep_id)
        for begin in range(0, max(len(rows), 1), BATCH):
            part = rows[begin : begin + BATCH]
            is_last = begin + BATCH >= len(rows)
            answer = self._store.log(
                seat.token,
                first_seq=seat.writer_seq + start + begin + 1,
                final=final and is_last,
                writer=seat.writer,
                **make_batch(part, summary if is_last else None, objective),
            )
            self.check(answer.hold)
            self.stop = self.stop or bool(answer.stop)
            if self.stale:
                return

    def take_output(self, part: Any) -> None:
        """What the script printed."""
        offset, lines = _part({OUTPUT: part}, OUTPUT) if part else (0, [])
        if lines:
            text = "".join(_STAMP.sub("", line) + "\n" for line in lines)
            self._store.append_output(self._seat.token, text[-LONGEST_OUTPUT:], piece=offset + 1)

    def end(self, exit_code: Any, *, certain: bool) -> None:
        """The script is over."""
        code = exit_code if isinstance(exit_code, int) else 1
        seat = self._seat
        if seat.sweep_id is None:
            self._store.finish_run(seat.token, exit_code=code, certain=certain)
        elif self.agents_child and (certain or self._agent_is_silent(seat.sweep_id)):
            self._store.end_attempt(EndRequest(seat.token, code, reason="as its script said"))
        elif self.agents_child:
            # Any client of the run may have sent it: its agent says whether the process is gone.
            self._store.note(seat.run_id, "said", str(code))

    def keep_lease(self) -> None:
        """A script that is heard is alive, even if its agent is not."""
        seat = self._seat
        if seat.sweep_id is None or not seat.is_owned:
            return
        lease = lease_of(self._store.sweep(seat.sweep_id))
        answer = self._store.heartbeat(seat.sweep_id, agent=seat.agent, token=seat.token, lease_ms=lease)
        self.check(answer.hold)
        self.stop = self.stop or bool(answer.stop)

    def adopt(self) -> None:
        """Its lease ran out, but it is alive: take the run back for it, if nobody else has it."""
        seat = self._seat
        if seat.sweep_id is not None and self.agents_child:
            lease = lease_of(self._store.sweep(seat.sweep_id))
            self._store.adopt(
                seat.sweep_id, agent=seat.agent, token=seat.token, claimed_at=seat.claimed_at, lease_ms=lease
            )

    def _agent_is_silent(self, sweep_id: str) -> bool:
        """Whether the agent is gone, and leaves the script alone."""
        agent = self._store.client_agent(sweep_id, self._seat.agent)
        last = 0 if agent is None else max(agent.told.beat, agent.told.first)
        return self._store.redis_time() - last > SILENCE


def _part(files: Mapping[str, Any], name: str) -> tuple[int, Sequence[str]]:
    """Offset and lines of one file."""
    part = files.get(name) or {}
    try:
        offset, lines = part.get("offset") or 0, part.get("content") or []
    except AttributeError:
        raise GatewayError(f"{name} of file_stream is an object with offset and content") from None
    if not isinstance(offset, int) or not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise GatewayError(f"{name} of file_stream has a number as offset and a list of texts as content")
    return offset, lines


def _rows(lines: Iterable[str], start: int) -> Iterable[Line]:
    for number, text in enumerate(lines, start):
        values = _object(text)
        step = values.pop("_step", number)
        yield Line(step if isinstance(step, int) else number, values)


def _summary(text: str) -> dict[str, Any]:
    return {name: value for name, value in _object(text).items() if name not in _PRIVATE}


def _object(text: str) -> dict[str, Any]:
    """A line of JSON, which may have NaN and infinities as Python writes them."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise GatewayError(f"lines of file_stream are JSON: {error}") from None
    if not isinstance(found, dict):
        raise GatewayError(f"lines of file_stream are JSON objects, got {text[:40]!r}")
    return found
