"""The store of one project: every transition and every read, and how to find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resweep_scheduler.store.asking import AskingTransitions
from resweep_scheduler.store.attempts import AttemptTransitions
from resweep_scheduler.store.connect import connect
from resweep_scheduler.store.curves import CurveReads
from resweep_scheduler.store.deliveries import DeliveryTransitions
from resweep_scheduler.store.errors import UnknownSweepError
from resweep_scheduler.store.gateway import GatewayTransitions
from resweep_scheduler.store.history import HistoryTransitions
from resweep_scheduler.store.keys import SWEEP_INDEX, Scope
from resweep_scheduler.store.steps import StepReads
from resweep_scheduler.store.sweeps import SweepTransitions

if TYPE_CHECKING:
    from resweep_scheduler.store.connect import Client


class Store(
    SweepTransitions,
    AttemptTransitions,
    AskingTransitions,
    DeliveryTransitions,
    HistoryTransitions,
    CurveReads,
    GatewayTransitions,
    StepReads,
):
    """A project's sweeps and runs in Redis.

    A store may be shared by threads; each call takes a connection from the client's pool.
    """


def open_store(url: str, scope: Scope, *, timeout: float = 5.0) -> Store:
    """A store for a URL; nothing is sent before the first call. ``timeout`` is for one reply, in seconds."""
    return Store(connect(url, timeout=timeout), scope, url=url, timeout=timeout)


def list_sweeps(client: Client, *, url: str = "") -> dict[str, Scope]:
    """All sweeps of a server with their projects, by id."""
    index = Store(client, Scope(), url=url)._try(lambda: client.hgetall(SWEEP_INDEX))
    return {str(sweep_id): Scope.parse(str(scope)) for sweep_id, scope in sorted(index.items())}


def find_sweep(client: Client, sweep_id: str, *, url: str = "") -> Scope:
    """The project of a sweep.

    Raises:
        UnknownSweepError: No sweep of the server has the id.
    """
    scope = Store(client, Scope(), url=url)._try(lambda: client.hget(SWEEP_INDEX, sweep_id))
    if scope is None:
        raise UnknownSweepError(f"no sweep has the id {sweep_id!r} on this server; `resweep ls` lists them all")
    return Scope.parse(str(scope))


def open_sweep(
    url: str, path: str, *, entity: str | None = None, project: str | None = None, timeout: float = 5.0
) -> tuple[Store, str]:
    """The store and the id of a sweep that is named ``[entity/][project/]sweep``.

    Raises:
        ValueError: The path has another form.
        UnknownSweepError: No such sweep, or it belongs to another project than the one given; the message names it.
    """
    parts = path.split("/")
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"Expected sweep_id in form of sweep, project/sweep, or entity/project/sweep, got {path!r}")
    sweep_id = parts[-1]
    project = parts[-2] if len(parts) > 1 else project
    entity = parts[0] if len(parts) == 3 else entity
    client = connect(url, timeout=timeout)
    scope = find_sweep(client, sweep_id, url=url)
    if (project and project != scope.project) or (entity and entity != scope.entity):
        asked = "/".join(part for part in (entity, project) if part)
        raise UnknownSweepError(f"sweep {sweep_id} is in {scope}, not in {asked}; use {scope}/{sweep_id}")
    return Store(client, scope, url=url, timeout=timeout), sweep_id
