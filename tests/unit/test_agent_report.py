"""How the end of a child becomes a report, and how the report comes through."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.launching import FakeChild
from support.stores import Agent, make_offer, make_sweep

from resweep_agent.launch import Exit
from resweep_agent.noticefile import NoticeFile
from resweep_agent.output import OutputStream
from resweep_agent.report import deliver, end_of
from resweep_agent.watch import Attempt
from resweep_scheduler.store import ClaimedRun, ClaimToken, EndRequest, Hold, RunState, Store

TOKEN = ClaimToken("r", 1, "n.1")


class Silent:
    def write(self, data: bytes) -> None:
        """Show nothing."""


def attempt(child: FakeChild | None = None, notice_file: Path = Path("/nowhere/notice")) -> Attempt:
    run = ClaimedRun(TOKEN, 0, {}, resumed=False, step=None, checkpoint=None, claimed_at=1)
    output = OutputStream(-1, Path("x"), Silent(), "")
    return Attempt(run, child or FakeChild(), output, started=0.0, notice_file=NoticeFile(notice_file))


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Exit(0, None), ""),
        (Exit(3, None), "exit code 3"),
        (Exit(None, 9), "signal 9 (SIGKILL)"),
        (Exit(None, None), "no exit status"),
    ],
)
def test_an_end_by_itself_is_reported_as_it_was(ended: Exit, reason: str) -> None:
    assert end_of(attempt(), ended, marks=True) == EndRequest(TOKEN, ended.code, ended.signal, reason)


def test_after_a_notice_the_end_counts_as_preempting_unless_that_is_switched_off() -> None:
    noticed = attempt()
    noticed.give_notice("SIGTERM", signal.SIGTERM, kill_at=30.0)
    ended = Exit(None, signal.SIGTERM)
    assert end_of(noticed, ended, marks=True) == EndRequest(TOKEN, None, 15, "notice: SIGTERM", preempted=True)
    assert end_of(noticed, ended, marks=False) == EndRequest(TOKEN, None, 15, "notice: SIGTERM")


def test_what_a_person_stopped_is_reported_as_killed_even_if_a_notice_came_too() -> None:
    stopped = attempt()
    stopped.stop("stopped by user", grace=5.0, now=1.0)
    stopped.give_notice("SIGTERM", signal.SIGTERM, kill_at=30.0)
    report = end_of(stopped, Exit(None, 9), marks=True)
    assert (report.killed, report.reason) == (True, "stopped by user")


def test_a_child_gets_the_signal_once_and_sigkill_when_its_time_is_over() -> None:
    child = FakeChild()
    watched = attempt(child)
    watched.give_notice("SIGTERM", signal.SIGUSR1, kill_at=40.0)
    watched.give_notice("SIGTERM", signal.SIGUSR1, kill_at=90.0)
    assert watched.step(39.9) is None
    assert child.signals == [signal.SIGUSR1]
    assert watched.step(40.0) is None
    assert child.signals == [signal.SIGUSR1, signal.SIGKILL]


def test_who_watches_the_notice_file_is_told_by_it_alone_and_the_patience_is_the_same(tmp_path: Path) -> None:
    child, path = FakeChild(), tmp_path / "attempt-1" / "notice-n.1"
    watched = attempt(child, path)
    watched.notice_file.prepare()
    path.with_name("notice-n.2.watched-7").touch()  # of another attempt
    assert not watched.notice_file.watched
    path.with_name("notice-n.1.watched-7").touch()
    watched.give_notice("spot interruption", signal.SIGTERM, kill_at=40.0)
    assert path.read_text() == "preempting spot interruption\n"
    assert child.signals == []
    watched.step(40.0)
    assert child.signals == [signal.SIGKILL]


def test_a_notice_file_that_cannot_be_written_leaves_it_to_the_signal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "attempt-1").touch()  # no folder can be made here
    child, path = FakeChild(), tmp_path / "attempt-1" / "notice"
    watched = attempt(child, path)
    watched.notice_file.prepare()
    watched.give_notice("SIGTERM", signal.SIGTERM, kill_at=40.0)
    assert child.signals == [signal.SIGTERM]
    assert "notice-file-failed" in caplog.text
    assert "the signal tells it alone" in caplog.text


def test_a_stop_sends_its_signal_to_those_who_watch_the_notice_file_too(tmp_path: Path) -> None:
    child, path = FakeChild(), tmp_path / "notice"
    path.with_name("notice.watched-7").touch()
    watched = attempt(child, path)
    watched.stop("stopped by user", grace=5.0, now=1.0)
    watched.give_notice("spot", signal.SIGTERM, kill_at=3.0)
    assert path.read_text() == "stop stopped by user\n"
    assert child.signals == [signal.SIGTERM, signal.SIGTERM]


def test_a_notice_without_a_signal_is_the_file_and_sigkill(tmp_path: Path) -> None:
    child, path = FakeChild(), tmp_path / "notice"
    watched = attempt(child, path)
    watched.give_notice("SIGTERM", None, kill_at=40.0)
    assert path.exists()
    assert child.signals == []
    assert watched.due(10.0) == 40.0


def test_a_notice_after_a_stop_can_only_shorten_the_patience() -> None:
    watched = attempt()
    watched.stop("x", grace=5.0, now=10.0)
    watched.give_notice("SIGTERM", signal.SIGTERM, kill_at=99.0)
    assert watched.kill_at == 15.0


def test_a_run_that_belongs_to_another_attempt_is_killed_at_once() -> None:
    child = FakeChild()
    watched = attempt(child)
    watched.fence()
    assert (watched.fenced, child.signals) == (True, [signal.SIGKILL])


def test_a_store_that_forgot_the_claim_in_a_rollback_is_told_of_it_before_the_end(store: Store) -> None:
    make_sweep(store)
    agent = Agent(store)
    run = agent.take(make_offer(1))
    key = store.keys.run(run.token.run_id)
    # As an older snapshot has it: suggested, never claimed.
    store.client.hset(key, mapping={"state": "pending", "attempt": "0", "nonce": ""})
    answer = deliver(store, EndRequest(run.token, 0), run, sweep_id="sweep1", agent="a", lease_ms=60_000)
    assert (answer.hold, answer.state) == (Hold.OWNER, RunState.FINISHED)


def test_a_report_of_a_stale_attempt_is_refused(store: Store) -> None:
    make_sweep(store)
    old = Agent(store, preemptible=True)
    run = old.take(make_offer(1))
    Agent(store, session="newer").take()
    answer = deliver(store, EndRequest(run.token, 0), run, sweep_id="sweep1", agent="a", lease_ms=60_000)
    assert answer.hold is Hold.STALE
    assert store.run(run.token.run_id).state is RunState.RUNNING
