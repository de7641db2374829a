"""What can be logged, and that logging never raises."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sdk import fake_sdk

import resweep
from resweep.values import approximate_size, plain_row
from resweep_scheduler.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


class Kind(enum.StrEnum):
    FAST = "fast"


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Tensor:
    """What a torch scalar looks like from outside."""

    def item(self) -> float:
        return 2.5


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1),
        (True, True),
        (None, None),
        ("text", "text"),
        (10**40, 10**40),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array(3.5), 3.5),
        (np.array([4]), 4),
        (Tensor(), 2.5),
        (Level.HIGH, 3),
        (Kind.FAST, "fast"),
        (Path("a/b"), "a/b"),
        ((1, [2.0, {"x": np.int32(3)}]), [1, [2.0, {"x": 3}]]),
        ({1: {"a": (1,)}}, {"1": {"a": [1]}}),
    ],
)
def test_values_that_json_can_say(value: object, expected: object) -> None:
    told: list[object] = []
    row = plain_row({"v": value}, lambda place, odd: told.append(odd))
    assert row == {"v": expected}
    assert type(row["v"]) is type(expected)
    assert json.loads(json.dumps(row)) == row
    assert told == []


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "<Colour.RED: 1>"),
        (Decimal("1.5"), "Decimal('1.5')"),
        (1 + 2j, "(1+2j)"),
        (b"x", "b'x'"),
        (np.array([1, 2]), "array([1, 2])"),
        (Unspeakable(), "<Unspeakable without a repr: RuntimeError>"),
        ("x" * 5000, None),
    ],
)
def test_other_values_become_their_repr(value: object, expected: str | None) -> None:
    told: list[str] = []
    row = plain_row({"v": value}, lambda place, odd: told.append(place))
    if expected is None:
        assert row["v"] == value, "texts are kept whole"
    else:
        assert (row["v"], told) == (expected, ["v"])


def test_values_without_a_bottom() -> None:
    endless: dict[str, Any] = {}
    endless["self"] = endless
    told: list[str] = []
    text = json.dumps(plain_row({"v": endless}, lambda place, odd: told.append(place)))
    assert len(text) < 5000
    assert len(told) == 1


def test_a_list_that_changes_after_the_call(store: Store) -> None:
    run = resweep.init(id="r1")
    values, tensor = [1, {"a": 2}], np.array(1.0)
    row = {"values": values, "tensor": tensor}
    run.log(row)
    values.append(3)
    tensor += 1
    row["late"] = 1
    run.finish()
    assert [dict(found.values) for found in store.history("r1")] == [{"values": [1, {"a": 2}], "tensor": 1.0}]


def test_nan_and_infinities_are_kept(store: Store) -> None:
    with resweep.init(id="r1", config={"top": math.inf}) as run:
        run.log({"a": math.nan, "b": math.inf, "c": [-math.inf]})
    (row,) = store.history("r1")
    assert math.isnan(row.values["a"])
    assert (row.values["b"], row.values["c"]) == (math.inf, [-math.inf])
    record = store.run("r1")
    assert math.isnan(record.summary["a"])
    assert record.config["top"] == math.inf


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((5,), "log() takes a dict"),
        ((None,), "log() takes a dict"),
        (({"a": 1}, "two"), "log() takes a dict"),
        (({"a": 1}, 1.5), "log() takes a dict"),
        (({"a": object()},), "'a' is of type builtins.object, which has no JSON form"),
    ],
)
def test_log_never_raises(
    store: Store, caplog: pytest.LogCaptureFixture, arguments: tuple[Any, ...], told: str
) -> None:
    with resweep.init(id="r1") as run:
        run.log(*arguments)
        run.log(*arguments)
        run.log({"a": 2})
    assert store.history("r1")[-1].values["a"] == 2
    assert caplog.text.count(told) == 1


def test_log_after_finish_is_ignored(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run = resweep.init(id="r1")
    run.finish()
    run.log({"a": 1})
    run.finish(3)
    assert store.history("r1") == []
    assert store.run("r1").exit_code == 0
    assert "run r1 is finished and logs nothing more; call resweep.init() again" in caplog.text


def test_sizes_are_estimated_roughly() -> None:
    row = {"loss": 0.123456789, "names": ["a" * 100] * 10, "nested": {"x": None}}
    assert len(json.dumps(row)) / 2 < approximate_size(row) < len(json.dumps(row)) * 2
