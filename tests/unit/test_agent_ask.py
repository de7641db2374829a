"""Offers of the search."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from resweep_agent.ask import LARGEST_BATCH, Asker
from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import run_id_for
from resweep_scheduler.store import Offer, RunState, SearchRecord

GRID = {"method": "grid", "parameters": {"a": {"values": [1, 2, 3, 4, 5]}}}
BAYES = {"method": "bayes", "metric": {"name": "m"}, "parameters": {"x": {"min": 0.0, "max": 1.0}}}


def asker(config: Mapping[str, object], records: list[SearchRecord] | None = None) -> Asker:
    return Asker("sweep1", parse_sweep(config), read_runs=lambda: records or [])


def offered(ask: Asker) -> Offer:
    assert ask.offer is not None
    return ask.offer


def test_a_grid_is_computed_ahead_and_follows_the_next_index() -> None:
    ask = asker(GRID)
    assert ask.offer is None
    ask.prepare()
    assert [(run.index, run.params) for run in offered(ask).runs] == [(0, {"a": 1})]
    ask.learn(3)
    assert ask.offer is None
    ask.prepare()
    assert [(run.index, run.params) for run in offered(ask).runs] == [(3, {"a": 4})]


def test_offers_get_longer_when_others_are_faster_and_say_when_the_grid_ends() -> None:
    ask = asker(GRID)
    ask.prepare()
    ask.learn(1)
    ask.ask()
    assert [run.index for run in offered(ask).runs] == [1, 2]
    assert not offered(ask).exhausted
    ask.learn(3)
    ask.ask()
    assert [run.index for run in offered(ask).runs] == [3, 4]
    assert offered(ask).exhausted


def test_offers_have_a_largest_size() -> None:
    ask = asker({"method": "random", "parameters": {"x": {"min": 0.0, "max": 1.0}}})
    for _ in range(20):
        ask.ask()
    assert len(offered(ask).runs) == LARGEST_BATCH


def test_beyond_the_last_point_an_empty_offer_closes_the_search() -> None:
    ask = asker(GRID)
    ask.learn(5)
    ask.ask()
    assert ask.offer == Offer(5, (), exhausted=True)


def test_run_ids_follow_from_sweep_and_index_until_one_is_taken() -> None:
    ask = asker(GRID)
    ask.prepare()
    first = offered(ask).runs[0].run_id
    assert first == run_id_for("sweep1", 0)
    ask.rename(first)
    assert offered(ask).runs[0].run_id == run_id_for("sweep1", 0, 1)


def test_a_search_with_a_memory_is_never_asked_ahead_and_sees_the_runs() -> None:
    records = [SearchRecord(0, {"x": 0.5}, RunState.FINISHED, 1.0), SearchRecord(1, {"x": 0.6}, RunState.RUNNING, None)]
    ask = asker(BAYES, records)
    ask.learn(2)
    ask.prepare()
    assert ask.offer is None
    ask.ask()
    assert [run.index for run in offered(ask).runs] == [2]
    assert 0.0 <= offered(ask).runs[0].params["x"] <= 1.0


def test_an_offer_that_was_computed_from_a_history_is_used_once() -> None:
    ask = asker(BAYES)
    ask.ask()
    assert ask.offer is not None
    ask.learn(0)
    assert ask.offer is None


@pytest.mark.parametrize("calls", [1, 3])
def test_a_search_with_a_memory_is_asked_for_one_run_at_a_time(calls: int) -> None:
    ask = asker(BAYES)
    for _ in range(calls):
        ask.ask()
    assert len(offered(ask).runs) == 1
