"""New runs for agents that found none: the search is asked here, unless a search service does it.

What is kept between two calls is a convenience: a search that was built once computes its next suggestion faster.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.gateway.graphql import GatewayError
from resweep_scheduler.store import AskOutcome, Store, Sweep
from resweep_scheduler.store.search_history import SearchHistory

MOST = 32
"""Sweeps whose searches are kept."""


class _Searcher:
    """The search of one sweep, for one thread at a time."""

    def __init__(self, store: Store, sweep: Sweep) -> None:
        from resweep_scheduler.search.suggester import Suggester

        self.lock = threading.Lock()
        self.session = secrets.token_hex(8)
        history = SearchHistory(store, sweep.sweep_id)
        config = SweepConfig.from_json(sweep.config_json)
        self.suggester = Suggester(sweep.sweep_id, config, read_runs=history.refresh)


_searchers: OrderedDict[tuple[str, str, str], _Searcher] = OrderedDict()
_lock = threading.Lock()


def supply(store: Store, sweep: Sweep, agent: str) -> bool:
    """See to it that a run is suggested for an agent; False when it shall wait for somebody else to do it.

    Raises:
        GatewayError: The search cannot propose anything.
        StoreError: The store does not answer, or refuses.
    """
    from resweep_scheduler.search import SearchError

    try:
        return _supply(store, sweep, agent)
    except SearchError as error:
        raise GatewayError(str(error)) from None


def _supply(store: Store, sweep: Sweep, agent: str) -> bool:
    searcher = _searcher(store, sweep)
    if not searcher.lock.acquire(timeout=1.0):
        return False  # another agent asks now, for all that wait
    try:
        begun = store.begin_asking(
            sweep.sweep_id,
            session=searcher.session,
            agents=[agent],
            hold_ms=round(searcher.suggester.hold * 1000),
        )
        if begun.outcome is AskOutcome.HAND_OVER:
            from resweep_scheduler.service.queue import hand_over

            hand_over(store, sweep.sweep_id, begun.next_index)
        if begun.outcome is AskOutcome.ASK:
            searcher.suggester.supply(
                lambda offer: store.add_runs(sweep.sweep_id, offer),
                begun.next_index,
                begun.wanted,
                asker=searcher.session,
                clock=time.monotonic,
            )
        return begun.outcome in (AskOutcome.ASK, AskOutcome.CLAIM)
    finally:
        searcher.lock.release()


def _searcher(store: Store, sweep: Sweep) -> _Searcher:
    # The config belongs to the name: a sweep may be removed, and another one created under its id.
    key = (str(store.scope), sweep.sweep_id, sweep.config_json)
    with _lock:
        if key not in _searchers:
            _searchers[key] = _Searcher(store, sweep)
        _searchers.move_to_end(key)
        while len(_searchers) > MOST:
            _searchers.popitem(last=False)
        return _searchers[key]
