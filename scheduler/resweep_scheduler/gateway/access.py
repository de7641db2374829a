"""Who asks, and what they may."""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from enum import Enum, auto

from resweep_scheduler.gateway.histories import Histories
from resweep_scheduler.gateway.listings import Listings
from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, Scope, Store
from resweep_scheduler.store.connect import Client
from resweep_scheduler.store.credentials import (
    Credentials,
    KeyRecord,
    Rights,
    attempt_key,
    is_sealed,
    run_of_attempt_key,
)
from resweep_scheduler.store.gateway import Seat


class AccessError(Exception):
    """The key is missing, unknown, or not for this.

    Args:
        message: One line: rule, value, cure.
        status: 401 without a valid key, 403 with one that does not allow it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Standing(Enum):
    """How a request stands to a run by its key."""

    OPEN = auto()  # the key is of a person, and says nothing of attempts
    OWNER = auto()  # the key is of the attempt that the run has now
    STALE = auto()  # the key is of an attempt that is over


@dataclass(frozen=True)
class Desk:
    """What all requests of a gateway share.

    Attributes:
        client: Of the server.
        url: Of the server, for messages.
        no_auth: Whoever comes without a key may do everything.
        secret: What keys of attempts and addresses of files are signed with.
        public_url: How clients reach the gateway; empty: as each request says.
        histories: That were read a moment ago.
        listings: That clients are reading page by page.
    """

    client: Client
    url: str
    no_auth: bool
    secret: bytes
    public_url: str = ""
    histories: Histories = field(default_factory=Histories, compare=False)
    listings: Listings = field(default_factory=Listings, compare=False)

    def store(self, scope: Scope) -> Store:
        return Store(self.client, scope, url=self.url)

    def access(self, authorization: str | None) -> Access:
        """Read the key of a request; whether it is valid for what is asked is decided there.

        Raises:
            AccessError: There is none, or it is unknown.
        """
        key = _key_of(authorization)
        if key is not None and run_of_attempt_key(key) is not None:
            if not is_sealed(self.secret, key):
                raise AccessError("the key in WANDB_API_KEY looks like one of an attempt, and was not made here", 401)
            return Access(self, attempt=key)
        if self.no_auth:
            return Access(self)
        if key is None:
            raise AccessError("a key is needed: set WANDB_API_KEY to one that `resweep key create` prints", 401)
        record = Credentials(self.client, url=self.url).find_key(key)
        if record is None:
            raise AccessError("the key in WANDB_API_KEY is unknown here; `resweep key create` prints a new one", 401)
        return Access(self, record=record)


@dataclass(frozen=True)
class Access:
    """The rights of one request."""

    desk: Desk
    record: KeyRecord | None = None
    attempt: str | None = None  # the key of an attempt

    @property
    def entity(self) -> str:
        """The entity of those who name none."""
        return self.record.entity if self.record is not None else DEFAULT_ENTITY

    def store(self, entity: str | None, project: str | None, *, write: bool) -> Store:
        """The store of a project.

        A key of an attempt opens its own project: to be read, and to be written in as far as `standing` says OWNER.

        Raises:
            AccessError: The key is not for this.
            InvalidNameError: There cannot be such a project.
        """
        scope = Scope(entity or self.entity, project or DEFAULT_PROJECT)
        if self.record is not None and not self.record.allows(scope.entity, write=write):
            rights = f"{self.record.rights} in {self.record.entity}"
            needed = Rights.WRITE if write else Rights.READ
            raise AccessError(
                f"the key {self.record.key_id} allows to {rights}, not to {needed} in {scope.entity};"
                f" `resweep key create --entity {scope.entity}` prints one that does",
                403,
            )
        return self.desk.store(scope)

    def standing(self, store: Store, seat: Seat | None) -> Standing:
        """How this request stands to a run."""
        if self.attempt is None:
            return Standing.OPEN
        if seat is None:
            return Standing.STALE
        right = attempt_key(self.desk.secret, store.scope, seat.token)
        return Standing.OWNER if hmac.compare_digest(right.encode(), self.attempt.encode()) else Standing.STALE

    def require_reader(self, store: Store) -> None:
        """Refuse a key of an attempt that is not the current one of its run in this project.

        Raises:
            AccessError: It is refused.
        """
        if self.attempt is None:
            return
        seat = store.seat(run_of_attempt_key(self.attempt) or "-")
        if self.standing(store, seat) is not Standing.OWNER:
            raise AccessError(
                f"the key of this attempt allows nothing in {store.scope} any more; the run belongs to another attempt",
                403,
            )

    def require_person(self) -> None:
        """Refuse a key of an attempt: sweeps and agents are not a script's to change.

        Raises:
            AccessError: It is refused.
        """
        if self.attempt is not None:
            raise AccessError(
                "the key of a run's attempt cannot create or change sweeps; use one of `resweep key create`", 403
            )


def _key_of(authorization: str | None) -> str | None:
    """The password of HTTP's basic authentication, where W&B's client puts the key."""
    kind, _, value = (authorization or "").partition(" ")
    if kind.lower() == "bearer":
        return value.strip() or None
    if kind.lower() != "basic":
        return None
    try:
        _, _, password = base64.b64decode(value).decode().partition(":")
    except ValueError:
        return None
    return password or None
