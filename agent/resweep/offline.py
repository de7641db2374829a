"""Channels that send nothing: offline, where everything goes to the spill file, and silent ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from resweep.answers import Left, Ticket
from resweep.sender import Sender
from resweep.spill import Commit

if TYPE_CHECKING:
    from resweep_scheduler.store import ClaimToken, Store


class Channel(Protocol):
    """What a run gives its rows to.

    Attributes:
        silent: True when `log` has nothing to do.
    """

    silent: bool

    def start(self) -> None: ...
    def put(self, step: int, values: dict[str, Any]) -> None: ...
    def change_config(self, items: Mapping[str, Any]) -> None: ...
    def mark_preempting(self, timeout: float) -> bool: ...
    def commit(self, commit: Commit, timeout: float) -> Ticket: ...
    def fall_back(self, lost: str, path: str | None, metadata: Mapping[str, Any], reason: str) -> None: ...
    def close(self, exit_code: int, timeout: float) -> Left: ...


class OfflineSender(Sender):
    """Writes everything down, for `resweep sync`."""

    def mark_preempting(self, timeout: float) -> bool:
        """Nobody can be told."""
        return False

    def commit(self, commit: Commit, timeout: float) -> Ticket:
        """The checkpoint is committed by `resweep sync`."""
        self._outbox.append_commit(commit)
        return _open_ticket()

    def _deliver(self) -> None:
        self._outbox.write_down()
        end = {} if self._exit_code is None else {"exit_code": self._exit_code}
        self._note_facts(**end)
        if end:
            self._drained.set()


class Silent:
    """The channel of processes that log nothing: ranks other than 0, and mode="disabled"."""

    silent = True

    def __init__(self, store: Store | None = None, token: ClaimToken | None = None) -> None:
        self._store = store
        self._token = token

    def start(self) -> None:
        """Nothing runs."""

    def put(self, step: int, values: dict[str, Any]) -> None:
        """Rows are dropped."""

    def change_config(self, items: Mapping[str, Any]) -> None:
        """The change stays in this process."""

    def mark_preempting(self, timeout: float) -> bool:
        """Any rank may say that its machine will be taken away."""
        from resweep_scheduler.store import Hold, StoreError

        if self._store is None or self._token is None:
            return False
        try:
            answer = self._store.patient(timeout).mark_preempting(self._token, reason="script")
        except StoreError:
            return False
        return answer.hold is Hold.OWNER

    def commit(self, commit: Commit, timeout: float) -> Ticket:
        """Nothing is committed."""
        return _open_ticket()

    def fall_back(self, lost: str, path: str | None, metadata: Mapping[str, Any], reason: str) -> None:
        """Rank 0 tells it."""

    def close(self, exit_code: int, timeout: float) -> Left:
        """Nothing is left."""
        return Left()


def _open_ticket() -> Ticket:
    """Of what nobody will know in this process; whoever waits for it goes on."""
    ticket = Ticket()
    ticket.answer(None)
    return ticket
