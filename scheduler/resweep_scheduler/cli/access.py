"""From what a person typed to the store, the sweep or the run that is meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, Settings

if TYPE_CHECKING:
    from resweep_scheduler.config import SweepConfig
    from resweep_scheduler.store import Scope, Store
    from resweep_scheduler.store.connect import Client
    from resweep_scheduler.store.records import Run, Sweep

PATIENCE = 5.0
"""Seconds that a command asks again when Redis does not answer, before it says so."""


def store_url(settings: Settings) -> str:
    """The URL of Redis; starts the embedded server when none is given."""
    from resweep_scheduler.service.server import open_store_url

    return open_store_url(settings.url)


def open_client(settings: Settings) -> tuple[str, Client]:
    """The URL of Redis, and a client for it."""
    from resweep_scheduler.store import connect

    url = store_url(settings)
    return url, connect(url)


def open_sweep(settings: Settings, path: str) -> tuple[Store, str]:
    """Return the store of the sweep's project, and the sweep's id.

    Raises:
        UnknownSweepError: No such sweep, or it belongs to another project than the given one.
        Failure: `path` is no path of a sweep.
    """
    from resweep_scheduler.store import open_sweep as find

    parts = path.split("/")
    if len(parts) > 3 or not all(parts):
        raise Failure(
            f"a sweep is given as SWEEP, PROJECT/SWEEP or ENTITY/PROJECT/SWEEP, not {path!r}: `resweep ls` lists them",
            ExitCode.USAGE,
        )
    store, sweep_id = find(store_url(settings), path, entity=settings.entity, project=settings.project)
    return store.patient(PATIENCE), sweep_id


def refuse_if_over(sweep: Sweep) -> None:
    """Agents of a sweep that is over would get nothing.

    Raises:
        Failure: It is over; the message says how to open it again.
    """
    from resweep_scheduler.store.states import SweepState

    if not sweep.state.is_over:
        return
    if sweep.state is SweepState.FINISHED and sweep.reason != "stopped":
        cure = f"`resweep retry --failed {sweep.sweep_id}` runs again what failed"
    else:
        cure = f"`resweep resume {sweep.sweep_id}` lets it go on"
    raise Failure(
        f"sweep {sweep.sweep_id} is {sweep.state.value}, so agents would get nothing: {cure}", ExitCode.ILLEGAL_STATE
    )


def open_run(settings: Settings, path: str) -> tuple[Store, Run]:
    """Find a run by `[entity/][project/]run`; without a project, in the default one and in all that have sweeps.

    Raises:
        UnknownRunError: No project has it.
        Failure: Several have it.
    """
    from resweep_scheduler.store import Store, validate_run_id
    from resweep_scheduler.store.errors import UnknownRunError

    *place, run_id = path.split("/")
    if len(place) > 2 or not all((*place, run_id)):
        raise Failure(
            f"a run is given as RUN, PROJECT/RUN or ENTITY/PROJECT/RUN, not {path!r}: `resweep runs SWEEP` lists them",
            ExitCode.USAGE,
        )
    validate_run_id(run_id)
    url, client = open_client(settings)
    found: list[tuple[Store, Run]] = []
    scopes = _scopes(url, client, settings, place)
    for scope in scopes:
        store = Store(client, scope, url=url).patient(PATIENCE)
        try:
            found.append((store, store.run(run_id)))
        except UnknownRunError:
            continue
    if len(found) > 1:
        places = ", ".join(f"{store.scope}/{run_id}" for store, _ in found)
        raise Failure(f"several projects have a run {run_id!r}: write one of {places}", ExitCode.USAGE)
    if not found:
        looked = ", ".join(str(scope) for scope in scopes)
        raise UnknownRunError(
            f"there is no run {run_id!r} in {looked}: `resweep ls` and `resweep runs SWEEP` list what there is"
        )
    return found[0]


def _scopes(url: str, client: Client, settings: Settings, place: list[str]) -> list[Scope]:
    """Where a run is looked for."""
    from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, Scope, list_sweeps

    entity = place[0] if len(place) == 2 else settings.entity_or_environment
    project = place[-1] if place else settings.project_or_environment
    if project:
        return [Scope(entity or DEFAULT_ENTITY, project)]
    default = Scope(entity or DEFAULT_ENTITY, DEFAULT_PROJECT)
    others = {scope for scope in list_sweeps(client, url=url).values() if entity in (None, scope.entity)}
    return list(dict.fromkeys([default, *sorted(others, key=str)]))


def all_sweeps(settings: Settings) -> Iterator[Sweep]:
    """Every sweep that the given entity and project have, oldest first."""
    from resweep_scheduler.store import Store, list_sweeps
    from resweep_scheduler.store.errors import UnknownSweepError

    url, client = open_client(settings)
    entity, project = settings.entity_or_environment, settings.project_or_environment
    found = []
    for sweep_id, scope in list_sweeps(client, url=url).items():
        if entity not in (None, scope.entity) or project not in (None, scope.project):
            continue
        try:
            found.append(Store(client, scope, url=url).patient(PATIENCE).sweep(sweep_id))
        except UnknownSweepError:  # removed since it was listed
            continue
    yield from sorted(found, key=lambda sweep: sweep.created_at)


def config_of(sweep: Sweep) -> SweepConfig:
    """The sweep's config as Redis keeps it."""
    from resweep_scheduler.config import SweepConfig

    return SweepConfig.from_json(sweep.config_json)


def planned_runs(config: SweepConfig) -> int | None:
    """How many runs a sweep will make; None when it goes on until somebody stops it."""
    from resweep_scheduler.cli.progress import expected_runs
    from resweep_scheduler.search import create_search

    brute_force = config.search is not None and config.search.sampler == "brute_force"
    size = create_search(config).size if config.method == "grid" or brute_force else None
    return expected_runs(size, config.run_cap)


def sweep_ids_at_hand(url: str | None) -> list[str]:
    """Sweep ids for shell completion: starts nothing, waits hardly, and never fails."""
    from resweep_scheduler.service.server import server_status
    from resweep_scheduler.store import connect, list_sweeps, resolve_url

    try:
        where = resolve_url(url, os.environ)
        if where is None:
            status = server_status()
            where = status.url if status.running else None
        return sorted(list_sweeps(connect(where, timeout=0.5, connect_timeout=0.5))) if where else []
    except Exception:  # a traceback in the middle of somebody's command line helps nobody
        return []
