"""``webhooks``: whom a search service tells what happens to the runs of a sweep."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from resweep_scheduler.config.faults import FaultLog, Path
from resweep_scheduler.config.numbers import rule_error
from resweep_scheduler.config.reading import read_model

WebhookEvent: TypeAlias = Literal["finished", "failed", "crashed", "killed", "preempting", "preempted", "sweep"]
DEFAULT_EVENTS: Final[tuple[WebhookEvent, ...]] = ("finished", "failed", "crashed", "preempted", "sweep")


def check_webhook_url(value: object) -> object:
    """Refuse what is no address that can be called over HTTP."""
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        raise rule_error("must be an http:// or https:// address", "Write for instance https://example.org/hook.")
    return value


class Webhook(BaseModel):
    """One receiver.

    Attributes:
        url: Where events are posted to, as JSON.
        events: Which: ends of attempts by their outcome, `preempting` for notices, `sweep` for states of the sweep.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, BeforeValidator(check_webhook_url)]
    events: Annotated[tuple[WebhookEvent, ...], Field(min_length=1)] = DEFAULT_EVENTS


def read_webhooks(raw: object, log: FaultLog) -> tuple[Webhook, ...]:
    """Read the list; faults go to `log`, and what is faulty stays out."""
    path: Path = ("webhooks",)
    if not isinstance(raw, list):
        log.spoil(path, "must be a list", raw, "Write - url: https://example.org/hook below it.")
        return ()
    read = [read_model(Webhook, one, (*path, index), log) for index, one in enumerate(raw)]
    return tuple(one for one in read if one is not None)
