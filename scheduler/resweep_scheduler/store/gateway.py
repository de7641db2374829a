"""What the gateway for W&B's client keeps: who may write to a run, small files, what W&B's agents were told.

W&B's protocol has no attempts. So each client that begins a run is given a number, the *writer*, and only the last one
may write; the attempt's claim token is what its writes carry from here on.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from resweep_scheduler.store.base import StoreBase
from resweep_scheduler.store.records import ClaimToken, Hold
from resweep_scheduler.store.states import RunState

MAX_FILE = 4 * 1024 * 1024
"""Bytes of one file."""
MAX_FILES = 32 * 1024 * 1024
"""Bytes of all files of a run."""

_SEAT = (
    "state", "sweep", "attempt", "nonce", "agent", "claimed", "stop", "initialised", "step", "seq", "init_by", "lapsed",
    "confirmed", "heard", "writer", "writer_init", "writer_nonce", "writer_seq", "asked", "said",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seat:
    """Who may write to a run now."""

    run_id: str
    state: RunState
    sweep_id: str | None
    token: ClaimToken  # of the last attempt; what it may do is decided by each script
    agent: str
    claimed_at: int
    stop: str
    initialised: bool
    step: int | None
    seq: int  # rows of the attempt
    init_by: str
    lapsed: bool
    confirmed: bool
    heard_at: int
    writer: int  # 0: no client of W&B's ever began this run
    writer_init: str
    writer_nonce: str
    writer_seq: int
    asked: str  # a client has asked how the run can be resumed, "<ms> <random>"
    said: int | None  # exit code that a client reported which may not have been the last one

    @property
    def has_writer(self) -> bool:
        """Whether the last attempt has begun in a client of W&B's."""
        return self.writer > 0 and self.writer_nonce == self.token.nonce

    @property
    def is_owned(self) -> bool:
        """Whether an attempt owns the run."""
        return self.state.is_owned


@dataclass(frozen=True, slots=True)
class Writer:
    """A client that began a run: its number, and how many rows the attempt had before."""

    hold: Hold
    number: int = 0
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """What an agent of W&B's knows of the run that it holds. Times are ms on the Redis clock."""

    run_id: str = ""
    attempt: int = 0
    first: int = 0  # when it was told to run it
    times: int = 0  # how often it was told
    listed: bool = False  # it said that the run's process lives
    missing: int = 0  # since when it does not say so any more
    beat: int = 0  # when it said so last


@dataclass(frozen=True, slots=True)
class ClientAgent:
    """An agent of W&B's, as the claim script left it."""

    session: str
    seq: int
    claimed: str
    run_id: str
    told: Told


class GatewayTransitions(StoreBase):
    """The state that several gateways share."""

    def seat(self, run_id: str) -> Seat | None:
        """Who may write to a run; None when there is no such run."""
        values = self._try(lambda: self.client.hmget(self.keys.run(run_id), list(_SEAT)))
        found = {name: str(value or "") for name, value in zip(_SEAT, values, strict=True)}
        if not found["state"]:
            return None
        return Seat(
            run_id=run_id,
            state=RunState(found["state"]),
            sweep_id=found["sweep"] or None,
            token=ClaimToken(run_id, int(found["attempt"] or 0), found["nonce"]),
            agent=found["agent"],
            claimed_at=int(found["claimed"] or 0),
            stop=found["stop"],
            initialised=found["initialised"] == "1",
            step=int(found["step"]) if found["step"] else None,
            seq=int(found["seq"] or 0),
            init_by=found["init_by"],
            lapsed=found["lapsed"] == "1",
            confirmed=found["confirmed"] == "1",
            heard_at=int(found["heard"] or 0),
            writer=int(found["writer"] or 0),
            writer_init=found["writer_init"],
            writer_nonce=found["writer_nonce"],
            writer_seq=int(found["writer_seq"] or 0),
            asked=found["asked"],
            said=int(found["said"]) if found["said"] else None,
        )

    def open_writer(self, token: ClaimToken, *, init: str) -> Writer:
        """Makes a client the one that may write to the run; the same call again gives the same number."""
        answer = self._run_script(
            "open_writer", self.keys.run(token.run_id), run_id=token.run_id, attempt=token.attempt, nonce=token.nonce,
            init=init,
        )  # fmt: skip
        return Writer(Hold(answer["hold"]), int(answer.get("writer", 0)), int(answer.get("seq", 0)))

    def note(self, run_id: str, name: Literal["asked", "said"], value: str) -> None:
        """Keeps what a client said about a run that exists, until the next one begins it."""
        self._try(lambda: self.client.hset(self.keys.run(run_id), name, value))

    def last_row(self, run_id: str) -> dict[str, Any]:
        """The row that was stored last; empty when there is none."""
        found: Any = self._try(lambda: self.client.xrevrange(self.keys.run(run_id, "history"), count=1))
        return dict(json.loads(str(found[0][1]["row"]))) if found else {}

    # Agents.

    def client_agent(self, sweep_id: str, agent: str) -> ClientAgent | None:
        """An agent of W&B's; None when the sweep does not know it."""
        record, told = self._read(
            lambda pipe: pipe.hget(self.keys.sweep(sweep_id, "agents"), agent).hget(
                self.keys.sweep(sweep_id, "clients"), agent
            )
        )
        if record is None:
            return None
        known = json.loads(record)
        return ClientAgent(
            session=known["session"],
            seq=int(known["seq"]),
            claimed=known.get("claimed") or "",
            run_id=known.get("run") or "",
            told=Told(**json.loads(told)) if told else Told(),
        )

    def tell(self, sweep_id: str, agent: str, told: Told | None) -> None:
        """Keeps what an agent of W&B's was told; None forgets it."""
        key = self.keys.sweep(sweep_id, "clients")
        if told is None:
            self._try(lambda: self.client.hdel(key, agent))
        else:
            self._try(lambda: self.client.hset(key, agent, json.dumps(asdict(told))))

    # Files.

    def put_file(self, run_id: str, name: str, content: bytes) -> bool:
        """Keeps a small file of a run in the place of an older one; False when the run's files are too large."""
        key = self.keys.run(run_id, "files")
        others = sum(size for other, size in self.files(run_id).items() if other != name)
        if len(content) > MAX_FILE or others + len(content) > MAX_FILES:
            return False
        self._try(lambda: self.client.hset(key, name, base64.b64encode(content).decode().rstrip("=")))
        return True

    def files(self, run_id: str) -> Mapping[str, int]:
        """The names of a run's files, with their sizes in bytes."""
        key = self.keys.run(run_id, "files")
        names = sorted(str(name) for name in self._try(lambda: self.client.hkeys(key)))
        if not names:
            return {}

        def fill(pipe: Any) -> None:
            for name in names:
                pipe.hstrlen(key, name)

        return {name: length * 3 // 4 for name, length in zip(names, self._read(fill), strict=True)}

    def get_file(self, run_id: str, name: str) -> bytes | None:
        """The content of a file; None when there is none of this name."""
        text = self._try(lambda: self.client.hget(self.keys.run(run_id, "files"), name))
        return None if text is None else base64.b64decode(str(text) + "=" * (-len(str(text)) % 4))
