"""Webhooks that are to be called for events of a sweep: noted, due, done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resweep_scheduler.store.reads import Reads
from resweep_scheduler.store.records import Event

_CURSOR = "cursor"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A webhook that is to be called for one event."""

    delivery_id: str  # "<event id>/<target>"
    due: int  # ms
    tries: int  # that have failed

    @property
    def event_id(self) -> str:
        return self.delivery_id.partition("/")[0]

    @property
    def target(self) -> str:
        return self.delivery_id.partition("/")[2]


class DeliveryTransitions(Reads):
    """The deliveries of sweeps. One that was made may be made again: receivers know it by its id."""

    def deliveries(self, sweep_id: str) -> tuple[str, list[Delivery]]:
        """How far the events have been noted (empty: not at all), and what is still to be delivered."""
        fields = self._try(lambda: self.client.hgetall(self.keys.sweep(sweep_id, "hooks")))
        cursor = str(fields.pop(_CURSOR, ""))
        found = []
        for name, text in fields.items():
            due, _, tries = str(text).partition(" ")
            found.append(Delivery(str(name), int(due), int(tries)))
        return cursor, sorted(found, key=_order)

    def note_deliveries(self, sweep_id: str, *, before: str, after: str, deliveries: Sequence[str]) -> bool:
        """Takes in what is to be delivered for the events up to `after`; False when somebody else was faster.

        Args:
            before: The cursor as it was read.
            after: Id of the last event that was looked at.
            deliveries: Ids, each ``<event id>/<target>``.
        """
        answer = self._run_script(
            "note_deliveries", self.keys.sweep(sweep_id), sid=sweep_id, before=before, after=after,
            deliveries=list(deliveries) or None,
        )  # fmt: skip
        return bool(answer["outcome"] == "ok")

    def end_delivery(self, sweep_id: str, delivery_id: str) -> None:
        """It was made, or is given up."""
        self._try(lambda: self.client.hdel(self.keys.sweep(sweep_id, "hooks"), delivery_id))

    def delay_delivery(self, sweep_id: str, delivery: Delivery) -> None:
        """Try again at the time that `delivery` says, if nobody made it meanwhile."""
        key = self.keys.sweep(sweep_id, "hooks")
        if self._try(lambda: self.client.hget(key, delivery.delivery_id)) is not None:
            self._try(lambda: self.client.hset(key, delivery.delivery_id, f"{delivery.due} {delivery.tries}"))

    def event(self, sweep_id: str, event_id: str) -> Event | None:
        """One event; None when it is gone."""
        found = self.events(sweep_id, after=_before(event_id), count=1)
        return found[0] if found and found[0].event_id == event_id else None


def _order(delivery: Delivery) -> tuple[int, int, str]:
    milliseconds, _, number = delivery.event_id.partition("-")
    return int(milliseconds), int(number), delivery.target


def _before(event_id: str) -> str:
    """The id that comes before another one in a stream."""
    milliseconds, _, number = event_id.partition("-")
    return f"{milliseconds}-{int(number) - 1}" if int(number) else f"{int(milliseconds) - 1}-{2**64 - 1}"
