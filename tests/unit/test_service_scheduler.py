"""What a service does for a sweep besides suggestions, and which sweeps it looks after."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.stores import SWEEP, Agent, Clock, make_offer, make_sweep
from support.waiting import wait_until

from resweep_scheduler.config import SweepConfig, parse_sweep
from resweep_scheduler.search import Sources
from resweep_scheduler.service import scheduler, watcher
from resweep_scheduler.service.courier import Courier
from resweep_scheduler.service.jobs import Jobs
from resweep_scheduler.service.scheduler import STUCK, Duties, SchedulerOptions
from resweep_scheduler.service.watcher import Watched, Watcher
from resweep_scheduler.store import Demand, Store, StoreUnavailableError, SweepCommand, UnknownSweepError

HOOK = {"url": "http://127.0.0.1:9/none", "events": ["finished"]}
BAYES: dict[str, object] = {"method": "bayes", "metric": {"name": "m"}, "parameters": {"x": {"min": 0.0, "max": 1.0}}}
GRID: dict[str, object] = {"method": "grid", "parameters": {"a": {"values": [1, 2]}}}


class Calls:
    """Jobs that are asked for, and deliveries that are made at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs: list[tuple[str, ...]] = []
        self.delivered = 0
        self.asked_already = False
        monkeypatch.setattr(scheduler, "call_for", self.call_for)
        monkeypatch.setattr(scheduler, "deliver_due", self.deliver)

    def call_for(self, _url: str, *words: str, **_: object) -> bool:
        self.jobs.append(words)
        return not self.asked_already

    def deliver(self, *_: object, **__: object) -> int:
        self.delivered += 1
        return 1


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


def duties(queued: bool = True, clock: Callable[[], float] = lambda: 0.0, **options: Any) -> Duties:
    return Duties(SchedulerOptions(url="redis://h/0", name="s", **options), queued=queued, clock=clock)


def watched(store: Store, config: dict[str, object]) -> Watched:
    return Watched(store, SWEEP, parse_sweep(config), 60_000)


def finish_a_run(store: Store, index: int = 0) -> None:
    agent = Agent(store, f"agent{index}")
    agent.take(make_offer(1, first=index))
    agent.end(0)


def test_a_sweep_without_webhooks_and_retention_costs_nothing(store: Store, calls: Calls) -> None:
    duties()(watched(store, GRID))  # the store does not even have it
    assert calls.jobs == []


def test_due_webhooks_are_a_job_or_are_called_here_without_a_queue(store: Store, calls: Calls) -> None:
    make_sweep(store)
    finish_a_run(store)
    one = watched(store, {**GRID, "webhooks": [HOOK]})
    duties()(one)
    assert calls.jobs == [("deliver", SWEEP)]
    assert calls.delivered == 0
    duties(queued=False)(one)
    wait_until(lambda: calls.delivered, description="a delivery")
    assert calls.jobs == [("deliver", SWEEP)]
    duties(queued=False, burst=True)(one)
    assert calls.delivered == 2


def test_webhooks_are_called_here_when_their_job_must_be_dead(store: Store, calls: Calls, clock: Clock) -> None:
    """Not when deliveries are late because a receiver hangs: the job that makes them is alive."""
    make_sweep(store)
    finish_a_run(store)
    one = watched(store, {**GRID, "webhooks": [HOOK]})
    now = 0.0
    looks = duties(clock=lambda: now)
    for blocked in (False, False, True):
        clock.advance(STUCK)
        now += STUCK
        calls.asked_already = blocked
        looks(one)
    assert calls.delivered == 0
    now += 1
    looks(one)
    assert calls.jobs == [("deliver", SWEEP)] * 4
    wait_until(lambda: calls.delivered, description="a delivery")

    for delivery in store.deliveries(SWEEP)[1]:
        store.end_delivery(SWEEP, delivery.delivery_id)
    looks(one)
    finish_a_run(store, 1)
    looks(one)  # a job that another service has just asked for is no dead one
    assert calls.delivered == 1


def test_a_receiver_that_hangs_holds_up_neither_the_service_nor_other_sweeps(
    store: Store, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_sweep(store)
    finish_a_run(store)
    make_sweep(store, "other")
    agent = Agent(store, sweep_id="other")
    agent.take(make_offer(1, prefix="other"))
    agent.end(0)
    answers = threading.Event()
    begun: list[str] = []

    def hang(_store: Store, sweep_id: str, *_: object, **__: object) -> int:
        begun.append(sweep_id)
        answers.wait(10)
        return 0

    monkeypatch.setattr(scheduler, "deliver_due", hang)
    looks = duties(queued=False)
    hooked = [Watched(store, one, parse_sweep({**GRID, "webhooks": [HOOK]}), 60_000) for one in (SWEEP, "other")]
    for _ in range(3):
        for one in hooked:
            looks(one)
    wait_until(lambda: begun, description="a delivery")
    assert begun == [SWEEP]  # one at a time, and none twice
    answers.set()
    wait_until(lambda: len(begun) == 2, description="the other sweep's delivery")
    assert begun == [SWEEP, "other"]


def test_a_delivery_that_fails_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    courier = Courier()
    done: list[str] = []

    def fail(error: Exception) -> None:
        done.append(type(error).__name__)
        raise error

    for number, error in enumerate((UnknownSweepError("gone"), StoreUnavailableError("away"), RuntimeError("odd"))):
        courier.ask_for(str(number), partial(fail, error))
    courier.ask_for("last", lambda: done.append("last"))
    wait_until(lambda: "last" in done, description="the last errand")
    assert done == ["UnknownSweepError", "StoreUnavailableError", "RuntimeError", "last"]
    said = [record.getMessage() for record in caplog.records]
    assert said == ["deliveries-interrupted sweep=1: away", "deliveries-failed sweep=2"]


@pytest.mark.parametrize(("days", "removed"), [(0, True), (1, False), (None, False)])
def test_sweeps_are_removed_when_they_have_been_over_for_long_enough(
    store: Store, clock: Clock, calls: Calls, days: float | None, removed: bool
) -> None:
    make_sweep(store)
    store.command_sweep(SWEEP, SweepCommand.STOP)
    clock.advance(3600)
    duties(queued=False, keep_finished=days)(watched(store, GRID))
    assert bool(store.client.exists(store.keys.sweep(SWEEP))) is not removed


def test_open_sweeps_are_kept(store: Store, calls: Calls) -> None:
    make_sweep(store)
    duties(queued=False, keep_finished=0)(watched(store, GRID))
    assert store.client.exists(store.keys.sweep(SWEEP))


def test_a_removal_that_was_interrupted_does_not_make_the_sweep_young_again(
    store: Store, clock: Clock, calls: Calls
) -> None:
    """More removals than are read at once."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(150))
    store.command_sweep(SWEEP, SweepCommand.STOP)
    clock.advance(2 * 86_400)
    store.remove_runs([f"run{index}" for index in range(149)])
    clock.advance(3600)
    duties(queued=False, keep_finished=3)(watched(store, GRID))
    assert [run.run_id for run in store.runs(SWEEP)] == ["run149"]
    duties(queued=False, keep_finished=2)(watched(store, GRID))
    assert not store.client.exists(store.keys.sweep(SWEEP))


def test_an_old_job_of_the_retention_leaves_a_sweep_alone_that_goes_on(
    store: Store, clock: Clock, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service that asked for it was killed; a person resumed the sweep before the next one came."""
    make_sweep(store)
    agent = Agent(store, preemptible=True)
    agent.take(make_offer(1))
    agent.end(1)
    store.command_sweep(SWEEP, SweepCommand.STOP)
    clock.advance(31 * 86_400)
    duties(keep_finished=30.0)(watched(store, GRID))
    ((function, *arguments),) = calls.jobs
    assert function == "expire"
    store.command_sweep(SWEEP, SweepCommand.RESUME)
    store.retry_runs(SWEEP, ["run0"])
    agent.take()
    agent.end(1, preempted=True)
    jobs = Jobs(watcher_of(store, monkeypatch), exports=Path())
    jobs.table()[function](*arguments)
    assert store.sweep(SWEEP).queue == ("run0",)

    store.command_sweep(SWEEP, SweepCommand.CANCEL)
    jobs.table()[function](*arguments)
    assert store.sweep(SWEEP).queue == ("run0",)  # it was canceled just now
    clock.advance(31 * 86_400)
    jobs.table()[function](*arguments)
    jobs.table()[function](*arguments)
    assert not store.client.exists(store.keys.sweep(SWEEP))


# The watcher.


def watcher_of(store: Store, monkeypatch: pytest.MonkeyPatch, **more: Any) -> Watcher:
    monkeypatch.setattr(watcher, "connect", lambda _url: store.client)
    return Watcher("redis://h/0", name="service", **more)


def create(store: Store, config: dict[str, object], sweep_id: str) -> None:
    make_sweep(store, sweep_id)
    config_json = parse_sweep(config).to_json() if config else "{}"
    store.client.hset(store.keys.sweep(sweep_id), "config", config_json)


def test_only_searches_that_learn_are_looked_after(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, BAYES, "learns")
    create(store, GRID, "grid")
    create(store, {}, "broken")
    made = watcher_of(store, monkeypatch)
    made.step()
    served = [
        sweep_id
        for sweep_id in ("learns", "grid", "broken")
        if store.client.exists(store.keys.sweep(sweep_id, "service"))
    ]
    assert served == ["learns"]
    made.withdraw()
    assert store.client.exists(store.keys.sweep("learns", "service")) == 0


STUDY = Path(__file__).parent.parent / "support" / "study.py"
BY_SOURCE: dict[str, object] = {
    "method": "custom",
    "metric": {"name": "m"},
    "scheduler": {"engine": "optuna", "source": "study.py", "search_space": "draw_plane"},
}


@pytest.mark.parametrize("given", [False, True])
def test_a_search_by_source_is_looked_after_only_with_its_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    create(store, BY_SOURCE, SWEEP)
    made = watcher_of(store, monkeypatch, sources=Sources([STUDY] if given else []))
    store.begin_asking(SWEEP, session="a", agents=["a"], hold_ms=1000, only_wait=True)
    made.step()
    assert (store.service(SWEEP) is not None) is given
    assert made.supply(SWEEP) == 0
    assert len(store.runs(SWEEP)) == given


def test_a_source_that_fails_is_said_and_not_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = {"engine": "optuna", "source": "study.py", "search_space": "drow"}
    create(store, {**BY_SOURCE, "scheduler": scheduler}, SWEEP)
    made = watcher_of(store, monkeypatch, sources=Sources([STUDY]))
    store.begin_asking(SWEEP, session="a", agents=["a"], hold_ms=1000, only_wait=True)
    made.step()
    made.step()
    assert store.service(SWEEP) is None
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"search-failed sweep={SWEEP}: scheduler.search_space: must be a function that")


def test_a_call_for_suggestions_is_answered_at_once_also_for_a_new_sweep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = watcher_of(store, monkeypatch)
    made.step()
    create(store, BAYES, SWEEP)
    store.announce_service([SWEEP], name="service", ttl_ms=1000)
    store.begin_asking(SWEEP, session="a", agents=["a"], hold_ms=1000)
    assert made.supply(SWEEP) == 1
    assert made.supply("unknown") == 0


def test_a_search_that_fails_is_left_to_the_agents(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, BAYES, SWEEP)
    config = json.loads(parse_sweep(BAYES).to_json())
    config["metric"] = None
    store.client.hset(store.keys.sweep(SWEEP), "config", SweepConfig.model_validate(config).to_json())
    made = watcher_of(store, monkeypatch)
    made.step()
    made.step()
    assert store.client.exists(store.keys.sweep(SWEEP, "service")) == 0


def test_a_sweep_that_is_removed_is_forgotten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, BAYES, SWEEP)
    seen: list[str] = []

    def look(one: Watched) -> None:
        seen.append(one.sweep_id)
        raise UnknownSweepError("gone")

    made = watcher_of(store, monkeypatch, duties=look)
    made.step()
    store.remove_sweep(SWEEP)
    made.step()
    assert seen == [SWEEP]


def test_sweeps_without_agents_and_those_that_are_over_are_looked_at_rarely(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store, BAYES, "busy")
    create(store, BAYES, "lonely")
    create(store, BAYES, "over")
    store.command_sweep("over", SweepCommand.STOP)
    now = [0.0]
    made = watcher_of(store, monkeypatch, clock=lambda: now[0])
    Agent(store, sweep_id="busy")
    looks: Counter[str] = Counter()
    real = Store.demand

    def demand(self: Store, sweep_id: str, *, seen_since: int) -> Demand:
        looks[sweep_id] += 1
        return real(self, sweep_id, seen_since=seen_since)

    monkeypatch.setattr(Store, "demand", demand)
    for _ in range(9):
        made.step()
        now[0] += watcher.POLL
    assert looks["busy"] == 18
    assert looks["lonely"] == 2  # once to see, once to supply
    assert looks["over"] == 1


def test_a_service_of_one_project_leaves_the_others_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(store, BAYES, SWEEP)
    watcher_of(store, monkeypatch, project="another").step()
    assert store.client.exists(store.keys.sweep(SWEEP, "service")) == 0
    watcher_of(store, monkeypatch, entity="local", project="uncategorized").step()
    assert store.client.exists(store.keys.sweep(SWEEP, "service")) == 1
