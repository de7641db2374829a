"""Which step a logged row stands at, and how rows of several attempts come together."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sdk import fake_sdk
from support.waiting import wait_until

import resweep
from resweep.steps import StepLedger
from resweep_scheduler.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


Call = tuple[dict[str, int], int | None, bool | None]


def model(calls: list[Call], start: int) -> tuple[dict[int, dict[str, int]], int]:
    """The rule of W&B in plain words: the rows, and the current step, after one attempt's calls."""
    rows: dict[int, dict[str, int]] = {}
    current, logged = start, False
    for values, step, commit in calls:
        if step is not None:
            if step < current and logged:
                continue
            current = step
        if values:
            logged = True
            rows.setdefault(current, {}).update(values)
        if (step is None if commit is None else commit) and current in rows:
            current += 1
    return rows, current


calls_of_an_attempt = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), max_size=2),
        st.none() | st.integers(0, 8),
        st.sampled_from([None, None, True, False]),
    ),
    max_size=12,
)


@given(calls=calls_of_an_attempt, start=st.integers(0, 5), looks=st.sets(st.integers(0, 11)))
def test_the_ledger_follows_the_rule_whenever_the_open_row_is_looked_at(
    calls: list[Call], start: int, looks: set[int]
) -> None:
    ledger = StepLedger(start, lambda text: None)
    stored: dict[int, dict[str, Any]] = {}

    def store(rows: list[tuple[int, dict[str, Any]]]) -> None:
        for step, values in rows:
            stored[step] = {**stored.get(step, {}), **values}

    for number, (values, step, commit) in enumerate(calls):
        store(ledger.add(dict(values), step, commit) or [])
        if number in looks:
            store(ledger.look())
    store(ledger.close())
    assert (stored, ledger.step) == model(calls, start)


@settings(deadline=None, max_examples=30)
@given(attempts=st.lists(calls_of_an_attempt, min_size=1, max_size=3))
def test_a_later_attempts_row_wins_and_no_step_is_lost_or_doubled(attempts: list[list[Call]]) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        _compare_with_the_model(attempts, directory, patch)


def _compare_with_the_model(attempts: list[list[Call]], directory: str, patch: pytest.MonkeyPatch) -> None:
    with fake_sdk(patch, Path(directory)) as store:
        expected: dict[int, dict[str, int]] = {}
        for calls in attempts:
            start = max(expected) + 1 if expected else 0
            with resweep.init(id="r1", resume="allow") as run:
                assert run.starting_step == start
                for values, step, commit in calls:
                    run.log(values, step=step, commit=commit)
                rows, current = model(calls, start)
                assert run.step == current
            expected |= rows
        assert {row.step: dict(row.values) for row in store.history("r1")} == expected


def test_a_row_in_the_past_is_dropped_with_wandbs_warning(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with resweep.init(id="r1") as run:
        run.log({"a": 1}, step=5)
        run.log({"a": 2}, step=3)
        run.log({"a": 3}, step=-1)
        run.log({"b": 4}, step=5)
    assert [(row.step, dict(row.values)) for row in store.history("r1")] == [(5, {"a": 1, "b": 4})]
    assert dict(store.run("r1").summary) == {"a": 1, "b": 4}
    assert "Tried to log to step 3 that is less than the current step 5." in caplog.text
    assert "log(step=) counts from 0, got -1" in caplog.text


def test_a_call_without_a_step_completes_the_row_that_a_call_with_one_began(store: Store) -> None:
    with resweep.init(id="r1") as run:
        run.log({"a": 1}, step=5)
        run.log({"b": 2})
        assert run.step == 6
        run.log({"a": 3})
    assert {row.step: dict(row.values) for row in store.history("r1")} == {5: {"a": 1, "b": 2}, 6: {"a": 3}}


def test_a_resumed_attempt_may_begin_below_its_starting_step(store: Store) -> None:
    with resweep.init(id="r1") as run:
        for step in range(5):
            run.log({"loss": step})
    with resweep.init(id="r1", resume="allow") as run:
        run.log({"loss": 30}, step=3)
        run.log({"loss": 40}, step=4)
    assert [row.values["loss"] for row in store.history("r1")] == [0, 1, 2, 30, 40]


def test_an_open_row_is_stored_before_it_is_complete(store: Store) -> None:
    run = resweep.init(id="r1")
    run.log({"loss": 1}, step=0)
    wait_until(lambda: store.history("r1"), description="the open row in the store")
    run.log({"accuracy": 2}, step=0)
    run.finish()
    assert [dict(row.values) for row in store.history("r1")] == [{"loss": 1, "accuracy": 2}]


def test_the_next_row_after_a_restored_checkpoint_follows_its_step(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_text("weights")
    with resweep.init(id="r1") as run:
        for step in range(5):
            run.log({"loss": step})
            if step == 2:
                run.save_checkpoint("model.pt")
    with resweep.init(id="r1", resume="must") as run:
        assert run.starting_step == 5
        path = run.restore_checkpoint()
        assert path is not None
        assert path.read_text() == "weights"
        assert run.step == 3
        run.log({"loss": 30})
    assert [row.values["loss"] for row in store.history("r1")] == [0, 1, 2, 30, 4]
