"""Which runs are the best when there are several goals."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from support.finished import Ended, put_sweep

from resweep_scheduler.cli.fronts import front_of, fronts_of
from resweep_scheduler.store import Run, RunState, Store

GOALS = (("loss", "minimize"), ("speed", "maximize"))


@pytest.fixture
def some_run(store: Store) -> Run:
    config = {"method": "random", "metrics": [{"name": "a"}, {"name": "b"}], "parameters": {"x": {"value": 1}}}
    put_sweep(store, "s", config, [Ended({"x": 1}, values=(1.0, 2.0))])
    assert store.sweep("s").metrics == (("a", "minimize"), ("b", "minimize"))
    run = store.run("s-0")
    assert run.values == (1.0, 2.0)
    return run


def test_no_run_of_a_front_is_beaten_by_another_and_each_later_one_is(some_run: Run) -> None:
    source = random.Random(3)
    pairs = [(float(source.randrange(9)), float(source.randrange(9))) for _ in range(120)]
    runs = [replace(some_run, run_id=str(number), values=pair) for number, pair in enumerate(pairs)]

    def beats(left: Run, right: Run) -> bool:
        (a, b), (c, d) = left.values, right.values
        assert a is not None and b is not None and c is not None and d is not None  # noqa: PT018
        return a <= c and b >= d and left.values != right.values

    fronts = fronts_of(runs, GOALS)
    assert sorted(run.run_id for front in fronts for run in front) == sorted(run.run_id for run in runs)
    for front in fronts:
        assert not any(beats(left, right) for left in front for right in front)
    for better, worse in itertools.pairwise(fronts):
        assert all(any(beats(left, right) for left in better) for right in worse)
    assert front_of(runs, GOALS) == fronts[0]


def test_runs_that_did_not_finish_or_lack_a_value_are_in_no_front(some_run: Run) -> None:
    runs = [
        replace(some_run, run_id="a", state=RunState.RUNNING),
        replace(some_run, run_id="b", values=(1.0, None)),
        replace(some_run, run_id="c", values=()),
        replace(some_run, run_id="d"),
    ]
    assert [run.run_id for run in front_of(runs, GOALS)] == ["d"]
    assert front_of([], GOALS) == []
