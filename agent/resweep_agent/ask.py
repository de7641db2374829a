"""Asking the search for new runs. The only module of the agent that knows the search and its service.

A search that needs no earlier runs (grid, random) costs microseconds: each agent computes its own offers, ahead, and
they travel in its claims. A search that learns from earlier runs may compute for a second: it has a thread of its own
(`resweep_agent.asking`), and one agent asks for all that wait, or the search service does. What such a search is asked
ahead of need cannot know the results that come until then, so agents never do that; the service does as far as it must
(docs/scheduler.md).

A search whose functions are in a Python file is asked only by agents that were given the file; the others wait for them
or for a service that was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resweep_agent.asking import AskThread, Question
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.logs import event
from resweep_scheduler.config import SweepConfig
from resweep_scheduler.store import AskOutcome, Offer, Store, StoreError
from resweep_scheduler.store.search_history import SearchHistory

if TYPE_CHECKING:
    from resweep_scheduler.search.suggester import Suggester

_log = logging.getLogger(__name__)

LARGEST_BATCH = 16
"""Runs in one offer at most, when many agents ask at once."""
SERVICE_PATIENCE = 3.0
"""Seconds for which agents wait for a search service before they ask themselves."""


class Asker:
    """Computes offers for one sweep. All slots of an agent share it; the main thread owns it.

    Args:
        store: Of the project.
        sweep_id: Run ids follow from it and from the index.
        config: Of the sweep.
        session: Of the agent's process.
        wake: Called from the thread of a heavy search when it has something for the main thread.
        next_index: Where the search goes on, as far as known.
        sources: The files of the user that may be executed for the search.

    Raises:
        AgentError: A file cannot be used.
    """

    def __init__(
        self,
        store: Store,
        sweep_id: str,
        config: SweepConfig,
        *,
        session: str,
        wake: Callable[[], None],
        next_index: int = 0,
        sources: Sequence[Path] = (),
    ) -> None:
        from resweep_scheduler.search.suggester import LIGHT_METHODS

        self._next_index = next_index
        self._offer: Offer | None = None
        self._ready = 0
        self._batch = 1
        self._light: Suggester | None = None
        self._waiting: set[str] = set()
        self._handed_over_at: float | None = None
        researcher = _Researcher(store, sweep_id, config, session, sources)
        if config.method in LIGHT_METHODS:
            self._light = researcher.suggester()
        self._thread = AskThread(researcher.answer, wake)

    def learn(self, next_index: int, ready: int = 0) -> None:
        """Take in where the search goes on and how many suggested runs wait, as every answer to a claim says."""
        self._next_index = next_index
        self._ready = ready

    @property
    def offer(self) -> Offer | None:
        """What was computed ahead, None if it no longer fits or is not needed."""
        if self._ready or (self._offer is not None and self._offer.first_index != self._next_index):
            return None
        return self._offer

    @property
    def busy(self) -> bool:
        """Whether the thread of a heavy search computes now; it wakes the main thread when it is done."""
        return self._thread.busy

    def prepare(self) -> None:
        """Compute the next offer ahead, if the search is light."""
        self._handed_over_at = None  # a run came, so whoever was to suggest it did
        if self._light is not None and not self._ready and self.offer is None:
            self._offer = self._compute(self._light)

    def ask(self, agents: Iterable[str]) -> bool:
        """The store has no run for these agents (slots) and wants an offer. True: `offer` is one; False: wait.

        Raises:
            AgentError: The search cannot propose anything.
        """
        if self._light is None:
            if not self._thread.busy:  # else they wait for what is being computed
                self._waiting.update(agents)
            return False
        if self._offer is not None:
            # Others were faster: longer offers let many agents settle to asking rarely.
            self._batch = min(LARGEST_BATCH, self._batch * 2)
        self._offer = self._compute(self._light)
        return True

    def send(self, now: float) -> None:
        """Pass what slots have asked to the thread of a heavy search."""
        if not self._waiting or self._thread.busy:
            return
        late = self._handed_over_at is not None and now - self._handed_over_at >= SERVICE_PATIENCE
        self._thread.put(Question(tuple(sorted(self._waiting)), alone=late))
        self._waiting.clear()

    def collect(self, now: float) -> bool:
        """Take what the thread of a heavy search came to; True when slots should claim at once.

        Raises:
            AgentError: The search cannot propose anything.
        """
        answer = self._thread.take()
        if answer is None:
            return False
        if isinstance(answer, AgentError):
            raise answer
        if answer is AskOutcome.HAND_OVER and self._handed_over_at is None:
            self._handed_over_at = now
        return answer is AskOutcome.CLAIM

    def rename(self, run_id: str) -> None:
        """A run id of the offer belongs to another run: offer the same points under other ids."""
        if self._light is not None and self._offer is not None:
            self._offer = self._light.rename(self._offer, run_id)

    def close(self) -> None:
        """Ask nothing more."""
        self._thread.close()

    def _compute(self, suggester: Suggester) -> Offer:
        from resweep_scheduler.search import SearchError

        try:
            return suggester.compute(self._next_index, self._batch)
        except SearchError as error:
            raise AgentError(str(error), ExitCode.UNEXPECTED) from None


class _Researcher:
    """What is done in the thread of a heavy search."""

    def __init__(self, store: Store, sweep_id: str, config: SweepConfig, session: str, sources: Sequence[Path]) -> None:
        from resweep_scheduler.search import Sources

        try:
            self._sources = Sources(sources)
        except ValueError as error:
            raise AgentError(str(error), ExitCode.USAGE) from None
        self._only_waits = config.scheduler is not None and self._sources.find(config.scheduler) is None
        if config.scheduler is not None and self._only_waits:
            start = f"resweep scheduler {config.scheduler.option}"
            event(_log, logging.WARNING, "search-left-to-others", source=config.scheduler.source, start=start)
        self._store = store
        self._sweep_id = sweep_id
        self._config = config
        self._session = session
        self._history = SearchHistory(store, sweep_id)
        self._suggester: Suggester | None = None

    def suggester(self) -> Suggester:
        """The search, made when it is first needed: with a service to ask, agents never load it.

        Raises:
            AgentError: The config asks for what the search cannot do.
        """
        from resweep_scheduler.search import SearchError
        from resweep_scheduler.search.suggester import Suggester

        if self._suggester is None:
            try:
                self._suggester = Suggester(
                    self._sweep_id, self._config, read_runs=self._history.refresh, sources=self._sources
                )
            except SearchError as error:
                raise AgentError(str(error), ExitCode.USAGE) from None
        return self._suggester

    def answer(self, question: Question, clock: Callable[[], float]) -> AskOutcome | AgentError:
        """See to it that runs are suggested for those who wait; CLAIM when there are some."""
        try:
            return self._answer(question, clock)
        except AgentError as error:
            return error
        except StoreError:
            return AskOutcome.WAIT  # the next claim meets the same trouble, and deals with it

    def _answer(self, question: Question, clock: Callable[[], float]) -> AskOutcome:
        from resweep_scheduler.search import SearchError
        from resweep_scheduler.search.suggester import HOLD

        begun = self._store.begin_asking(
            self._sweep_id,
            session=self._session,
            agents=question.agents,
            hold_ms=round((HOLD if self._suggester is None else self._suggester.hold) * 1000),
            alone=question.alone and not self._only_waits,
            only_wait=self._only_waits,
        )
        if begun.outcome is AskOutcome.HAND_OVER:
            self._hand_over(begun.next_index)
        if begun.outcome is not AskOutcome.ASK:
            return begun.outcome
        try:
            self.suggester().supply(
                lambda offer: self._store.add_runs(self._sweep_id, offer),
                begun.next_index,
                begun.wanted,
                asker=self._session,
                clock=clock,
            )
        except SearchError as error:
            raise AgentError(str(error), ExitCode.UNEXPECTED) from None
        return AskOutcome.CLAIM

    def _hand_over(self, next_index: int) -> None:
        from resweep_scheduler.service.queue import hand_over

        hand_over(self._store, self._sweep_id, next_index)
