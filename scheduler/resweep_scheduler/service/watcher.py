"""Looks at every sweep of a server several times a second, and sees to it that what is due is done.

    search      open sweeps of searches that learn are kept supplied (keeper.py)
    webhooks    events are noted for delivery, and due deliveries are called for (webhooks.py)
    retention   sweeps that have been over for long enough are removed

All that is kept in memory can be rebuilt from Redis: a watcher may die at any moment, and several may run at once.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from resweep_scheduler.config import ConfigError, SweepConfig
from resweep_scheduler.search import SearchError, Sources
from resweep_scheduler.search.source import NO_SOURCES
from resweep_scheduler.search.suggester import LIGHT_METHODS
from resweep_scheduler.service.keeper import Keeper
from resweep_scheduler.store import Scope, Store, StoreError, UnknownSweepError, connect, list_sweeps

_log = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two looks at the open sweeps."""
QUIET = 1.0
"""Seconds between two looks at an open sweep that has no agents; whoever comes first calls us."""
OVER = 10.0
"""Seconds between two looks at a sweep that is paused or over."""
LIST_EVERY = 2.0
ANNOUNCE_EVERY = 1.0
ANNOUNCED_MS = 5_000
"""For so long agents rely on a service that is not heard any more."""
LONGEST_PAUSE = 5.0


@dataclass(slots=True)
class Watched:
    """A sweep and what we have for it.

    Attributes:
        askable: Whether its search can be asked here: the file with its functions, if it has one, was given.
    """

    store: Store
    sweep_id: str
    config: SweepConfig
    lease_ms: int
    askable: bool = True
    keeper: Keeper | None = None
    broken: bool = False
    announced_at: float = field(default=float("-inf"))
    look_at: float = field(default=float("-inf"))

    @property
    def learns(self) -> bool:
        """Whether its search is one that this service is asked for."""
        return self.config.method not in LIGHT_METHODS and self.askable and not self.broken


class Watcher:
    """One of a service. `step` belongs to one thread, `supply` may be called by others.

    Args:
        url: Of Redis.
        name: Of the service, for people.
        ahead: See `Keeper`.
        duties: Called with each sweep about once a second: what else is to be done for it.
        entity, project: Only sweeps of these; None for all.
        sources: The files of the user that may be executed for searches.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        ahead: int | None = None,
        duties: Callable[[Watched], None] | None = None,
        entity: str | None = None,
        project: str | None = None,
        sources: Sources = NO_SOURCES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.client = connect(url)
        self._name = name
        self._session = f"service-{secrets.token_hex(6)}"
        self._ahead = ahead
        self._duties = duties
        self._entity = entity
        self._project = project
        self._sources = sources
        self._clock = clock
        self._lock = threading.Lock()
        self._sweeps: dict[str, Watched] = {}
        self._listed_at = self._duties_at = float("-inf")
        self._clock_offset = 0  # ms from our clock to Redis's

    def step(self, *, at_once: bool = False) -> None:
        """Look at everything that is due; with `at_once` the duties are, however long ago the last look was.

        Raises:
            StoreError: Redis does not answer, or refuses.
        """
        now = self._clock()
        if now - self._listed_at >= LIST_EVERY:
            self._list()
            self._listed_at = now
        duties_due = self._duties is not None and (at_once or now - self._duties_at >= ANNOUNCE_EVERY)
        if duties_due:
            self._duties_at = now
        for watched in list(self._sweeps.values()):
            try:
                if watched.learns and now >= watched.look_at:
                    self._keep_supplied(watched)
                if duties_due and self._duties is not None:
                    self._duties(watched)
            except UnknownSweepError:
                self._forget(watched.sweep_id)

    def supply(self, sweep_id: str) -> int:
        """Suggest what a sweep lacks now; returns how many runs were suggested.

        Raises:
            StoreError: Redis does not answer, or refuses.
        """
        with self._lock:
            known = sweep_id in self._sweeps
        if not known:
            self._list()
        watched = self._sweeps.get(sweep_id)
        return self._keep_supplied(watched) if watched is not None and watched.learns else 0

    def run(self, stop: threading.Event) -> None:
        """Look again and again until `stop` is set; Redis may go away and come back."""
        pause = POLL
        while not stop.wait(pause):
            try:
                self.step()
                pause = POLL
            except StoreError as error:
                if pause == POLL:
                    _log.warning("redis-away: %s", error)
                pause = min(LONGEST_PAUSE, 2 * pause)
            except Exception:
                _log.exception("a look at the sweeps failed; the next one follows")
                pause = LONGEST_PAUSE

    def withdraw(self) -> None:
        """Say to all agents that they are on their own."""
        for watched in self._sweeps.values():
            watched.store.withdraw_service([watched.sweep_id])

    def _list(self) -> None:
        found = {
            sweep_id: scope
            for sweep_id, scope in list_sweeps(self.client, url=self.url).items()
            if self._entity in (None, scope.entity) and self._project in (None, scope.project)
        }
        with self._lock:
            for sweep_id in set(self._sweeps) - set(found):
                del self._sweeps[sweep_id]
        for sweep_id in set(found) - set(self._sweeps):
            self._learn_of(sweep_id, found[sweep_id])
        if self._sweeps:
            any_store = next(iter(self._sweeps.values())).store
            self._clock_offset = any_store.redis_time() - round(time.time() * 1000)

    def _learn_of(self, sweep_id: str, scope: Scope) -> None:
        store = Store(self.client, scope, url=self.url)
        try:
            record = store.sweep(sweep_id)
            config = SweepConfig.from_json(record.config_json)
        except UnknownSweepError:
            return  # its creation is not complete yet
        except ConfigError as error:
            _log.warning("sweep-left-out sweep=%s: %s", sweep_id, error)
            return
        askable = config.scheduler is None or self._sources.find(config.scheduler) is not None
        if config.scheduler is not None and not askable:
            _log.info("search-left-to-others sweep=%s: %s is not given", sweep_id, config.scheduler.option)
        with self._lock:
            self._sweeps.setdefault(sweep_id, Watched(store, sweep_id, config, record.lease_ms, askable))

    def _forget(self, sweep_id: str) -> None:
        with self._lock:
            self._sweeps.pop(sweep_id, None)

    def _keep_supplied(self, watched: Watched) -> int:
        store, sweep_id, now = watched.store, watched.sweep_id, self._clock()
        seen_since = round(time.time() * 1000) + self._clock_offset - watched.lease_ms
        demand = store.demand(sweep_id, seen_since=seen_since)
        if not demand.is_open:
            watched.look_at = now + OVER
            return 0
        watched.look_at = now if demand.agents or demand.waiting else now + QUIET
        try:
            with self._lock:
                if watched.keeper is None:
                    watched.keeper = Keeper(
                        store,
                        sweep_id,
                        watched.config,
                        session=self._session,
                        ahead=self._ahead,
                        sources=self._sources,
                    )
            if now - watched.announced_at >= ANNOUNCE_EVERY:
                store.announce_service([sweep_id], name=self._name, ttl_ms=ANNOUNCED_MS)
                watched.announced_at = now
            return watched.keeper.supply(seen_since=seen_since)
        except SearchError as error:
            # Agents that ask by themselves meet the same error, and say it where somebody reads it.
            watched.broken = True
            watched.store.withdraw_service([watched.sweep_id])
            _log.error("search-failed sweep=%s: %s", watched.sweep_id, error)
            return 0
