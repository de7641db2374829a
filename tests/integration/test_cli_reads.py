"""What the reading commands print about a sweep with a past, for people and for programs."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.desk import Say
from support.servers import Server
from support.sweeps import GRID, Story
from support.waiting import wait_until

from resweep_scheduler.cli.access import sweep_ids_at_hand
from resweep_scheduler.cli.main import run
from resweep_scheduler.store import Store, SweepCommand
from resweep_scheduler.store.records import Event


@pytest.fixture
def story(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Story:
    """A grid of four: one finished at 0.9, one at 0.8, one failed, one on the run queue."""
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    return Story(shared_server.url)


@pytest.fixture
def told(story: Story) -> dict[str, str]:
    """The run ids of the story, told to its end, by what became of them."""
    return {"good": story.finish(0.9), "worse": story.finish(0.8), "failed": story.fail(3), "queued": story.preempt()}


def strict_json(text: str) -> Any:
    """JSON as the standard has it: NaN and Infinity are errors."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_ls_shows_sweeps_of_all_projects_and_of_one(shared_server: Server, story: Story, say: Say) -> None:
    other = Story(shared_server.url, scope="lab/digits")
    both = strict_json(say("ls", "--json"))
    assert {sweep["id"]: (sweep["entity"], sweep["project"]) for sweep in both} == {
        story.sweep_id: ("local", "uncategorized"),
        other.sweep_id: ("lab", "digits"),
    }
    only = strict_json(say("ls", "--project", "digits", "--json"))
    assert [sweep["id"] for sweep in only] == [other.sweep_id]
    assert other.sweep_id in say("ls")
    assert story.sweep_id not in say("ls", "--entity", "lab")
    assert strict_json(say("ls", "--state", "finished", "--json")) == []


def test_ls_reads_the_project_of_the_environment(
    shared_server: Server, story: Story, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Story(shared_server.url, scope="lab/digits")
    monkeypatch.setenv("WANDB_PROJECT", "digits")
    assert [sweep["id"] for sweep in strict_json(say("ls", "--json"))] == [other.sweep_id]


def test_show_has_state_queue_and_counts(story: Story, told: dict[str, str], say: Say) -> None:
    shown = strict_json(say("show", story.sweep_id, "--json"))
    assert shown["id"] == story.sweep_id
    assert shown["state"] == "running"
    assert shown["queue"] == [told["queued"]]
    assert {state: count for state, count in shown["counts"].items() if count} == {
        "finished": 2,
        "failed": 1,
        "preempted": 1,
    }
    assert shown["best"]["id"] == told["good"]
    assert shown["missing"] == 2
    assert shown["planned"] == 4
    assert [agent["agent"] for agent in shown["agents"]] == ["box-0"]
    text = say("show", story.sweep_id)
    for part in (story.sweep_id, told["queued"], told["good"], "2 finished", "resweep missing"):
        assert part in text
    assert say("show", story.sweep_id, "--config") == GRID


def test_show_says_of_an_agent_that_was_killed_that_it_is_silent(
    shared_server: Server, monkeypatch: pytest.MonkeyPatch, say: Say
) -> None:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    story = Story(shared_server.url, GRID + "lease: {duration: 1}\n", lease_ms=1000)
    assert "box-0  waits" in say("show", story.sweep_id)
    wait_until(lambda: "box-0  silent" in say("show", story.sweep_id), timeout=20, description="more than a lease")
    for number in range(1, 6):
        story.store.register(story.sweep_id, agent=f"box-{number}", session="s", host="box", pid=number)
    shown = functools.partial(say, "show", story.sweep_id)
    wait_until(lambda: "and 3 more that took no leave" in shown(), timeout=20, description="all to be silent")
    assert shown().count("silent") == 3


def test_runs_has_the_promised_fields(story: Story, told: dict[str, str], say: Say) -> None:
    runs = strict_json(say("runs", story.sweep_id, "--json"))
    assert [one["id"] for one in runs] == list(told.values())
    good, _, failed, queued = runs
    promised = ("id", "state", "attempt", "agent", "params", "step", "exit_code", "summary")
    assert all(field in one for one in runs for field in promised)
    assert (good["state"], good["attempt"], good["step"], good["exit_code"]) == ("finished", 1, 0, 0)
    assert good["params"] == {"depth": 2, "lr": 0.1}
    assert good["summary"] == {"accuracy": 0.9}
    assert (failed["state"], failed["exit_code"]) == ("failed", 3)
    assert queued["state"] == "preempted"
    text = say("runs", story.sweep_id)
    assert "exit 3" in text
    assert "lr=0.1 depth=2" in text


def test_runs_are_chosen_by_state_and_ordered_by_metric(story: Story, told: dict[str, str], say: Say) -> None:
    failed = strict_json(say("runs", story.sweep_id, "--state", "failed", "--json"))
    assert [one["id"] for one in failed] == [told["failed"]]
    ordered = strict_json(say("runs", story.sweep_id, "--best-first", "--json"))
    assert [one["metric"] for one in ordered] == [0.9, 0.8, None, None]


def test_best_is_the_largest_of_a_metric_to_maximize(story: Story, told: dict[str, str], say: Say) -> None:
    assert strict_json(say("best", story.sweep_id, "--json"))["id"] == told["good"]
    assert [one["id"] for one in strict_json(say("best", story.sweep_id, "-n", "5", "--json"))] == [
        told["good"],
        told["worse"],
    ]
    text = say("best", story.sweep_id)
    assert told["good"] in text
    assert "accuracy 0.9" in text


def test_missing_lists_all_points_that_are_not_finished(story: Story, say: Say) -> None:
    story.finish(0.5)
    failed = story.fail()
    missing = strict_json(say("missing", story.sweep_id, "--json"))
    assert [(point["index"], point["run"], point["state"]) for point in missing] == [
        (1, failed, "failed"),
        (2, None, None),
        (3, None, None),
    ]
    assert missing[-1]["params"] == {"depth": 4, "lr": 0.01}
    text = say("missing", story.sweep_id)
    assert "not yet run" in text
    assert failed in text


def test_run_tells_the_whole_life(story: Story, told: dict[str, str], say: Say) -> None:
    story.claim()
    shown = strict_json(say("run", told["queued"], "--json"))
    assert (shown["state"], shown["attempt"]) == ("running", 2)
    kinds = [event["kind"] for event in shown["events"]]
    assert kinds == ["suggested", "claimed", "preempting", "preempted", "claimed"]
    text = say("run", told["queued"])
    assert "preempting" in text
    assert story.sweep_id in text


def test_a_run_is_found_without_its_project_unless_two_have_it(
    shared_server: Server, story: Story, say: Say, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Story(shared_server.url, scope="lab/digits")
    run_id = other.finish(0.7)
    assert strict_json(say("run", run_id, "--json"))["id"] == run_id
    assert strict_json(say("run", f"lab/digits/{run_id}", "--json"))["id"] == run_id
    for one in (story, other):
        one.store.init_run(run_id="twin", resume="allow", nonce="n.1")
    assert run(["run", "twin"]) == 2
    assert "local/uncategorized/twin, lab/digits/twin" in capsys.readouterr().err
    assert strict_json(say("run", "twin", "--project", "digits", "--entity", "lab", "--json"))["id"] == "twin"


def test_logs_print_what_the_run_printed(story: Story, say: Say) -> None:
    first = story.claim()
    story.store.append_output(first.token, "epoch 0\n", piece=1)
    story.store.mark_preempting(first.token, reason="script")
    story.end(first.token, 75)
    second = story.claim()
    story.store.append_output(second.token, "epoch 1\n", piece=1)
    run_id = first.token.run_id
    assert say("logs", run_id) == "epoch 0\nepoch 1\n"
    assert say("logs", run_id, "--attempt", "2") == "epoch 1\n"
    story.end(second.token)
    assert say("logs", run_id, "--follow") == "epoch 0\nepoch 1\n"
    assert strict_json(say("logs", run_id, "--json"))[0] == {"attempt": 1, "text": "epoch 0\n"}


def test_history_as_table_json_lines_and_csv(story: Story, say: Say) -> None:
    claimed = story.claim()
    story.log(claimed.token, {0: {"accuracy": 0.5, "loss": math.nan}, 1: {"accuracy": 0.6, "nested": {"a": [1, 2]}}})
    run_id = claimed.token.run_id
    rows = strict_json(say("history", run_id, "--json"))
    assert [(row["_step"], row["accuracy"]) for row in rows] == [(0, 0.5), (1, 0.6)]
    assert rows[0]["loss"] == "NaN"
    lines = [strict_json(line) for line in say("history", run_id, "--format", "jsonl").splitlines()]
    assert lines == rows
    table = list(csv.DictReader(io.StringIO(say("history", run_id, "--format", "csv"))))
    assert [row["accuracy"] for row in table] == ["0.5", "0.6"]
    assert table[1]["nested.a"] == "[1, 2]"
    assert strict_json(say("history", run_id, "--key", "nested", "--json")) == [{"_step": 1, "nested": {"a": [1, 2]}}]
    assert strict_json(say("history", run_id, "--tail", "1", "--json")) == rows[1:]
    assert say("history", run_id).splitlines()[0].split() == ["step", "accuracy", "loss", "nested.a"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_infinities_never_make_invalid_json(story: Story, say: Say, value: float) -> None:
    claimed = story.claim()
    story.log(claimed.token, {0: {"loss": value}})
    for words in (
        ["runs", story.sweep_id],
        ["show", story.sweep_id],
        ["run", claimed.token.run_id],
        ["history", claimed.token.run_id],
    ):
        assert strict_json(say(*words, "--json"))


def test_export_to_stdout_and_file(story: Story, told: dict[str, str], say: Say, tmp_path: Path) -> None:
    lines = [strict_json(line) for line in say("export", story.sweep_id).splitlines()]
    assert lines == strict_json(say("runs", story.sweep_id, "--json"))
    file = tmp_path / "runs.csv"
    assert say("export", story.sweep_id, "--format", "csv", "-o", str(file)) == ""
    table = list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["id"] for row in table] == list(told.values())
    assert table[0]["params.lr"] == "0.1"
    assert table[0]["summary.accuracy"] == "0.9"
    assert [path.name for path in tmp_path.iterdir()] == ["runs.csv"]
    rows = [strict_json(line) for line in say("export", story.sweep_id, "--history").splitlines()]
    assert [(row["run"], row["accuracy"]) for row in rows] == [(told["good"], 0.9), (told["worse"], 0.8)]


def test_watch_without_a_terminal_prints_lines_and_ends_with_the_sweep(
    story: Story, told: dict[str, str], say: Say
) -> None:
    claimed = story.claim()
    story.log(claimed.token, {0: {"accuracy": 0.95}})
    story.end(claimed.token)
    text = say("watch", story.sweep_id)
    assert "finished" in text
    assert "accuracy 0.95" in text


def test_reads_of_an_empty_server_say_what_to_do(
    shared_server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    assert run(["ls"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "resweep create FILE" in captured.err
    assert run(["ls", "--json"]) == 0
    assert strict_json(capsys.readouterr().out) == []


def test_url_may_stand_before_and_after_the_command(story: Story, shared_server: Server, say: Say) -> None:
    words: Sequence[str] = ("ls", "--json")
    before = say("--url", shared_server.url, *words)
    assert before == say(*words, "--url", shared_server.url)
    assert story.sweep_id in before


def test_logs_follow_a_run_to_its_end(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    claimed = story.claim()
    story.store.append_output(claimed.token, "epoch 0\n", piece=1)
    seen: list[int] = []
    follower = threading.Thread(target=lambda: seen.append(run(["logs", "-f", claimed.token.run_id])))
    follower.start()
    printed = ""

    def printed_so_far() -> str:
        nonlocal printed
        printed += capsys.readouterr().out
        return printed

    wait_until(lambda: "epoch 0" in printed_so_far(), description="what was printed before")
    story.store.append_output(claimed.token, "epoch 1\n", piece=2)
    wait_until(lambda: "epoch 1" in printed_so_far(), description="what is printed now")
    assert follower.is_alive()
    story.store.append_output(claimed.token, "done\n", piece=3)
    story.end(claimed.token)
    follower.join(10)
    assert seen == [0]
    assert printed_so_far() == "epoch 0\nepoch 1\ndone\n"


def test_watch_follows_a_sweep_to_its_end(story: Story, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[int] = []
    watcher = threading.Thread(target=lambda: seen.append(run(["watch", "--json", story.sweep_id])))
    watcher.start()
    told = ""

    def kinds() -> list[str]:
        nonlocal told
        told += capsys.readouterr().out
        return [strict_json(line)["kind"] for line in told.splitlines()]

    def happens() -> bool:
        """Something that the watcher cannot miss once it follows: pauses and resumes until it tells of one."""
        for command in (SweepCommand.PAUSE, SweepCommand.RESUME):
            story.store.command_sweep(story.sweep_id, command)
        return "state" in kinds()

    wait_until(happens, interval=0.1, description="the watcher to follow")
    story.preempt()
    story.store.command_sweep(story.sweep_id, SweepCommand.CANCEL)
    watcher.join(20)
    assert seen == [0]
    assert [kind for kind in kinds() if kind != "state"] == ["suggested", "claimed", "preempting", "preempted"]


def test_watch_tells_what_happens_between_its_look_at_the_events_and_at_the_sweep(
    story: Story, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    real_events = Store.events

    def events_and_the_end(*given: Any, **options: Any) -> list[Event]:
        nonlocal looks
        found = real_events(*given, **options)
        looks += 1
        if looks == 1:
            story.preempt()
            story.store.command_sweep(story.sweep_id, SweepCommand.CANCEL)
        return found

    monkeypatch.setattr(Store, "events", events_and_the_end)
    kinds = [strict_json(line)["kind"] for line in say("watch", "--json", story.sweep_id).splitlines()]
    assert [kind for kind in kinds if kind != "state"] == ["suggested", "claimed", "preempting", "preempted"]


def test_the_shell_completes_sweep_ids(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sweep_ids_at_hand(None) == [story.sweep_id]
    monkeypatch.setenv("RESWEEP_URL", "redis://127.0.0.1:1")
    assert sweep_ids_at_hand(None) == []
    monkeypatch.delenv("RESWEEP_URL")
    assert sweep_ids_at_hand(None) == [], "the embedded server is not started for this"


def test_a_terminal_that_knows_ascii_only(story: Story, told: dict[str, str]) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", "from resweep_scheduler.cli.main import main; main()"]
    for words in (["--help"], ["ls"], ["show", story.sweep_id], ["runs", story.sweep_id], ["run", told["good"]]):
        done = subprocess.run([*command, *words], env=environment, capture_output=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, b""), words
        assert done.stdout
