"""The thread that sends, and `resweep sync`: what happens when the store does not take rows."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.sdk import begin_attempt, enter_attempt, fake_sdk
from support.stopping import hyperband
from support.stores import SWEEP, Agent, Clock
from support.waiting import wait_until

import resweep
import resweep.sync as syncing
from resweep.outbox import Outbox
from resweep.sender import INTERVAL, Sender
from resweep.spill import Header, Row, SpillFile, spill_folder
from resweep.sync import SyncOutcome, sync
from resweep_scheduler.store import Hold, RunMeta, RunState, Store, StoreRefusedError, StoreUnavailableError

HEADER = Header("r1", "local", "p", "1:nonce")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr("resweep.sync.PATIENCE", 0.0)
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


class Outage:
    """Redis is away for the writes of a script while `on`; with `late` they are executed all the same."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on = self.late = False
        self.error: Exception = StoreUnavailableError("redis://x does not answer")
        self.refused = 0
        for name in ("log", "update_config", "commit_checkpoint", "mark_preempting", "finish_run"):
            monkeypatch.setattr(Store, name, self._wrap(getattr(Store, name)))

    def _wrap(self, method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if not self.on:
                return method(*arguments, **named)
            self.refused += 1
            if self.late:
                method(*arguments, **named)
            raise self.error

        return call


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


def test_an_idle_sender_looks_again_after_its_interval(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """More looks would take time from the training for nothing."""
    pauses: list[float] = []
    tick = Sender.tick

    def noted(sender: Sender, now: float) -> float:
        pauses.append(tick(sender, now))
        return pauses[-1]

    monkeypatch.setattr(Sender, "tick", noted)
    run = resweep.init(id="r1")
    run.log({"a": 1})
    wait_until(lambda: len(pauses) >= 2, description="two looks at the outbox")
    looks = pauses[:]
    run.finish()
    assert set(looks) == {INTERVAL}


def spilled(directory: Path) -> list[Path]:
    return sorted(spill_folder(directory).glob("*.jsonl"))


def row_values(store: Store, run_id: str = "r1") -> list[dict[str, Any]]:
    return [dict(row.values) for row in store.history(run_id)]


def test_rows_survive_an_outage_in_order(store: Store, outage: Outage, tmp_path: Path) -> None:
    run = resweep.init(id="r1")
    for step in range(3):
        run.log({"n": step})
    wait_until(lambda: len(store.history("r1")) == 3, description="the first rows")
    outage.on = True
    for step in range(3, 1200):
        run.log({"n": step})
    run.config.late = 1
    wait_until(lambda: spilled(tmp_path), description="a spill file")
    outage.on = False
    for step in range(1200, 1210):
        run.log({"n": step})
    run.finish()
    assert row_values(store) == [{"n": step} for step in range(1210)]
    assert store.run("r1").config["late"] == 1
    assert spilled(tmp_path) == []
    assert store.run("r1").state is RunState.FINISHED


def test_an_open_row_that_changes_while_it_is_sent_is_stored_as_it_was_last(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that sends looks at the open row; before it has put it into the outbox, the training goes on."""
    append = Outbox.append_row
    looked, logged = threading.Event(), threading.Event()

    def append_slowly(outbox: Outbox, step: int, values: dict[str, Any]) -> None:
        if threading.current_thread().name == "resweep-sender" and not looked.is_set():
            looked.set()
            logged.wait(0.5)
        append(outbox, step, values)

    monkeypatch.setattr(Outbox, "append_row", append_slowly)
    with resweep.init(id="r1") as run:
        run.log({"a": 1}, step=0)
        assert looked.wait(10)
        run.log({"a": 2}, step=0, commit=True)
        logged.set()
        run.log({"a": 3})
    assert row_values(store) == [{"a": 2}, {"a": 3}]


def test_writes_whose_answers_are_lost_count_once(store: Store, outage: Outage) -> None:
    run = resweep.init(id="r1")
    outage.on = outage.late = True
    for step in range(5):
        run.log({"n": step})
    wait_until(lambda: outage.refused >= 2, description="two lost answers")
    outage.on = False
    run.finish()
    assert row_values(store) == [{"n": step} for step in range(5)]
    assert store.client.xlen(store.keys.run("r1", "history")) == 5


def test_a_temporary_refusal_is_waited_for_too(store: Store, outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    run = resweep.init(id="r1")
    outage.error = StoreRefusedError("redis://x is out of memory; raise maxmemory", temporary=True)
    outage.on = True
    run.log({"n": 1})
    wait_until(lambda: outage.refused >= 2, description="two tries")
    outage.on = False
    run.finish()
    assert row_values(store) == [{"n": 1}]
    assert caplog.text.count("run r1 goes on and keeps what it logs, because redis://x is out of memory") == 1
    assert "run r1 logs to Redis again" in caplog.text


def test_rows_wait_while_redis_has_forgotten_the_claim(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis was rolled back to the attempt before; the script may write before its agent has adopted the run."""
    agent = begin_attempt(store, monkeypatch)
    record = store.keys.run(agent.run.token.run_id)
    backup: dict[Any, Any] = store.client.hgetall(record)
    agent.end(1, preempted=True)
    agent.take()
    enter_attempt(store, monkeypatch, agent)
    with resweep.init() as run:
        store.client.delete(record)
        store.client.hset(record, mapping=backup)
        run.log({"n": 1})
        wait_until(lambda: "goes on and keeps what it logs" in caplog.text, description="a write that must wait")
        assert agent.adopt().hold is Hold.OWNER
    assert [(row.attempt, row.values["n"]) for row in store.history(run.id)] == [(2, 1)]


def test_what_finish_cannot_send_is_kept_and_said_and_synced(
    store: Store, outage: Outage, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.5")
    run = resweep.init(id="r1")
    run.log({"n": 0})
    wait_until(lambda: row_values(store), description="the first row")
    outage.on = True
    for step in range(1, 4):
        run.log({"n": step})
    run.config.update({"late": 1})
    run.finish(3)
    assert (
        f"run r1: 3 rows could not be sent within 0.5 s and are kept in a file; send them with: resweep sync {tmp_path}"
        in (caplog.text)
    )
    report = sync(tmp_path)
    assert [file.outcome for file in report.files] == [SyncOutcome.UNAVAILABLE]
    assert not report.complete
    outage.on = False
    report = sync(tmp_path)
    assert [(file.outcome, file.rows, file.stored) for file in report.files] == [(SyncOutcome.STORED, 3, 3)]
    assert str(report).startswith("run r1: 3 rows stored (")
    assert row_values(store) == [{"n": step} for step in range(4)]
    record = store.run("r1")
    assert (record.state, record.exit_code, record.summary, record.config["late"]) == (RunState.FAILED, 3, {"n": 3}, 1)
    assert spilled(tmp_path) == []
    assert str(sync(tmp_path)) == "no rows wait in files here"


def test_an_end_that_finish_cannot_send_is_said_too(
    store: Store, outage: Outage, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are stored: without a word nobody would know why the run is still `running`."""
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.5")
    run = resweep.init(id="r1")
    run.log({"n": 0})
    wait_until(lambda: store.run("r1").summary == {"n": 0}, description="the row and the summary")
    outage.on = True
    run.finish(3)
    assert (
        f"run r1: its end could not be sent within 0.5 s and is kept in a file; send it with: resweep sync {tmp_path}"
        in caplog.text
    )
    outage.on = False
    assert sync(tmp_path).complete
    assert (store.run("r1").state, store.run("r1").exit_code) == (RunState.FAILED, 3)


@pytest.fixture
def hung(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Redis hangs from the first row on: the thread that sends is in a call that does not return. Set when it is."""
    reached, over = threading.Event(), threading.Event()

    def hang(*arguments: Any, **named: Any) -> Any:
        reached.set()
        over.wait(60)
        raise StoreUnavailableError("redis://x does not answer")

    monkeypatch.setattr(Store, "log", hang)
    yield reached
    over.set()


def rows_in_files(directory: Path) -> list[int]:
    lines = [json.loads(line) for path in spilled(directory) for line in path.read_text().splitlines()]
    return [line["step"] for line in lines if "row" in line]


def log_while_hung(run: resweep.Run, hung: threading.Event) -> None:
    """Two rows are on their way, and two wait."""
    for step in range(4):
        run.log({"n": step})
        if step == 1:
            assert hung.wait(10)


@pytest.mark.parametrize("finishes", [False, True])
def test_what_interrupts_finish_leaves_the_rows_in_a_file(
    hung: threading.Event,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    finishes: bool,
) -> None:
    """A signal's handler ends the script, with or without a `finish` of its own."""
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "1.5" if finishes else "60")

    def leave(*_: object) -> None:
        if finishes:
            resweep.finish(1)
            assert rows_in_files(tmp_path) == [0, 1, 2, 3], "a handler may go on with os._exit()"
        sys.exit(1)

    run = resweep.init(id="r1")
    log_while_hung(run, hung)
    before = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(SystemExit):
            run.finish(3)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rows_in_files(tmp_path) == [0, 1, 2, 3]
    assert '{"exit_code":3}' in spilled(tmp_path)[0].read_text()
    assert caplog.text.count("run r1: 4 rows could not be sent") == 1
    assert resweep.run is None


def test_finish_waits_for_the_finish_of_another_thread(
    hung: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it returns the process may end, and its threads with it."""
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.5")
    run = resweep.init(id="r1")
    log_while_hung(run, hung)
    threading.Thread(target=run.finish, args=(3,), daemon=True).start()
    wait_until(lambda: run.finished, description="the other finish")
    run.finish(0)
    assert rows_in_files(tmp_path) == [0, 1, 2, 3]
    assert '{"exit_code":3}' in spilled(tmp_path)[0].read_text()


def test_init_sends_what_an_earlier_process_left(
    store: Store, outage: Outage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.5")
    run = resweep.init(id="r1")
    outage.on = True
    run.log({"n": 0})
    run.log({"n": 1})
    run.finish(1)
    outage.on = False
    run = resweep.init(id="r1", resume="allow")
    assert run.starting_step == 2
    assert spilled(tmp_path) == []


def test_a_stale_attempt_falls_silent(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    run.log({"n": 0})
    wait_until(lambda: row_values(store, "run0"), description="the first row")
    agent.end(None, preempted=True)
    Agent(store, "b").take()
    (tmp_path / "model.pt").write_text("stale")
    assert run.save_checkpoint("model.pt") == Path("model.pt")
    run.log({"n": 1})
    assert run.mark_preempting() is False
    run.finish()
    assert row_values(store, "run0") == [{"n": 0}]
    record = store.run("run0")
    assert (record.checkpoint, record.state) == (None, RunState.RUNNING)
    assert caplog.text.count("run run0 was taken over by another attempt; this process logs nothing more") == 1
    assert list((tmp_path / "resweep" / "checkpoints" / "run0").iterdir()) == []
    assert spilled(tmp_path) == []


def test_a_run_that_was_removed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run = resweep.init(id="r1")
    store.client.flushall()
    run.log({"n": 0})
    run.finish()
    assert "run r1 was removed; this process logs nothing more" in caplog.text


def test_late_rows_of_an_ended_attempt_are_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    agent.end(0)
    run.log({"n": 0})
    run.finish()
    assert row_values(store, "run0") == [{"n": 0}]


def test_spilled_rows_of_a_stale_attempt_are_refused_by_sync(
    store: Store, monkeypatch: pytest.MonkeyPatch, outage: Outage, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch)
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0.5")
    run = resweep.init()
    outage.on = True
    run.log({"n": 0})
    run.finish()
    outage.on = False
    agent.end(None, preempted=True)
    Agent(store, "b").take()
    (file,) = sync(tmp_path).files
    assert (file.outcome, file.rows, file.stored) == (SyncOutcome.REFUSED, 1, 0)
    assert "1 rows dropped, because the run was taken over by another attempt" in str(file)
    assert spilled(tmp_path) == []
    assert row_values(store, "run0") == []


def test_a_mark_that_cannot_be_sent_is_sent_later(
    store: Store, monkeypatch: pytest.MonkeyPatch, outage: Outage
) -> None:
    monkeypatch.setenv("RESWEEP_MARK_TIMEOUT", "0.2")
    begin_attempt(store, monkeypatch)
    run = resweep.init()
    outage.on = True
    assert run.mark_preempting() is False
    assert run.preempting
    assert store.run("run0").state is RunState.RUNNING
    outage.on = False
    wait_until(lambda: store.run("run0").state is RunState.PREEMPTING, description="the mark")


def test_a_bug_in_sending_does_not_end_the_thread(
    store: Store, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    run = resweep.init(id="r1")
    outage.error = ZeroDivisionError("a bug")
    outage.on = True
    run.log({"n": 0})
    wait_until(lambda: outage.refused >= 2, description="two tries")
    outage.on = False
    run.finish()
    assert row_values(store) == [{"n": 0}]
    assert "sending failed (ZeroDivisionError: a bug)" in caplog.text


def test_two_writers_of_one_attempt_are_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    agent = begin_attempt(store, monkeypatch)
    run = resweep.init()
    agent.log(0, 1)
    run.log({"n": 0})
    run.finish()
    assert "run run0: another process logs to the same attempt, and rows of one of them are lost" in caplog.text


def test_offline_rows_make_a_run_when_they_are_synced(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with resweep.init(
        id="r1", mode="offline", resume="must", config={"lr": 1}, name="a", tags=["t"], notes="n", group="g"
    ) as run:
        assert run.mark_preempting() is False
        for step in range(1500):
            run.log({"n": step})
        run.config.late = 2
        run.summary["best"] = 7
    assert (
        "`resume` will be ignored since resweep is set to `offline`. Starting a new run with run id r1." in caplog.text
    )
    assert store.project_runs() == []
    assert sync(tmp_path).stored == 1500
    record = store.run("r1")
    assert (record.state, record.name, record.tags, record.notes, record.group) == (
        RunState.FINISHED,
        "a",
        ("t",),
        "n",
        "g",
    )
    assert (record.config, record.summary) == ({"lr": 1, "late": 2}, {"n": 1499, "best": 7})
    assert row_values(store) == [{"n": step} for step in range(1500)]


def test_offline_rows_wait_while_another_process_runs_the_run(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old file must not end a training that began since, from another directory."""
    with resweep.init(id="r1", mode="offline") as run:
        run.log({"n": 0})
    (tmp_path / "elsewhere").mkdir()
    live = resweep.init(id="r1", resume="allow", dir="elsewhere")
    live.log({"n": 1})
    wait_until(lambda: row_values(store), description="the row of the live run")
    clock.advance(50)
    (file,) = sync(tmp_path).files
    assert (file.outcome, store.run("r1").state) == (SyncOutcome.UNAVAILABLE, RunState.RUNNING)
    assert (
        "run r1: 1 rows kept for later, because another process runs the run now (it was heard 50 s ago) and would be "
        "taken over; sync again when that has ended, or was not heard for 60 s"
    ) in str(file)
    live.log({"n": 2})
    live.finish()
    assert [(row.attempt, row.values["n"]) for row in store.history("r1")] == [(1, 1), (1, 2)]
    assert sync(tmp_path).complete


@pytest.mark.parametrize("how", ["silence", "take_over"])
def test_offline_rows_do_not_wait_for_a_run_that_was_given_up(
    store: Store, clock: Clock, tmp_path: Path, how: str
) -> None:
    """A run outside a sweep that is killed without a word stays `running`."""
    with resweep.init(id="r1", mode="offline") as run:
        run.log({"n": 0})
    store.init_run(run_id="r1", resume="allow", nonce="killed", config={}, meta=RunMeta())
    if how == "silence":
        clock.advance(61)
    assert sync(tmp_path, take_over=how == "take_over").stored == 1
    assert store.run("r1").state is RunState.FINISHED


def test_offline_rows_of_several_processes_are_sent_one_after_the_other(store: Store, tmp_path: Path) -> None:
    """The first one was killed, so that the run is running after its rows are there."""
    for number in range(2):
        with resweep.init(id="r1", mode="offline") as run:
            run.log({"n": number}, step=number)
    first = spilled(tmp_path)[0]
    first.write_text("".join(line for line in first.read_text().splitlines(True) if "exit_code" not in line))
    os.utime(first, (1, 1))
    assert {file.outcome for file in sync(tmp_path).files} == {SyncOutcome.STORED}
    assert len(row_values(store)) == 2


def test_summary_that_changes_while_it_is_written_down_is_written_again(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = Outbox.note
    notes: list[dict[str, Any]] = []

    def change_meanwhile(outbox: Outbox, **facts: Any) -> None:
        note(outbox, **facts)
        notes.append(facts)
        if len(notes) == 1:
            run.summary["best"] = 7

    monkeypatch.setattr(Outbox, "note", change_meanwhile)
    with resweep.init(id="r1", mode="offline") as run:
        run.log({"n": 0}, step=0)
        run.log({"n": 1}, step=1)
        wait_until(lambda: notes, description="the first summary to be written down")
    sync(tmp_path)
    assert store.run("r1").summary == {"n": 1, "best": 7}


def test_what_a_hurried_end_leaves_behind_is_complete(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`finish` gives up while the thread is somewhere in the midst of its work."""
    monkeypatch.setenv("RESWEEP_FINISH_TIMEOUT", "0")
    for number in range(20):
        run_id = f"r{number}"
        with resweep.init(id=run_id, mode="offline") as run:
            for step in range(100):
                run.log({"n": step})
            run.config.late = number
            run.summary["best"] = number
        assert sync(tmp_path).complete
        record = store.run(run_id)
        assert (record.state, record.step) == (RunState.FINISHED, 99)
        assert (record.config, record.summary) == ({"late": number}, {"n": 99, "best": number})


def test_offline_rows_of_an_attempt_count_for_its_search(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch, metric_name="loss", metric_goal="minimize")
    with resweep.init(mode="offline", config={"own": 1}) as run:
        run.log({"loss": 2.5})
    agent.end(0)
    assert sync(tmp_path).stored == 1
    record = store.run("run0")
    assert (record.metric, record.config["own"], record.state) == (2.5, 1, RunState.FINISHED)


def test_rows_carry_the_metric_where_runs_are_stopped_early(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value once, in order, whatever else the rows have."""
    begin_attempt(store, monkeypatch, metric_name="val.loss", metric_goal="minimize", stopping=hyperband(1, 2))
    with resweep.init() as run:
        for step in range(3):
            run.log({"val": {"loss": step / 2}, "n": step}, step=2 * step)
            run.log({"late": 1}, step=2 * step)
            run.log({"n": 1}, step=2 * step + 1)
    assert [(point.step, point.value) for point in store.curve("run0")] == [(0, 0.0), (2, 0.5), (4, 1.0)]
    record = store.search_runs(SWEEP)[0]
    assert (record.metric, record.last) == (0.0, 1.0)


def test_rows_that_finish_sends_stop_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script is over: its last values count for the others only."""
    agent = begin_attempt(store, monkeypatch, metric_name="loss", metric_goal="minimize", stopping=hyperband(1))
    store.client.zadd(store.keys.sweep(SWEEP, "level:1"), {"better": 0.0})
    monkeypatch.setattr("resweep.sender.INTERVAL", 60.0)
    with resweep.init() as run:
        run.log({"loss": 9.0})
    assert (len(store.curve("run0")), agent.heartbeat().stop) == (1, "")


def test_offline_rows_of_an_attempt_draw_its_curve(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agent = begin_attempt(store, monkeypatch, metric_name="loss", metric_goal="minimize", stopping=hyperband(1))
    with resweep.init(mode="offline") as run:
        run.log({"loss": 2.5})
        run.log({"loss": 2.25})
    agent.end(0)
    assert sync(tmp_path).stored == 2
    assert [point.value for point in store.curve("run0")] == [2.5, 2.25]
    assert store.search_runs(SWEEP)[0].last == 2.25


def test_a_metric_of_the_summary_alone_counts_for_the_search(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_attempt(store, monkeypatch, metric_name="loss", metric_goal="minimize")
    with resweep.init() as run:
        run.log({"n": 1})
        run.summary["loss"] = 3.5
    record = store.search_runs(SWEEP)[0]
    assert (record.metric, record.last) == (3.5, 3.5)


def test_a_sync_that_was_cut_short_is_repeated_without_doubling(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with resweep.init(id="r1", mode="offline") as run:
        for step in range(1200):
            run.log({"n": step})
    calls = iter([False, True])
    log = Store.log

    def cut(self: Store, *arguments: Any, **named: Any) -> Any:
        if next(calls, False):
            raise StoreUnavailableError("cut")
        return log(self, *arguments, **named)

    monkeypatch.setattr(Store, "log", cut)
    assert [file.outcome for file in sync(tmp_path).files] == [SyncOutcome.UNAVAILABLE]
    assert sync(tmp_path).complete
    assert row_values(store) == [{"n": step} for step in range(1200)]
    assert store.run("r1").attempt == 1


def test_sync_leaves_alone_what_is_no_spill_file_or_in_use(store: Store, tmp_path: Path) -> None:
    spill_folder(tmp_path).mkdir(parents=True)
    (spill_folder(tmp_path) / "other.jsonl").write_text("no header\n")
    (spill_folder(tmp_path) / "newer.jsonl").write_text(json.dumps({"resweep_spill": 99}) + "\n")
    (spill_folder(tmp_path) / "empty.jsonl").write_text("")
    file = SpillFile(spill_folder(tmp_path) / "mine.jsonl", HEADER)
    file.append([Row(1, 1, {})])
    outcomes = {found.path.stem: found.outcome for found in sync(tmp_path).files}
    assert outcomes == {
        "other": SyncOutcome.UNREADABLE,
        "newer": SyncOutcome.UNREADABLE,
        "empty": SyncOutcome.UNREADABLE,
        "mine": SyncOutcome.IN_USE,
    }
    assert len(spilled(tmp_path)) == 4
    file.remove()


@pytest.mark.parametrize("after", ["glob", "header", "open", "lock"])
def test_files_that_vanish_while_sync_looks_are_passed_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """The processes of other runs send and remove their files meanwhile, in the same folder."""
    for run_id in ("r1", "r2"):
        with resweep.init(id=run_id, mode="offline") as run:
            run.log({"n": 0})
    vanishing, staying = spilled(tmp_path)
    places: dict[str, Any] = {"glob": (Path, "glob"), "header": (Header, "decode"), "open": (os, "open")}
    owner, name = places.get(after, (syncing, "lock"))
    call = getattr(owner, name)

    def vanish(*arguments: Any, **named: Any) -> Any:
        answer = call(*arguments, **named)
        if name == "glob":
            answer = list(answer)
        vanishing.unlink(missing_ok=True)
        return answer

    monkeypatch.setattr(owner, name, vanish)
    report = sync(tmp_path)
    assert [file.path for file in report.files if file.outcome is SyncOutcome.STORED] == [staying]
    assert report.complete


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("not yours")])
def test_init_goes_on_when_files_of_other_processes_cannot_be_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    with resweep.init(id="r1", mode="offline") as run:
        run.log({"n": 0})

    def fail(*_: Any) -> Any:
        raise error

    monkeypatch.setattr("resweep.sync._spill_files", fail)
    with resweep.init(id="r1", resume="allow") as run:
        assert run.id == "r1"


def test_sync_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(resweep.UsageError, match="does not exist; give the dir of the run"):
        sync(tmp_path / "nowhere")
