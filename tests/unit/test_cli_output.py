"""Figures, JSON and the small texts of the command."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resweep_scheduler.cli import render
from resweep_scheduler.cli.logs import csv_text
from resweep_scheduler.cli.objects import flatten, to_json
from resweep_scheduler.cli.progress import expected_runs, measure
from resweep_scheduler.cli.runs import event_detail
from resweep_scheduler.store import RunState, SweepState

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@given(VALUES)
def test_whatever_a_run_logs_is_valid_json(value: object) -> None:
    text = to_json({"value": value}, indent=None)
    assert "\n" not in text
    json.loads(text, parse_constant=refuse)


def test_infinities_are_texts_and_objects_are_not_lost() -> None:
    value = {"a": [math.nan, math.inf, -math.inf], "b": RunState.FAILED, 3: {"x"}, "c": 1 + 2j}
    assert json.loads(to_json(value)) == {
        "a": ["NaN", "Infinity", "-Infinity"],
        "b": "failed",
        "3": ["x"],
        "c": "(1+2j)",
    }


def test_nested_names_are_joined_by_dots() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": {}}) == {"a.b.c": 1, "a.d": 2, "e": {}}


def test_csv_has_a_column_for_every_name_and_quotes() -> None:
    rows: list[dict[str, object]] = [{"a": 1, "b": 'say "x", y'}, {"a": None, "c": [1, math.nan], "d": True}]
    assert csv_text(rows) == 'a,b,c,d\n1,"say ""x"", y",,\n,,"[1, ""NaN""]",true\n'
    assert csv_text([]) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (-1, "0.0 s"), (59.94, "59.9 s"), (60, "1m 00s"), (3599.6, "1h 00m"), (7500, "2h 05m")],
)
def test_durations_short_of_a_day(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_durations_of_days_and_moments() -> None:
    assert render.duration(49 * 3600) == "2d 01h"
    assert render.ago(None, 5) == "–"
    assert render.ago(1_000, 9_400) == "8.4 s ago"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1 + 0.2, "0.3"), (1e-5, "1e-05"), (3, "3"), ("a b", "a b"), (None, "null"), ([1, math.nan], '[1, "NaN"]')],
)
def test_values_as_people_read_them(value: object, text: str) -> None:
    assert render.number(value) == text


def test_every_state_has_a_mark_and_a_colour() -> None:
    for state in (*RunState, *SweepState):
        assert render.state_text(state).plain.endswith(f" {state.value}")
    assert render.counts_text({RunState.FINISHED: 2, RunState.FAILED: 0}).plain.endswith("2 finished")
    assert render.counts_text({}).plain == "no runs yet"


@pytest.mark.parametrize(("done", "total", "filled"), [(0, 4, 0), (1, 4, 8), (4, 4, 32), (9, 4, 32), (0, 0, 32)])
def test_the_bar_is_filled_in_proportion(done: int, total: int, filled: int) -> None:
    text = render.bar(done, total).plain
    assert len(text) == 32
    assert text.count(text[0]) == (filled or 32)


COUNTS = {RunState.FINISHED: 3, RunState.FAILED: 1, RunState.RUNNING: 2, RunState.PREEMPTED: 5}


def test_rate_and_time_left() -> None:
    progress = measure(COUNTS, 10, ends=[0, 20_000, 10_000, 30_000], now=30_000)
    assert (progress.done, progress.total) == (4, 10)
    assert progress.per_minute == pytest.approx(6)
    assert progress.eta_seconds == pytest.approx(60)


def test_a_sweep_that_stands_still_gets_slower() -> None:
    steady = measure(COUNTS, 10, ends=[0, 10_000], now=15_000)
    stuck = measure(COUNTS, 10, ends=[0, 10_000], now=100_000)
    assert steady.per_minute == pytest.approx(6)
    assert stuck.per_minute == pytest.approx(60 / 90)


def test_the_rate_follows_the_latest_runs() -> None:
    slow_then_fast = [*range(0, 1_000_000, 100_000), *range(1_000_000, 1_020_000, 1_000)]
    assert measure(COUNTS, None, slow_then_fast, now=1_019_000).per_minute == pytest.approx(60)


def test_what_cannot_be_told_is_none() -> None:
    assert measure(COUNTS, None, [5], now=10).per_minute is None
    assert measure(COUNTS, None, [0, 10], now=10).eta_seconds is None
    assert measure(COUNTS, 10, [], now=10).eta_seconds is None
    assert measure(COUNTS, 4, [], now=10).eta_seconds == 0
    assert measure(COUNTS, 10, [7, 7], now=7).per_minute is None


def test_the_smaller_of_size_and_cap_counts() -> None:
    assert [expected_runs(*pair) for pair in ((None, None), (9, None), (None, 4), (9, 4))] == [None, 9, 4, 4]


def test_what_an_event_does_not_say_is_not_shown() -> None:
    assert event_detail({"reason": "", "exit_code": 0, "step": None, "detail": {"a": False}}) == (
        "exit_code=0 step=null detail.a=false"
    )
    assert event_detail(None) == ""
