"""Every key name, and the rules for names that become part of one.

All keys of a project begin with ``resweep:{entity/project}:`` and so share one hash tag (one slot in Redis Cluster):

    sweep:<sid>            hash    config as given and normalised, settings, stopping, state, next_index, counters
    sweep:<sid>:queue      list    the run queue: preempted runs, first in first out
    sweep:<sid>:ready      list    suggested runs not yet claimed
    sweep:<sid>:leases     zset    run id → deadline in ms on the sweep's lease clock
    sweep:<sid>:runs       zset    run id → index of the suggestion
    sweep:<sid>:params     hash    run id → parameters, JSON
    sweep:<sid>:level:<i>  zset    run id → its value of the metric at iteration i, less is better (early termination)
    sweep:<sid>:agents     hash    agent id → what it holds, JSON
    sweep:<sid>:seen       zset    agent id → last seen, ms
    sweep:<sid>:events     stream  every transition in order: kind, run, attempt, agent, before, after, data
    sweep:<sid>:wake       list    wake-up tokens for idle agents (expires)
    sweep:<sid>:asking     string  the session that computes the next suggestions (expires)
    sweep:<sid>:askers     zset    agent id → when it began to wait for suggestions, ms (expires)
    sweep:<sid>:service    string  a search service looks after the sweep (expires)
    sweep:<sid>:poke:<s>   list    tokens that make one agent process heartbeat now (expires)
    sweep:<sid>:left:<s>:<a>  string  an agent that left: its late registration is refused (expires)
    sweep:<sid>:clients    hash    agent of W&B → what it was told of its run, JSON
    sweep:<sid>:hooks      hash    cursor in the events; delivery of a webhook → when it is due, how often it failed
    run:<rid>              hash    state, attempt, nonce, agent, step, metric, values, times, stop, exit status
    run:<rid>:config       hash    key → JSON, what the script gave to init(config=…)
    run:<rid>:meta         hash    name, group, notes, tags
    run:<rid>:summary      string  JSON
    run:<rid>:checkpoint   string  JSON
    run:<rid>:history      stream  step, attempt, row
    run:<rid>:curve        list    step, attempt, value, best of the metric, one for each value (early termination)
    run:<rid>:output       stream  attempt, text (the tail)
    run:<rid>:files        hash    name → content in base64 without padding (small files that W&B's client saved)
    runs                   zset    runs outside sweeps → creation time

Outside any project stand ``resweep:sweeps`` (hash, sweep id → entity/project), ``resweep:keys`` (hash, id of a key
of the gateway → its record, JSON) and ``resweep:secret`` (string, what gateways sign with).

Kinds of events: created, state (of the sweep), suggested, claimed, preempting, preempted, finished, failed, crashed,
killed, adopted, retried, removed, stop, target, checkpoint, fallback (to an older checkpoint); and notice, which
belongs to an agent and to no run.

The data of a notice has source ("aws", "SIGTERM", …), detail, hint (true: nothing follows from it) and lead_ms, the
time until the machine goes, if the source says it; preempting has reason and, after a notice, source and lead_ms.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from resweep_scheduler.store.errors import InvalidNameError

DEFAULT_ENTITY = "local"
DEFAULT_PROJECT = "uncategorized"
SWEEP_INDEX = "resweep:sweeps"
KEY_INDEX = "resweep:keys"
SECRET = "resweep:secret"

_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_SCOPE_PART = re.compile(r"[A-Za-z0-9_.\-]{1,128}")
_SWEEP_ID = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_RUN_ID_FORBIDDEN = re.compile(r"[:;,#?/'\x00-\x1f{}\\]")


def new_id() -> str:
    """A random id in W&B's form: 8 of [a-z0-9]."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))


def validate_sweep_id(text: str) -> str:
    """Returns ``text``; raises InvalidNameError when it is no sweep id."""
    if not _SWEEP_ID.fullmatch(text):
        raise InvalidNameError(
            f"a sweep id has 1 to 64 of [A-Za-z0-9_-], got {text!r}; copy it from `resweep ls` or leave it out"
        )
    return text


def validate_run_id(text: str) -> str:
    """Returns ``text``; raises InvalidNameError by W&B's rules for run ids (and what a file name cannot have)."""
    if not text:
        raise InvalidNameError("Run ID cannot be empty; leave it out to get a new one")
    if not text.strip():
        raise InvalidNameError("Run ID cannot contain only whitespace; leave it out to get a new one")
    if text != text.strip():
        raise InvalidNameError(f"Run ID cannot start or end with whitespace, got {text!r}; strip it")
    if _RUN_ID_FORBIDDEN.search(text):
        raise InvalidNameError(
            f"Run ID cannot contain the characters: :;,#?/' {{}}\\ or control characters, got {text!r}; replace them"
        )
    if len(text) > 128 or text in (".", ".."):
        raise InvalidNameError(f"Run ID must be a file name of at most 128 characters, got {text[:40]!r}; shorten it")
    return text


def validate_project(text: str, what: str = "project") -> str:
    """Returns ``text``; raises InvalidNameError when it cannot be an entity or project."""
    if not _SCOPE_PART.fullmatch(text) or text in (".", ".."):
        raise InvalidNameError(f"{what} has 1 to 128 of [A-Za-z0-9_.-], got {text!r}; rename it")
    return text


@dataclass(frozen=True, slots=True)
class Scope:
    """``entity/project``: the namespace in which run ids are unique."""

    entity: str = DEFAULT_ENTITY
    project: str = DEFAULT_PROJECT

    def __post_init__(self) -> None:
        validate_project(self.entity, "entity")
        validate_project(self.project)

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}"

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Reads ``entity/project`` or ``project``."""
        entity, _, project = text.rpartition("/")
        return cls(entity or DEFAULT_ENTITY, project)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one project."""

    scope: Scope

    @property
    def prefix(self) -> str:
        return f"resweep:{{{self.scope}}}:"

    @property
    def project_runs(self) -> str:
        return f"{self.prefix}runs"

    def sweep(self, sweep_id: str, part: str = "") -> str:
        name = f"{self.prefix}sweep:{sweep_id}"
        return f"{name}:{part}" if part else name

    def run(self, run_id: str, part: str = "") -> str:
        name = f"{self.prefix}run:{run_id}"
        return f"{name}:{part}" if part else name
