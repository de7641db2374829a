"""How far ahead a search service suggests."""

from __future__ import annotations

import pytest
from support.stores import SWEEP, Agent, Clock, make_offer, make_sweep

from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import SearchError
from resweep_scheduler.search.suggester import LARGEST_ANSWER
from resweep_scheduler.service.keeper import CALM, Keeper
from resweep_scheduler.store import Store, SweepCommand, UnknownSweepError

BAYES = parse_sweep({"method": "bayes", "metric": {"name": "m"}, "parameters": {"x": {"min": 0.0, "max": 1.0}}})


class Crew:
    """Agents that a keeper supplies."""

    def __init__(self, store: Store, clock: Clock, count: int, *, ahead: int | None = None) -> None:
        self.store = store
        self.clock = clock
        self.keeper = Keeper(store, SWEEP, BAYES, session="service", ahead=ahead, clock=lambda: clock.ms / 1000)
        self.agents = [Agent(store, f"a{number}", session=f"s{number}") for number in range(count)]

    def supply(self) -> int:
        return self.keeper.supply(seen_since=self.clock.ms - 60_000)

    def ask(self, *numbers: int) -> None:
        """Agents that found nothing wait for suggestions."""
        for number in numbers:
            self.store.begin_asking(SWEEP, session=f"s{number}", agents=[f"a{number}"], hold_ms=1)
        self.store.client.delete(self.store.keys.sweep(SWEEP, "asking"))

    def take(self, *numbers: int) -> None:
        for number in numbers:
            self.agents[number].take()

    def ready(self) -> int:
        return self.store.demand(SWEEP, seen_since=0).ready


def test_with_one_agent_nothing_is_computed_ahead(store: Store, clock: Clock) -> None:
    make_sweep(store)
    crew = Crew(store, clock, 1)
    assert crew.supply() == 0
    crew.ask(0)
    assert crew.supply() == 1
    crew.take(0)
    assert crew.supply() == 0


def test_all_that_wait_are_supplied_at_once_and_one_run_waits_then(store: Store, clock: Clock) -> None:
    make_sweep(store)
    crew = Crew(store, clock, 4)
    crew.ask(0, 1, 2, 3)
    assert crew.supply() == 4
    crew.take(0, 1, 2, 3)
    assert crew.supply() == 1
    assert crew.supply() == 0


def test_when_agents_find_none_more_are_kept_ready_and_fewer_after_a_while(store: Store, clock: Clock) -> None:
    make_sweep(store)
    crew = Crew(store, clock, 4)
    crew.ask(0, 1, 2, 3)
    crew.supply()
    crew.take(0, 1, 2, 3)
    crew.supply()  # one is ready
    crew.supply()
    for agent in crew.agents[:2]:
        agent.end(0)
    crew.take(0)
    crew.ask(1)  # none was left for the second one
    crew.supply()
    crew.take(1)
    crew.supply()
    assert crew.ready() == 2
    clock.advance(CALM + 1)
    crew.supply()
    crew.agents[0].end(0)
    crew.take(0)
    crew.supply()
    assert crew.ready() == 1


def test_a_fixed_number_is_kept_ready(store: Store, clock: Clock) -> None:
    make_sweep(store)
    crew = Crew(store, clock, 1, ahead=3)
    assert [crew.supply(), crew.supply()] == [3, 0]


def test_no_more_than_the_cap_and_no_more_than_one_go_can_bear(store: Store, clock: Clock) -> None:
    make_sweep(store, run_cap=LARGEST_ANSWER + 6)
    crew = Crew(store, clock, 1, ahead=1000)
    assert [crew.supply(), crew.supply(), crew.supply()] == [LARGEST_ANSWER, 6, 0]


def test_paused_and_finished_sweeps_and_those_that_somebody_computes_for_are_left_alone(
    store: Store, clock: Clock
) -> None:
    make_sweep(store)
    crew = Crew(store, clock, 2)
    store.command_sweep(SWEEP, SweepCommand.PAUSE)
    assert crew.supply() == 0
    store.command_sweep(SWEEP, SweepCommand.RESUME)
    store.begin_asking(SWEEP, session="s0", agents=["a0"], hold_ms=60_000)
    assert crew.supply() == 0
    store.add_runs(SWEEP, make_offer(1, exhausted=True))
    assert crew.supply() == 0


def test_what_cannot_be_done_is_said(store: Store, clock: Clock) -> None:
    with pytest.raises(UnknownSweepError):
        Keeper(store, "gone", BAYES, session="service").supply(seen_since=0)
    with pytest.raises(SearchError):
        Keeper(store, SWEEP, BAYES.model_copy(update={"metric": None}), session="service")
