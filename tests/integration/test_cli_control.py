"""The commands that tell sweeps and runs what to do."""

from __future__ import annotations

import pytest
from support.servers import Server
from support.sweeps import Story

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.main import run
from resweep_scheduler.store import Hold, RunState, SweepState, UnknownRunError, UnknownSweepError


@pytest.fixture
def story(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    return Story(shared_server.url)


def state_of(story: Story) -> SweepState:
    return story.store.sweep(story.sweep_id).state


def test_pause_resume_stop_resume_cancel_resume(story: Story) -> None:
    story.claim()
    for command, state in (
        ("pause", SweepState.PAUSED),
        ("pause", SweepState.PAUSED),
        ("resume", SweepState.RUNNING),
        ("stop", SweepState.FINISHED),
        ("resume", SweepState.RUNNING),
        ("cancel", SweepState.CANCELED),
        ("resume", SweepState.RUNNING),
    ):
        assert run([command, story.sweep_id]) == 0
        assert state_of(story) is state


@pytest.mark.parametrize(
    ("command", "words"), [("pause", "Cannot pause finished sweep."), ("stop", "already finished")]
)
def test_a_sweep_that_is_over_cannot_be_paused_or_stopped(
    story: Story, capsys: pytest.CaptureFixture[str], command: str, words: str
) -> None:
    run(["cancel", story.sweep_id])
    capsys.readouterr()
    assert run([command, story.sweep_id]) == ExitCode.ILLEGAL_STATE
    line = capsys.readouterr().err
    assert words in line
    assert f"resweep resume {story.sweep_id}" in line
    assert line.count("\n") == 1
    assert state_of(story) is SweepState.CANCELED


def test_stop_of_a_run_tells_its_agent(story: Story) -> None:
    claimed = story.claim()
    assert run(["stop", "--run", claimed.token.run_id]) == 0
    answer = story.store.heartbeat(story.sweep_id, agent="box-0", token=claimed.token, lease_ms=60_000)
    assert (answer.hold, answer.stop) == (Hold.OWNER, "stopped by user")


def test_stop_of_a_waiting_run_kills_it_and_of_an_ended_one_is_refused(
    story: Story, capsys: pytest.CaptureFixture[str]
) -> None:
    queued = story.preempt()
    assert run(["stop", "--run", queued]) == 0
    assert story.store.run(queued).state is RunState.KILLED
    capsys.readouterr()
    assert run(["stop", "--run", queued]) == ExitCode.ILLEGAL_STATE
    assert f"run {queued} is killed" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["nobody", "ended"])
def test_stop_of_several_runs_stops_none_when_one_cannot_be_stopped(
    story: Story, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    ended = story.finish(0.1)
    queued = story.preempt()
    capsys.readouterr()
    assert run(["stop", "--run", queued, "--run", ended if wrong == "ended" else wrong]) != 0
    assert (ended if wrong == "ended" else wrong) in capsys.readouterr().err
    assert story.store.run(queued).state is RunState.PREEMPTED
    assert run(["stop", "--run", queued, "--run", queued]) == 0
    assert story.store.run(queued).state is RunState.KILLED


@pytest.mark.parametrize("command", ["stop", "rm"])
def test_a_sweep_or_runs_but_not_both_and_not_nothing(
    story: Story, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert run([command]) == ExitCode.USAGE
    assert run([command, story.sweep_id, "--run", "x"]) == ExitCode.USAGE
    assert "give a sweep, or runs with --run" in capsys.readouterr().err


def test_retry_by_kind_and_by_id(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    failed = story.fail()
    crashed = story.claim().token
    story.end(crashed, None, signal=9)
    finished = story.finish(0.5)
    capsys.readouterr()
    assert run(["retry", story.sweep_id, "--failed"]) == 0
    assert capsys.readouterr().out.split() == [failed]
    assert run(["retry", story.sweep_id, crashed.run_id]) == 0
    assert capsys.readouterr().out.split() == [crashed.run_id]
    assert story.store.sweep(story.sweep_id).queue == (failed, crashed.run_id)
    assert run(["retry", story.sweep_id, finished]) == ExitCode.ILLEGAL_STATE
    assert f"run {finished} is finished" in capsys.readouterr().err
    assert run(["retry", story.sweep_id, "nobody"]) == ExitCode.UNKNOWN
    assert run(["retry", story.sweep_id]) == ExitCode.USAGE
    capsys.readouterr()
    assert run(["retry", story.sweep_id, "--failed", "--crashed", "--killed"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "nothing to retry" in captured.err


def test_retry_opens_a_finished_sweep_again(story: Story) -> None:
    runs = [story.finish(0.1), story.finish(0.2), story.finish(0.3), story.fail()]
    assert state_of(story) is SweepState.FINISHED
    assert run(["retry", story.sweep_id, "--failed"]) == 0
    assert state_of(story) is SweepState.RUNNING
    again = story.claim()
    assert (again.token.run_id, again.token.attempt) == (runs[-1], 2)


def test_rm_asks_and_refuses_while_runs_run(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    claimed = story.claim()
    assert run(["rm", "-y", story.sweep_id]) == ExitCode.ILLEGAL_STATE
    assert run(["rm", "-y", "--run", claimed.token.run_id]) == ExitCode.ILLEGAL_STATE
    story.end(claimed.token)
    capsys.readouterr()
    assert run(["rm", story.sweep_id]) == ExitCode.USAGE, "there is no terminal to ask on"
    assert "--yes" in capsys.readouterr().err
    assert state_of(story) is SweepState.RUNNING
    assert run(["rm", "-y", story.sweep_id]) == 0
    with pytest.raises(UnknownSweepError):
        story.store.sweep(story.sweep_id)


def test_rm_of_a_run(story: Story) -> None:
    kept, removed = story.finish(0.1), story.finish(0.2)
    assert run(["rm", "-y", "--run", removed]) == 0
    assert [one.run_id for one in story.store.runs(story.sweep_id)] == [kept]
    with pytest.raises(UnknownRunError):
        story.store.run(removed)


@pytest.mark.parametrize("wrong", ["nobody", "running"])
def test_rm_of_several_runs_removes_none_when_one_cannot_be_removed(
    story: Story, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    kept = story.finish(0.1)
    running = story.claim().token.run_id
    capsys.readouterr()
    assert run(["rm", "-y", "--run", kept, "--run", running if wrong == "running" else wrong]) != 0
    assert (running if wrong == "running" else wrong) in capsys.readouterr().err
    assert story.store.run(kept).state is RunState.FINISHED
    assert run(["rm", "--run", kept, "--run", kept]) == ExitCode.USAGE, "there is no terminal to ask on"
    assert run(["rm", "-y", "--run", kept, "--run", kept]) == 0
    with pytest.raises(UnknownRunError):
        story.store.run(kept)
