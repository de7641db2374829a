"""Retention: which sweeps have been over for long enough to be removed."""

from __future__ import annotations

from resweep_scheduler.store import Store


def is_old(store: Store, sweep_id: str, max_age_ms: int, *, now_ms: int) -> bool:
    """Whether a sweep is over, and nothing has happened in it for so long.

    Removals of runs do not count: a removal of the sweep that was interrupted would make it young again.

    Raises:
        UnknownSweepError: No such sweep.
        StoreError: Redis does not answer, or refuses.
    """
    if not store.sweep_state(sweep_id).is_over:
        return False
    changed_at = store.last_change_at(sweep_id)
    return changed_at is not None and now_ms - changed_at >= max_age_ms
