"""Creating a sweep: from a checked config to a record in Redis. Shared by the command and by Python users."""

from __future__ import annotations

import secrets

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.stopping import rule_for_redis
from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, Scope, Store, SweepSettings, new_id, open_store

PATIENCE = 5.0
"""Seconds for which a creation waits for a Redis that is away."""


def sweep_settings(config: SweepConfig) -> SweepSettings:
    """What the scripts in Redis need to know of the config."""
    metric = config.metric
    return SweepSettings(
        lease_ms=round(config.lease.duration * 1000),
        heartbeat_ms=round(config.lease.heartbeat * 1000),
        name=config.name or "",
        run_cap=config.run_cap,
        metric_name=metric.name if metric is not None else None,
        metric_goal=metric.goal if metric is not None else None,
        metric_target=metric.target if metric is not None else None,
        metrics=tuple((metric.name, metric.goal) for metric in config.metrics),
        retry_failed=config.retry.failed,
        retry_crashed=config.retry.crashed,
        max_attempts_without_progress=config.preemption.max_attempts_without_progress,
        stopping=rule_for_redis(config),
    )


def create_sweep(
    url: str,
    config: SweepConfig,
    *,
    config_text: str,
    entity: str | None = None,
    project: str | None = None,
    sweep_id: str | None = None,
) -> tuple[Store, str]:
    """Create a sweep and return the store of its project and its id.

    Args:
        url: The address of the store.
        config: The checked config.
        config_text: The config as the user wrote it.
        entity: Comes before the config's; default `local`.
        project: Comes before the config's; default `uncategorized`.
        sweep_id: The user's own id; default a random one.

    Raises:
        SweepIdTakenError: A sweep of this server has the id.
        InvalidNameError: An id or a name has characters that it cannot have.
        StoreError: The store does not answer, or refuses.
    """
    scope = Scope(entity or config.entity or DEFAULT_ENTITY, project or config.project or DEFAULT_PROJECT)
    store = open_store(url, scope)
    chosen = sweep_id or new_id()
    store.patient(PATIENCE).create_sweep(
        sweep_id=chosen,
        nonce=secrets.token_hex(8),
        config_text=config_text,
        config_json=config.to_json(),
        settings=sweep_settings(config),
    )
    return store, chosen
