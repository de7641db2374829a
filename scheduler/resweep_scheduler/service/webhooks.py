"""Webhooks: what happens to runs is posted, as JSON, to the receivers that a sweep's config or the service names.

Each event is delivered at least once: deliveries are noted in Redis in the same step that moves the cursor behind their
events, and are forgotten when the receiver has answered 2xx. A receiver that gets an event twice knows it by its id.
"""

from __future__ import annotations

import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.config.webhooks import DEFAULT_EVENTS, Webhook
from resweep_scheduler.store import Delivery, Event, Store

_log = logging.getLogger(__name__)

TIMEOUT = 5.0
"""Seconds that a receiver has to answer."""
FIRST_PAUSE_MS = 5_000
LONGEST_PAUSE_MS = 600_000
GIVE_UP_AFTER = 60
"""Failed tries after which an event is given up: with the pauses above, eight hours."""
ENVIRONMENT: Final = "env"
"""The name of the receiver that the service names, not the config. Another service may know no such receiver."""
ONE_GO = 20
"""Deliveries that one job makes at most."""
_EVENTS: Final = 500
_OVER: Final = ("finished", "canceled")


def targets_of(config: SweepConfig, default_url: str | None) -> dict[str, Webhook]:
    """The receivers of a sweep by the name under which their deliveries are noted."""
    targets = {str(number): webhook for number, webhook in enumerate(config.webhooks)}
    if default_url:
        targets[ENVIRONMENT] = Webhook(url=default_url, events=DEFAULT_EVENTS)
    return targets


def note_events(
    store: Store, sweep_id: str, targets: dict[str, Webhook], *, now_ms: int, to_the_end: bool = False
) -> int | None:
    """Note deliveries for the events that came since the last look; returns since when any delivery is due (ms).

    Args:
        store: Where the sweep is.
        sweep_id: The sweep.
        targets: See `targets_of`.
        now_ms: On the Redis clock.
        to_the_end: Take in all events. Otherwise a look takes in some, and the next one goes on.

    Raises:
        StoreError: Redis does not answer, or refuses.
    """
    due = _note_some(store, sweep_id, targets, now_ms=now_ms)
    while to_the_end and store.events(sweep_id, after=store.deliveries(sweep_id)[0] or "0", count=1):
        found = _note_some(store, sweep_id, targets, now_ms=now_ms)
        due = found if due is None else due
    return due


def _note_some(store: Store, sweep_id: str, targets: dict[str, Webhook], *, now_ms: int) -> int | None:
    cursor, noted = store.deliveries(sweep_id)
    waiting = [delivery for delivery in noted if delivery.target in targets]
    if not cursor and ENVIRONMENT in targets and len(targets) == 1:
        # A service that is told of an address begins now: nobody wants the news of last month.
        cursor_now = store.last_event_id(sweep_id) or "0-0"
        store.note_deliveries(sweep_id, before="", after=cursor_now, deliveries=[])
        return None
    events = store.events(sweep_id, after=cursor or "0", count=_EVENTS)
    if events:
        ids = [
            f"{event.event_id}/{name}"
            for event in events
            for name, target in targets.items()
            if kind_of(event) in target.events
        ]
        store.note_deliveries(sweep_id, before=cursor, after=events[-1].event_id, deliveries=ids)
        if ids:
            return min([now_ms, *(delivery.due for delivery in waiting)])
    return min((delivery.due for delivery in waiting if delivery.due <= now_ms), default=None)


def kind_of(event: Event) -> str:
    """The name under which a receiver asks for an event."""
    return "sweep" if event.run_id is None and event.kind != "notice" else event.kind


def deliver_due(
    store: Store,
    sweep_id: str,
    targets: dict[str, Webhook],
    *,
    now_ms: Callable[[], int],
    post: Callable[[str, dict[str, Any]], None] | None = None,
) -> int:
    """Make the deliveries that are due, oldest first, a few at a time; returns how many were made.

    Raises:
        StoreError: Redis does not answer, or refuses.
    """
    made = 0
    _, waiting = store.deliveries(sweep_id)
    now = now_ms()
    ours = [one for one in waiting if one.target != ENVIRONMENT or ENVIRONMENT in targets]
    for delivery in [one for one in ours if one.due <= now][:ONE_GO]:
        target, event = targets.get(delivery.target), store.event(sweep_id, delivery.event_id)
        if target is None or event is None:
            store.end_delivery(sweep_id, delivery.delivery_id)  # nobody wants it any more, or it was rolled back
            continue
        try:
            (post or post_json)(target.url, payload(store, sweep_id, event))
        except (OSError, ValueError) as error:  # urllib's errors are OSErrors
            _postpone(store, sweep_id, delivery, now_ms(), error)
            continue
        store.end_delivery(sweep_id, delivery.delivery_id)
        made += 1
    return made


def _postpone(store: Store, sweep_id: str, delivery: Delivery, now: int, error: Exception) -> None:
    tries = delivery.tries + 1
    if tries >= GIVE_UP_AFTER:
        _log.error("webhook-given-up sweep=%s delivery=%s tries=%d", sweep_id, delivery.delivery_id, tries)
        store.end_delivery(sweep_id, delivery.delivery_id)
        return
    # The address may hold a secret, and so may the error that quotes it: only the kind is told.
    reason = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else type(error).__name__
    _log.warning("webhook-failed sweep=%s delivery=%s tries=%d: %s", sweep_id, delivery.delivery_id, tries, reason)
    pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (tries - 1))
    store.delay_delivery(sweep_id, replace(delivery, due=now + pause, tries=tries))


def payload(store: Store, sweep_id: str, event: Event) -> dict[str, Any]:
    """What a receiver gets. No parameters, no config, no output: whoever wants those asks Redis."""
    return {
        "id": f"{sweep_id}/{event.event_id}",
        "event": kind_of(event),
        "at": event.at,
        "entity": store.scope.entity,
        "project": store.scope.project,
        "sweep": sweep_id,
        "run": event.run_id,
        "attempt": event.attempt,
        "agent": event.agent,
        "before": event.before,
        "after": event.after,
        "reason": event.data.get("reason", ""),
        "exit_code": event.data.get("exit_code"),
    }


def post_json(url: str, body: dict[str, Any]) -> None:
    """Post to a receiver; its answer is not read, and redirects are not followed.

    Raises:
        OSError: It did not answer with 2xx in time.
        ValueError: The address is none of HTTP.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("a webhook has an http:// or https:// address")
    request = urllib.request.Request(
        url,
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "resweep", "Idempotency-Key": body["id"]},
        method="POST",
    )
    with urllib.request.build_opener(_NoRedirect()).open(request, timeout=TIMEOUT):
        pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """An answer 3xx is an error: what is posted goes where the config says, and nowhere else."""
