"""Config and summary of a run."""

from __future__ import annotations

import argparse
import copy
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sdk import begin_attempt, fake_sdk
from support.waiting import wait_until

import resweep
from resweep.errors import UsageError
from resweep.summaries import Summary
from resweep_scheduler.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


def test_a_config_is_read_as_dict_and_by_attributes(store: Store) -> None:
    run = resweep.init(id="r1", config={"lr": 0.1, "optimizer": {"name": "adam", "betas": (0.9, 0.99)}})
    config = run.config
    assert config.lr == config["lr"] == 0.1
    assert config.optimizer.betas == [0.9, 0.99]
    assert dict(**config.optimizer) == {"name": "adam", "betas": [0.9, 0.99]}
    assert config.get("missing", 3) == 3
    assert "lr" in config
    assert list(config.keys()) == ["lr", "optimizer"]
    assert json.loads(json.dumps(config)) == config.as_dict()
    with pytest.raises(AttributeError, match="the config has no item 'momentum'; it has: lr, optimizer"):
        _ = config.momentum


def test_changes_reach_the_store(store: Store) -> None:
    run = resweep.init(id="r1", config={"optimizer": {"name": "adam", "more": {"x": 1}}})
    run.config.lr = 1
    run.config["epochs"] = 2
    run.config.update({"a": 3}, b=4, allow_val_change=True)
    run.config.update(argparse.Namespace(c=5))
    config = run.config
    config |= {"d": 6}
    run.config.setdefaults({"d": 7, "e": 8})
    run.config.optimizer.more.x = 9
    assert run.config.setdefault("lr", 5) == 1
    expected = {
        "optimizer": {"name": "adam", "more": {"x": 9}},
        "lr": 1,
        "epochs": 2,
        "a": 3,
        "b": 4,
        "c": 5,
        "d": 6,
        "e": 8,
    }
    wait_until(lambda: store.run("r1").config == expected, description="the config in the store")
    assert run.config.as_dict() == expected


def test_what_the_sweep_chose_is_locked(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begin_attempt(store, monkeypatch)
    run = resweep.init()
    run.config.x = 1
    run.config["x"] = 2
    run.config.update(x=3, y=4)
    run.config.setdefault("x", 5)
    assert (run.config.x, run.config.y) == (0, 4)
    assert caplog.text.count("Config item 'x' was locked by 'sweep' (ignored update).") == 1


def test_nested_parameters_are_locked_too(store: Store) -> None:
    from resweep.configuration import Config

    told: list[str] = []
    config = Config({"model": {"depth": 2}}, locked=["model"], warn=told.append, complain=lambda place, value: None)
    config.listen(told.append)
    config.model.depth = 3
    assert config.model.depth == 2
    assert told == ["Config item 'model' was locked by 'sweep' (ignored update)."]


@pytest.mark.parametrize("remove", ["del config['lr']", "config.pop('lr')", "config.popitem()", "config.clear()"])
def test_nothing_can_be_removed(store: Store, remove: str) -> None:
    run = resweep.init(config={"lr": 1})
    with pytest.raises(UsageError, match="config items cannot be removed, and 'lr' is one; set it to None instead"):
        exec(remove, {"config": run.config})


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_a_copy_is_a_plain_dict(store: Store, duplicate: object) -> None:
    run = resweep.init(config={"lr": 1, "o": {"a": 1}})
    assert callable(duplicate)
    made = duplicate(run.config)
    assert (type(made), type(made["o"]), made) == (dict, dict, {"lr": 1, "o": {"a": 1}})


def test_the_summary_has_the_last_values_and_is_kept(store: Store) -> None:
    with resweep.init(id="r1") as run:
        run.log({"loss": 2, "epoch": 1})
        run.log({"loss": 3})
        run.summary["best"] = 2
        run.summary.update({"note": "good"})
        assert dict(run.summary) == {"loss": 3, "epoch": 1, "best": 2, "note": "good"}
    with resweep.init(id="r1", resume="allow") as run:
        assert dict(run.summary) == {"loss": 3, "epoch": 1, "best": 2, "note": "good"}
        run.log({"loss": 1})
        del run.summary["note"]
    assert dict(store.run("r1").summary) == {"loss": 1, "epoch": 1, "best": 2}


def test_a_summary_set_by_hand_counts_for_the_search(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_attempt(store, monkeypatch, metric_name="accuracy", metric_goal="maximize")
    with resweep.init() as run:
        run.log({"accuracy": 0.5})
        run.summary["accuracy"] = 0.75
    assert store.run("run0").metric == 0.75


numbers = st.lists(st.integers(-100, 100), min_size=1, max_size=20)


@given(values=numbers, cut=st.integers(0, 20))
def test_define_metric_goes_on_after_a_resume(values: list[int], cut: int) -> None:
    items: dict[str, object] = {}
    for part in (values[:cut], values[cut:]):
        summary = Summary(items, lambda place, value: None)
        for mode in ("min", "max", "mean", "last", "none"):
            summary.define(f"{mode}/*", mode)
        for value in part:
            summary.observe({f"{mode}/v": value for mode in ("min", "max", "mean", "last", "none")})
        items = json.loads(json.dumps(summary.snapshot()))
    assert (items["min/v"], items["max/v"], items["last/v"]) == (min(values), max(values), values[-1])
    assert items["mean/v"] == pytest.approx(sum(values) / len(values))
    assert "none/v" not in items


def test_define_metric_on_a_run(store: Store) -> None:
    with resweep.init(id="r1") as run:
        run.define_metric("loss", summary="min", step_metric="epoch")
        run.define_metric("epoch")
        for value in (3, float("nan"), 1, 2):
            run.log({"loss": value, "epoch": value})
        with pytest.raises(UsageError, match="summary must be one of last, min, max, mean, none, got 'best'"):
            resweep.define_metric("loss", summary="best")
    assert dict(store.run("r1").summary) == {"loss": 1, "epoch": 2}
