"""What every search must keep. Subclass `SearchContract` in a test module and say which config the search has."""

from __future__ import annotations

import copy
import json
import logging
import random
import warnings

import pytest

from resweep_scheduler.config import SweepConfig
from resweep_scheduler.search import PastRun, Search, create_search


class SearchContract:
    """Contract tests of a search.

    Attributes:
        config: The sweep.
        last_index: An index that the search still has a point for.
    """

    config: SweepConfig
    last_index: int

    def create(self) -> Search:
        """A new instance."""
        return create_search(self.config)

    def runs(self, count: int) -> list[PastRun]:
        """Past runs of all states, with the points that the search itself proposed for them."""
        states = ["finished", "finished", "finished", "running", "failed", "preempted", "crashed", "killed", "pending"]
        points = self.create().suggest(first_index=0, count=count)
        return [
            PastRun(index, point, states[index % len(states)], index / 7 if index % 3 else None, last=float(index))
            for index, point in enumerate(points)
        ]

    def test_the_same_question_has_the_same_answer_in_every_instance(self) -> None:
        runs = self.runs(self.last_index)
        used = self.create()
        used.suggest(first_index=0, count=3, runs=runs)
        answers = [
            search.suggest(first_index=self.last_index - 1, count=2, runs=runs)
            for search in (used, used, self.create())
        ]
        assert answers[0] == answers[1] == answers[2]

    def test_the_order_of_past_runs_makes_no_difference(self) -> None:
        runs = self.runs(self.last_index)
        shuffled = random.Random(1).sample(runs, len(runs))
        search = self.create()
        expected = search.suggest(first_index=self.last_index, count=1, runs=runs)
        assert expected == search.suggest(first_index=self.last_index, count=1, runs=shuffled)

    def test_points_are_nested_like_the_config_and_plain_json(self) -> None:
        points = self.create().suggest(first_index=0, count=self.last_index)
        assert len(points) == self.last_index
        for point in points:
            # What a choice brings stands beside the parameter that has the choices.
            assert [name for name in point if name in self.config.parameters] == list(self.config.parameters)
            assert repr(json.loads(json.dumps(point))) == repr(point)

    def test_a_point_belongs_to_whoever_asked(self) -> None:
        search = self.create()
        before = search.suggest(first_index=0, count=1)
        expected = copy.deepcopy(before)
        _spoil(before)
        assert expected == search.suggest(first_index=0, count=1)

    def test_arguments_are_left_alone(self) -> None:
        runs = self.runs(self.last_index)
        kept = copy.deepcopy(runs)
        self.create().suggest(first_index=self.last_index, count=1, runs=runs)
        assert runs == kept

    def test_nothing_is_said_and_nothing_global_is_changed(self, capfd: pytest.CaptureFixture[str]) -> None:
        random.seed(3)
        state = random.getstate()
        levels = {name: logging.getLogger(name).level for name in ("", "optuna")}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.create().suggest(first_index=self.last_index, count=1, runs=self.runs(self.last_index))
        assert random.getstate() == state
        assert levels == {name: logging.getLogger(name).level for name in levels}
        assert capfd.readouterr() == ("", "")

    def test_asking_for_nothing_gives_nothing(self) -> None:
        assert self.create().suggest(first_index=0, count=0) == []

    @pytest.mark.parametrize(("first_index", "count"), [(-1, 1), (0, -1)])
    def test_negative_requests_are_refused(self, first_index: int, count: int) -> None:
        with pytest.raises(ValueError, match="must be at least 0"):
            self.create().suggest(first_index=first_index, count=count)

    def test_size_says_whether_the_search_ends(self) -> None:
        search = self.create()
        if search.size is None:
            assert len(search.suggest(first_index=10**6, count=1)) == 1
        else:
            assert len(search.suggest(first_index=search.size - 1, count=9)) == 1
            assert search.suggest(first_index=search.size, count=9) == []


def _spoil(value: object) -> None:
    """Empty every mapping and list inside a value."""
    if isinstance(value, dict | list):
        for part in list(value.values()) if isinstance(value, dict) else list(value):
            _spoil(part)
        value.clear()
