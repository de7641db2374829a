"""Retention: which sweeps have been over for long enough to be removed."""

from __future__ import annotations

from resweep_scheduler.store import Store


def is_old(store: Store, sweep_id: str, max_age_ms: int, *, now_ms: int) -> bool:
    """Whether a sweep is over, and nothing has happened in it for so long.

    Raises:
        UnknownSweepError: No such sweep.
        StoreError: Redis does not answer, or refuses.
    """
    if not store.sweep_state(sweep_id).is_over:
        return False
    last = store.last_event_id(sweep_id)
    return bool(last) and now_ms - int(last.partition("-")[0]) >= max_age_ms
