"""The copy of a sweep that `watch` and `start` keep stays true, whatever happens to the sweep."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import pytest
from rich.console import Console
from support.servers import Server
from support.sweeps import Story

from resweep_scheduler.cli.monitor import Monitor
from resweep_scheduler.cli.view import SHOWN_RUNS, View, picture, story
from resweep_scheduler.store import Run, RunState, Store, SweepCommand

MANY = 20

ENDLESS = """\
name: a name
program: train.py
method: random
metric: {name: accuracy, goal: maximize}
parameters: {lr: {min: 0.0, max: 1.0}}
"""


@pytest.fixture
def told(shared_server: Server) -> Story:
    return Story(shared_server.url, ENDLESS)


def drawn(monitor: Monitor) -> str:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(picture(monitor))
    return captured.get()


def as_stored(told: Story) -> dict[str, Run]:
    return {run.run_id: run for run in told.store.runs(told.sweep_id)}


def test_it_follows_a_few_and_many_changes_and_reads_no_other_runs(
    told: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    told.finish(0.5)
    monitor = Monitor(told.store, told.sweep_id)
    assert len(monitor.runs) == 1
    read: list[str] = []
    load = Store.runs_by_id

    def noting(store: Store, run_ids: Sequence[str]) -> dict[str, Run]:
        read.extend(run_ids)
        return load(store, run_ids)

    monkeypatch.setattr(Store, "runs_by_id", noting)
    told.finish(0.7)
    told.fail()
    kinds = [event.kind for event in monitor.step(1.0)]
    assert kinds[-2:] == ["claimed", "failed"]
    assert monitor.runs == as_stored(told)
    more = [told.finish(0.6) for _ in range(MANY)]
    read.clear()
    with monkeypatch.context() as only_some:
        only_some.setattr(Store, "runs", None)
        monitor.step(1.0)
    assert read == more
    assert list(monitor.runs.items()) == list(as_stored(told).items()), "in the order of their creation, too"
    best = monitor.best()
    assert best is not None
    assert best.metric == 0.7
    assert monitor.unsuccessful() == 1
    assert (monitor.progress().done, monitor.progress().total) == (MANY + 3, None)


def test_a_notice_is_told_with_the_time_that_is_left(told: Story) -> None:
    monitor = Monitor(told.store, told.sweep_id)
    token = told.claim().token
    told.store.mark_preempting(token, reason="notice: aws spot stop", source="aws", lead_ms=118_000)
    note = functools.partial(told.store.note_notice, told.sweep_id, agent="box-0", session="s", source="aws")
    assert note(number=1, detail="spot stop", lead_ms=118_000)
    assert note(number=2, hint=True)
    lines = [story(event, monitor) for event in monitor.step(1.0)]
    texts = [" ".join(line.plain.split()[1:]) for line in lines if line is not None]
    assert texts[-3:] == [
        f"{token.run_id} preempting (notice: aws spot stop, in 1m 58s)",
        "agent notice box-0 is to go: aws spot stop, in 1m 58s",
        "agent notice box-0 may go: aws",
    ]


def test_a_checkpoint_that_cannot_be_used_is_told(told: Story) -> None:
    monitor = Monitor(told.store, told.sweep_id)
    token = told.claim().token
    told.store.commit_checkpoint(token, path="a", step=3)
    told.store.commit_checkpoint(token, path="b", step=5, after=1)
    told.store.fall_back(token, lost="b", path="a", reason="its digest is wrong")
    told.store.fall_back(token, lost="a", path=None, reason="it is missing")
    lines = [story(event, monitor) for event in monitor.step(1.0) if event.kind == "fallback"]
    assert [line.plain.split(maxsplit=3)[3] for line in lines if line is not None] == [
        "checkpoint of step 5 cannot be used, goes on from that of step 3 (its digest is wrong)",
        "checkpoint of step 3 cannot be used, no older one is left (it is missing)",
    ]


def test_a_run_that_logs_is_read_again_without_an_event(told: Story) -> None:
    claimed = told.claim()
    monitor = Monitor(told.store, told.sweep_id)
    monitor.step(0.01)
    told.log(claimed.token, {4: {"accuracy": 0.4}})
    monitor.step(0.01)
    assert [(run.step, run.metric) for run in monitor.owned()] == [(4, 0.4)]
    text = drawn(monitor)
    assert claimed.token.run_id in text
    assert "0.4" in text
    assert "endless" in text


def test_a_run_that_ended_and_was_removed_is_gone(told: Story) -> None:
    kept = told.finish(0.5)
    removed = told.claim().token
    monitor = Monitor(told.store, told.sweep_id)
    told.end(removed)
    told.store.remove_runs([removed.run_id])
    monitor.step(1.0)
    assert list(monitor.runs) == [kept]


def test_a_lost_server_is_told_and_found_again(server: Server) -> None:
    told = Story(server.url, ENDLESS)
    claimed = told.claim()
    monitor = Monitor(told.store, told.sweep_id)
    server.kill()
    assert monitor.step(0.01) == []
    assert monitor.away is not None
    assert "Redis is away" in drawn(monitor)
    server.start()
    told.end(claimed.token)
    assert "finished" in [event.kind for event in monitor.step(1.0)]
    assert monitor.away is None


def test_more_runs_than_the_picture_has_room_for(told: Story) -> None:
    for number in range(SHOWN_RUNS + 2):
        told.store.register(told.sweep_id, agent=f"box-{number}", session=f"s{number}", host="box", pid=number)
    runs = [told.claim_as(f"box-{number}", f"s{number}") for number in range(SHOWN_RUNS + 2)]
    monitor = Monitor(told.store, told.sweep_id)
    text = drawn(monitor)
    assert runs[0].token.run_id in text
    assert "and 2 more" in text
    assert f"{SHOWN_RUNS + 2} running" in text


def test_every_kind_of_event_is_told_in_one_line(told: Story, capsys: pytest.CaptureFixture[str]) -> None:
    told.preempt()
    claimed = told.claim()
    told.end(claimed.token, None, signal=9)
    told.store.retry_runs(told.sweep_id, [claimed.token.run_id])
    again = told.claim()
    told.store.stop_run(again.token.run_id, reason="stopped by user")
    told.store.command_sweep(told.sweep_id, SweepCommand.PAUSE)
    monitor = Monitor(told.store, told.sweep_id)
    assert monitor.runs[again.token.run_id].state is RunState.RUNNING
    events = told.store.events(told.sweep_id)
    lines = [line.plain for event in events if (line := story(event, monitor)) is not None]
    text = "\n".join(lines)
    known = ("preempting (script)", "on the run queue", "crashed", "retried", "attempt 2 on box-0", "running → paused")
    for part in known:
        assert part in text
    View(monitor).update(events)
    assert capsys.readouterr().out.splitlines() == [line.rstrip("\n") for line in lines]
