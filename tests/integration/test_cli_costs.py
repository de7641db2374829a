"""What `run`, `show` and `gantt` tell of attempts, time lost and goodput."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from support.desk import Say
from support.servers import Server
from support.sweeps import Story

from resweep_scheduler.cli.main import run


@pytest.fixture
def story(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    return Story(shared_server.url)


@pytest.fixture
def told(story: Story) -> list[str]:
    """Runs that finished, failed, and wait on the run queue."""
    return [story.finish(0.9), story.fail(), story.preempt()]


def test_run_and_show_tell_what_preemption_cost(story: Story, say: Say) -> None:
    """One run is preempted after a checkpoint and finished by a second attempt, one fails."""
    first = story.claim()
    story.log(first.token, {0: {"accuracy": 0.1}, 1: {"accuracy": 0.2}})
    story.store.commit_checkpoint(first.token, path="/c", step=0, after=2)
    story.store.mark_preempting(first.token, reason="notice: SIGTERM")
    story.end(first.token, 75)
    second = story.claim()
    story.log(second.token, {1: {"accuracy": 0.3}})
    story.end(second.token)
    story.fail()
    cost = json.loads(say("run", first.token.run_id, "--json"))["cost"]
    one, two = cost["attempts"]
    assert (one["ended"], one["exit_code"], one["agent"], one["lost_steps"]) == ("preempted", 75, "box-0", 1)
    assert one["notice"] == {"at": one["notice"]["at"], "source": "SIGTERM", "lead_seconds": None}
    assert (two["ended"], two["lost_seconds"], two["queue_wait_seconds"]) == (
        "finished",
        0,
        cost["queue_wait_seconds"][0],
    )
    assert cost["spent_seconds"] == pytest.approx(one["spent_seconds"] + two["spent_seconds"])
    shown = json.loads(say("show", story.sweep_id, "--json"))["cost"]
    assert (shown["attempts"], shown["notices"]) == (3, {"SIGTERM": 1})
    assert shown["ended"] == {"preempted": 1, "finished": 1, "failed": 1}
    assert (shown["lost_steps"], shown["queue_wait_seconds"]["count"]) == (1, 1)
    text = say("run", first.token.run_id)
    assert re.search(r"^ +1  box-0 +[\d:]+ +[\d.]+ s  preempted  SIGTERM +– +[\d.]+ s, 1 step$", text, re.MULTILINE), (
        text
    )
    assert "goodput" in text
    text = say("show", story.sweep_id)
    assert "3: 1 finished, 1 preempted, 1 failed" in text
    assert re.search(r"^notices +1 SIGTERM$", text, re.MULTILINE)
    assert re.search(r"^goodput +[\d.]+ %$", text, re.MULTILINE)


def test_a_sweep_without_attempts_says_nothing_of_cost(story: Story, say: Say) -> None:
    assert "goodput" not in say("show", story.sweep_id)
    assert json.loads(say("show", story.sweep_id, "--json"))["cost"]["goodput"] is None


@pytest.mark.parametrize("kind", [".svg", ".html", ".png"])
def test_gantt_draws_a_sweep(story: Story, told: list[str], say: Say, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"picture{kind}"
    say("gantt", story.sweep_id, "-o", str(file))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    content = file.read_bytes()
    if kind == ".png":
        assert content.startswith(b"\x89PNG")
    else:
        assert all(content.count(f'data-run="{run}"'.encode()) == 1 for run in told)


def test_gantt_without_a_file_is_named_after_the_sweep(
    story: Story, told: list[str], say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    say("gantt", story.sweep_id)
    assert [path.name for path in tmp_path.iterdir()] == [f"{story.sweep_id}.svg"]


def test_gantt_says_what_it_cannot_draw(
    story: Story, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run(["gantt", story.sweep_id, "-o", "picture.pdf"]) == 2
    assert "one of .svg, .html, .png; got 'picture.pdf'" in capsys.readouterr().err
    assert run(["gantt", story.sweep_id, "-o", str(tmp_path / "no" / "picture.svg")]) == 2
    assert "choose another file" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    assert run(["gantt", story.sweep_id, "-o", str(tmp_path / "picture.png")]) == 2
    assert "pip install 'resweep[png]', or write an .svg" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
