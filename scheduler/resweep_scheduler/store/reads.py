"""Reading: records as they stand, in as few flights as can be."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.checkpoints import decode_checkpoint
from resweep_scheduler.store.errors import UnknownRunError, UnknownSweepError
from resweep_scheduler.store.records import (
    AgentRecord,
    CurvePoint,
    Event,
    HistoryRow,
    Lease,
    Objective,
    OutputChunk,
    Run,
    SearchRecord,
    Sweep,
)
from resweep_scheduler.store.states import RunState, SweepState

_PAGE = 500
_LAST_EVENTS = 100  # enough to find one that is no removal, nearly always
_RUN_PARTS = 5  # record, summary, checkpoint, config, meta


def decode_metrics(text: str | None) -> tuple[tuple[str, str], ...]:
    """Name and goal of each of several metrics."""
    return tuple((metric["name"], metric["goal"]) for metric in json.loads(text)) if text else ()


def decode_values(text: str | None) -> tuple[float | None, ...]:
    """The last values of the sweep's metrics, as ``log`` stored them."""
    latest = json.loads(text) if text else []
    return tuple(float(found[0]) if found else None for found in latest)


def _int(text: str | None) -> int | None:
    return int(text) if text else None


def _mapping(text: str | None) -> dict[str, Any]:
    return dict(json.loads(text)) if text else {}


class Reads(StoreBase):
    """What people, the search and the SDK read. All of it may be a moment old."""

    def sweep(self, sweep_id: str) -> Sweep:
        """The sweep's record, counts and run queue.

        Raises:
            UnknownSweepError: No such sweep in this project.
        """
        fields, queue = self._read(
            lambda pipe: pipe.hgetall(self.keys.sweep(sweep_id)).lrange(self.keys.sweep(sweep_id, "queue"), 0, -1)
        )
        if "state" not in fields:
            raise UnknownSweepError(f"no sweep {sweep_id!r} in {self.scope}; `resweep ls` lists the sweeps")
        return Sweep(
            sweep_id=sweep_id,
            scope=str(self.scope),
            state=SweepState(fields["state"]),
            reason=fields.get("reason") or fields.get("closed", ""),
            name=fields.get("name", ""),
            config_text=fields.get("config_text", ""),
            config_json=fields.get("config", "{}"),
            next_index=int(fields.get("next_index", 0)),
            created_at=int(fields.get("created", 0)),
            lease_ms=int(fields.get("lease_ms", 60_000)),
            heartbeat_ms=int(fields.get("heartbeat_ms", 10_000)),
            counts={state: int(fields.get(f"n:{state}", 0)) for state in RunState},
            queue=tuple(queue),
            metric_name=fields.get("metric_name") or None,
            metric_goal=fields.get("metric_goal") or None,
            metrics=decode_metrics(fields.get("metrics")),
        )

    def sweep_state(self, sweep_id: str) -> SweepState:
        """The sweep's state.

        Raises:
            UnknownSweepError: No such sweep in this project.
        """
        state = self._try(lambda: self.client.hget(self.keys.sweep(sweep_id), "state"))
        if state is None:
            raise UnknownSweepError(f"no sweep {sweep_id!r} in {self.scope}; `resweep ls` lists the sweeps")
        return SweepState(str(state))

    def objective(self, sweep_id: str | None) -> Objective:
        """What rows must say of the sweep's metrics; nothing for a run outside any sweep."""
        if sweep_id is None:
            return Objective()
        key = self.keys.sweep(sweep_id)
        fields = ["metric_name", "metric_goal", "metrics", "stopping"]
        name, goal, several, stopping = self._try(lambda: self.client.hmget(key, fields))
        metrics: tuple[tuple[str, str], ...] = ((str(name), str(goal or "minimize")),) if name else ()
        return Objective(decode_metrics(str(several or "")) or metrics, bool(stopping))

    def run(self, run_id: str) -> Run:
        """One run.

        Raises:
            UnknownRunError: No such run in this project.
        """
        runs = self._load_runs([run_id])
        if not runs:
            raise UnknownRunError(f"no run {run_id!r} in {self.scope}; `resweep runs SWEEP` lists them")
        return runs[0]

    def runs(self, sweep_id: str, states: Sequence[RunState] | None = None) -> list[Run]:
        """The runs of a sweep in creation order; only those in ``states`` when given."""
        run_ids = self._members(self.keys.sweep(sweep_id, "runs"))
        return [run for run in self._load_runs(run_ids) if states is None or run.state in states]

    def runs_by_id(self, run_ids: Sequence[str]) -> dict[str, Run]:
        """Some runs of the project, by id, in the order of `run_ids`; those that were removed are missing."""
        return {run.run_id: run for run in self._load_runs(run_ids)}

    def project_runs(self) -> list[Run]:
        """The runs of the project that belong to no sweep, oldest first."""
        return self._load_runs(self._members(self.keys.project_runs))

    def search_runs(self, sweep_id: str) -> list[SearchRecord]:
        """What the search needs to know of every run, in the order of their indices."""
        run_ids = self.search_run_ids(sweep_id)
        return sorted(self.search_records(sweep_id, run_ids).values(), key=lambda record: record.index)

    def search_run_ids(self, sweep_id: str) -> list[str]:
        """The runs of a sweep in the order of their indices."""
        return self._members(self.keys.sweep(sweep_id, "runs"))

    def search_records(self, sweep_id: str, run_ids: Sequence[str]) -> dict[str, SearchRecord]:
        """The same for some runs, by id; those that were removed are missing."""
        records: dict[str, SearchRecord] = {}
        for start in range(0, len(run_ids), _PAGE):
            page = run_ids[start : start + _PAGE]

            def fill(pipe: Any, page: Sequence[str] = page) -> None:
                pipe.hmget(self.keys.sweep(sweep_id, "params"), list(page))
                for run_id in page:
                    pipe.hmget(self.keys.run(run_id), ["index", "state", "metric", "values", "pruned"])

            params, *found = self._read(fill)
            for run_id, text, (index, *fields) in zip(page, params, found, strict=True):
                if fields[0]:
                    records[run_id] = _decode_search_record(int(index), _mapping(text), fields)
        return records

    def curve(self, run_id: str, *, start: int = 0) -> list[CurvePoint]:
        """The values of the sweep's metric that the run logged, from the `start`-th on, where runs are stopped early.

        Steps that were logged again have the later value; their place in the list is what early termination calls the
        iteration, counted from 1.
        """
        points = self._try(lambda: self.client.lrange(self.keys.run(run_id, "curve"), start, -1))
        return [decode_point(str(point)) for point in points]

    def agents(self, sweep_id: str) -> list[AgentRecord]:
        """The agents (slots) that have not left, by id."""
        records, seen = self._read(
            lambda pipe: pipe.hgetall(self.keys.sweep(sweep_id, "agents")).zrange(
                self.keys.sweep(sweep_id, "seen"), 0, -1, withscores=True
            )
        )
        last_seen = {agent: int(score) for agent, score in seen}
        agents = []
        for agent, text in sorted(records.items()):
            record = json.loads(text)
            agents.append(
                AgentRecord(
                    agent=agent,
                    run_id=record.get("run") or None,
                    last_seen=last_seen.get(agent, 0),
                    host=record.get("host", ""),
                    pid=int(record.get("pid", 0)),
                    waiting=bool(record.get("waiting")),
                )
            )
        return agents

    def leases(self, sweep_id: str) -> list[Lease]:
        """Leases that are held, the next one to run out first."""
        key = self.keys.sweep(sweep_id)
        times, held = self._read(
            lambda pipe: pipe.hmget(key, ["clock"]).zrange(self.keys.sweep(sweep_id, "leases"), 0, -1, withscores=True)
        )
        clock = int(times[0] or 0)
        return [Lease(run_id, int(deadline) - clock) for run_id, deadline in held]

    def events(
        self, sweep_id: str, *, after: str = "0", count: int | None = None, block_ms: int | None = None
    ) -> list[Event]:
        """Transitions in order, those that come after the event id ``after``; waits up to ``block_ms`` for one."""
        key = self.keys.sweep(sweep_id, "events")
        answer = self._try(lambda: self.client.xread({key: after}, count=count, block=block_ms))
        entries = _entries_of(answer)
        return [_decode_event(event_id, fields) for event_id, fields in entries]

    def last_event_id(self, sweep_id: str) -> str:
        """Of the event that came last; empty when there is none."""
        last = self._try(lambda: self.client.xrevrange(self.keys.sweep(sweep_id, "events"), count=1))
        return str(last[0][0]) if last else ""

    def last_change_at(self, sweep_id: str) -> int | None:
        """When the last event came that is no removal of a run (ms); None when there is none."""
        key, newest = self.keys.sweep(sweep_id, "events"), "+"
        while True:
            page: partial[Any] = partial(self.client.xrevrange, key, max=newest, count=_LAST_EVENTS)
            entries = self._try(page)
            for event_id, fields in entries:
                if fields["kind"] != "removed":
                    return int(str(event_id).partition("-")[0])
            if not entries:
                return None
            newest = f"({entries[-1][0]}"

    def has_event(self, sweep_id: str, event_id: str) -> bool:
        """Whether an event is there; after a rollback of Redis it may not be."""
        return bool(self._try(lambda: self.client.xrange(self.keys.sweep(sweep_id, "events"), event_id, event_id)))

    def history(self, run_id: str) -> list[HistoryRow]:
        """Logged rows by ascending step; the later attempt's row for a step wins, rows of one attempt are merged."""
        merged: dict[int, HistoryRow] = {}
        for entry_id, fields in self._stream(self.keys.run(run_id, "history")):
            step, attempt = int(fields["step"]), int(fields["attempt"])
            values, at = json.loads(fields["row"]), int(entry_id.partition("-")[0])
            known = merged.get(step)
            if known is not None and known.attempt > attempt:
                continue
            if known is not None and known.attempt == attempt:
                values = {**known.values, **values}
            merged[step] = HistoryRow(step, attempt, at, values)
        return [merged[step] for step in sorted(merged)]

    def output(self, run_id: str, *, after: str = "0") -> list[OutputChunk]:
        """The tail of what the run printed, pieces after the chunk id ``after``."""
        entries = self._stream(self.keys.run(run_id, "output"), after=after)
        return [OutputChunk(chunk_id, int(fields["attempt"]), fields["text"]) for chunk_id, fields in entries]

    def _stream(self, key: str, after: str = "0") -> list[tuple[str, dict[str, str]]]:
        entries: list[tuple[str, dict[str, str]]] = []
        while True:
            position = entries[-1][0] if entries else after
            page = self._try(lambda at=position: self.client.xread({key: at}, count=_PAGE))  # type: ignore[misc]
            found = _entries_of(page)
            entries += found
            if len(found) < _PAGE:
                return entries

    def _load_runs(self, run_ids: Sequence[str]) -> list[Run]:
        runs: list[Run] = []
        for start in range(0, len(run_ids), _PAGE):
            page = run_ids[start : start + _PAGE]
            replies = self._read(lambda pipe, page=page: self._ask_for_runs(pipe, page))  # type: ignore[misc]
            parts = [replies[i : i + _RUN_PARTS] for i in range(0, len(replies), _RUN_PARTS)]
            sweeps = [fields.get("sweep") or None for fields, *_ in parts]

            def fill(pipe: Any, page: Sequence[str] = page, sweeps: list[str | None] = sweeps) -> None:
                for run_id, sweep_id in zip(page, sweeps, strict=True):
                    pipe.hget(self.keys.sweep(sweep_id or "-", "params"), run_id)

            params = self._read(fill)
            for run_id, part, text in zip(page, parts, params, strict=True):
                if part[0]:
                    runs.append(_decode_run(run_id, part, text))
        return runs

    def _ask_for_runs(self, pipe: Any, run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            pipe.hgetall(self.keys.run(run_id))
            pipe.get(self.keys.run(run_id, "summary"))
            pipe.get(self.keys.run(run_id, "checkpoint"))
            pipe.hgetall(self.keys.run(run_id, "config"))
            pipe.hgetall(self.keys.run(run_id, "meta"))


def _entries_of(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries in XREAD's reply for one stream, with RESP2 (a list) and RESP3 (a mapping)."""
    if not answer:
        return []
    if isinstance(answer, Mapping):
        pages = next(iter(answer.values()))
        return [entry for page in pages for entry in page] if pages and isinstance(pages[0], list) else list(pages)
    return list(answer[0][1])


def _decode_event(event_id: str, fields: Mapping[str, str]) -> Event:
    return Event(
        event_id=event_id,
        at=int(event_id.partition("-")[0]),
        kind=fields["kind"],
        run_id=fields["run"] or None,
        attempt=_int(fields["attempt"]),
        agent=fields["agent"] or None,
        before=fields["before"],
        after=fields["after"],
        data=_mapping(fields["data"]),
    )


def decode_point(text: str) -> CurvePoint:
    """A point of a curve as lua/shared/stopping.lua stored it."""
    step, attempt, value, _ = text.split(" ")
    return CurvePoint(int(step), float(value), int(attempt))


def _decode_search_record(index: int, params: dict[str, Any], fields: Sequence[str | None]) -> SearchRecord:
    state, metric, values, pruned = fields
    latest = decode_values(values)
    return SearchRecord(
        index=index,
        params=params,
        state=RunState(state or ""),
        metric=float(metric) if metric else None,
        last=latest[0] if len(latest) == 1 else None,
        values=latest if len(latest) > 1 else (),
        stopped=pruned == "1" and state == RunState.KILLED,
    )


def _decode_run(run_id: str, part: Sequence[Any], params_text: str | None) -> Run:
    fields, summary, checkpoint, config, meta = part
    params = _mapping(params_text)
    metric = fields.get("metric")
    return Run(
        run_id=run_id,
        state=RunState(fields["state"]),
        sweep_id=fields.get("sweep") or None,
        index=_int(fields.get("index")),
        attempt=int(fields.get("attempt", 0)),
        agent=fields.get("agent") or None,
        params=params,
        config={name: json.loads(value) for name, value in config.items()} | params,
        summary=_mapping(summary),
        step=_int(fields.get("step")),
        metric=float(metric) if metric else None,
        stopped=fields.get("pruned") == "1",
        values=decode_values(fields.get("values")),
        exit_code=_int(fields.get("exit_code")),
        signal=_int(fields.get("signal")),
        reason=fields.get("reason", ""),
        initialised=fields.get("initialised") == "1",
        checkpoint=decode_checkpoint(checkpoint),
        created_at=int(fields.get("created", 0)),
        started_at=_int(fields.get("claimed")),
        ended_at=_int(fields.get("ended")),
        seconds=int(fields.get("busy_ms", 0)) / 1000,
        name=meta.get("name", ""),
        group=meta.get("group", ""),
        notes=meta.get("notes", ""),
        tags=tuple(json.loads(meta["tags"])) if "tags" in meta else (),
        stop=fields.get("stop", ""),
    )
