"""How a script learns that its machine goes: the flag, the callbacks, and what they change in its process."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sdk import begin_attempt, fake_sdk, run_script, start_script
from support.waiting import wait_until

import resweep
from resweep.preemption import NoticeWatch, Preempting
from resweep_agent.noticefile import NoticeFile
from resweep_scheduler.store import Store


@pytest.fixture
def file(tmp_path: Path) -> NoticeFile:
    return NoticeFile(tmp_path / "notice-abcd.1")


@pytest.fixture
def watch(file: NoticeFile) -> Iterator[NoticeWatch]:
    """Of a script whose agent sends no signal, in a thread that is not the main one's business."""
    watch = NoticeWatch(file.path, None)
    yield watch
    watch.close(5.0)


def test_the_flag_is_set_by_a_notice_and_by_nothing_else(watch: NoticeWatch, file: NoticeFile) -> None:
    flag = Preempting(watch)
    assert not flag
    assert not flag.wait(0.0)
    file.write("stop", "stopped by a person")
    assert not flag.wait(0.3)
    file.write("preempting", "SIGTERM")
    assert flag.wait(5.0)
    assert flag
    assert flag.is_set()
    assert repr(flag) == "<preempting: True>"


def test_a_notice_that_came_before_the_first_look_is_seen_by_it(watch: NoticeWatch, file: NoticeFile) -> None:
    file.write("preempting", "SIGTERM")
    assert Preempting(watch).is_set()


def test_the_script_s_own_mark_sets_the_flag_and_calls_nobody(watch: NoticeWatch) -> None:
    flag, called = Preempting(watch), threading.Event()
    watch.call(called.set)
    flag.mark()
    assert flag.wait()
    assert not called.wait(0.3)


def test_callbacks_are_called_once_and_what_they_raise_is_logged(
    watch: NoticeWatch, file: NoticeFile, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []

    def fails() -> None:
        calls.append("fails")
        raise SystemExit(3)

    watch.call(fails)
    watch.call(lambda: calls.append("second"))
    assert not calls
    file.write("preempting", "SIGTERM")
    wait_until(lambda: calls == ["fails", "second"], description="both calls")
    watch.call(lambda: calls.append("late"))
    watch.close(5.0)
    assert calls == ["fails", "second", "late"]
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "fails" in record.getMessage()
    assert "SystemExit: 3); the training goes on" in record.getMessage()


def test_the_end_waits_for_callbacks_that_run_but_not_for_ever(watch: NoticeWatch, file: NoticeFile) -> None:
    began, go, done = threading.Event(), threading.Event(), threading.Event()

    def save() -> None:
        began.set()
        go.wait(30)
        done.set()

    watch.call(save)
    file.write("preempting", "SIGTERM")
    assert began.wait(5.0)
    watch.close(0.05)
    assert not done.is_set()
    go.set()
    assert done.wait(5.0)


def test_an_end_within_a_callback_does_not_wait_for_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch, file: NoticeFile
) -> None:
    monkeypatch.setenv("RESWEEP_NOTICE_FILE", str(file.path))
    monkeypatch.setenv("RESWEEP_NOTICE_SIGNAL", "none")
    begin_attempt(store, monkeypatch)
    run = resweep.init()
    ended = threading.Event()

    @run.on_preempt
    def leave() -> None:
        run.log({"loss": 1.0})
        run.finish(1)
        ended.set()

    file.write("preempting", "SIGTERM")
    assert ended.wait(10.0)
    assert run.finished
    assert [row.values["loss"] for row in store.history(run.id)] == [1.0]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with fake_sdk(monkeypatch, tmp_path) as store:
        yield store


def test_a_checkpoint_that_a_callback_saves_while_the_loop_ends_is_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch, file: NoticeFile, tmp_path: Path
) -> None:
    monkeypatch.setenv("RESWEEP_NOTICE_FILE", str(file.path))
    monkeypatch.setenv("RESWEEP_NOTICE_SIGNAL", "none")
    begin_attempt(store, monkeypatch)
    (tmp_path / "model").write_text("weights")
    with resweep.init() as run:
        resweep.on_preempt(lambda: run.save_checkpoint("model", step=7))
        run.log({"loss": 1.0})
        file.write("preempting", "SIGTERM")
        assert run.preempting.wait(10.0)
    checkpoint = store.run(run.id).checkpoint
    assert checkpoint is not None
    assert checkpoint.step == 7


def test_only_who_looks_and_would_die_of_the_signal_leaves_a_mark(file: NoticeFile) -> None:
    watch = NoticeWatch(file.path, signal.SIGUSR1)
    assert not file.watched
    assert not watch.told()
    assert file.watched
    watch.close(5.0)
    assert not file.watched

    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        watch = NoticeWatch(file.path, signal.SIGUSR1)
        assert not watch.told()
        assert not file.watched
        watch.close(5.0)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_without_a_folder_the_flag_works_and_no_mark_is_left(tmp_path: Path) -> None:
    watch = NoticeWatch(tmp_path / "gone" / "notice", signal.SIGTERM)
    assert not watch.told()
    watch.close(5.0)


# What is changed in a process is seen in processes of their own.

OFFLINE = "import os, signal, sys, time\nimport resweep\nrun = resweep.init(mode='offline')\n"


def test_a_process_that_does_not_ask_has_no_handler_and_no_thread(tmp_path: Path) -> None:
    script = OFFLINE + (
        "import threading\n"
        "run.log({'loss': 1})\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "assert {thread.name for thread in threading.enumerate()} == {'MainThread', 'resweep-sender'}\n"
        "run.preempting.is_set()\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "assert 'resweep-notice' in {thread.name for thread in threading.enumerate()}\n"
    )
    assert run_script(script, tmp_path) == (0, "", "")


def test_on_preempt_makes_a_signal_a_notice_and_finish_undoes_that(tmp_path: Path) -> None:
    script = OFFLINE + (
        "resweep.on_preempt(lambda: print('called', flush=True))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "assert run.preempting\n"
        "run.finish(1)\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    code, output, _ = run_script(script, tmp_path)
    assert (code, output) == (-signal.SIGTERM, "called\n")


def test_on_preempt_leaves_a_handler_of_the_script_alone(tmp_path: Path) -> None:
    script = OFFLINE + (
        "mine = lambda number, frame: None\n"
        "signal.signal(signal.SIGTERM, mine)\n"
        "run.on_preempt(lambda: None)\n"
        "assert signal.getsignal(signal.SIGTERM) is mine\n"
        "run.finish()\n"
        "assert signal.getsignal(signal.SIGTERM) is mine\n"
    )
    assert run_script(script, tmp_path) == (0, "", "")


def test_on_preempt_outside_the_main_thread_installs_nothing(tmp_path: Path) -> None:
    script = OFFLINE + (
        "import threading\n"
        "thread = threading.Thread(target=run.on_preempt, args=[print])\n"
        "thread.start(); thread.join()\n"
        "assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
    )
    assert run_script(script, tmp_path) == (0, "", "")


@pytest.mark.parametrize("who", ["told to stop by the agent", "a helper process"])
def test_a_signal_that_is_no_notice_ends_the_process_as_before(tmp_path: Path, file: NoticeFile, who: str) -> None:
    script = OFFLINE + (
        "run.on_preempt(lambda: print('called'))\n"
        "pid = os.fork() if sys.argv[1] == 'a helper process' else 0\n"
        "if pid == 0:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(30)\n"
        "    os._exit(0)\n"
        "os._exit(128 + os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    if who == "told to stop by the agent":
        file.write("stop", "by a person")
    environment = {"RESWEEP_NOTICE_FILE": str(file.path), "RESWEEP_NOTICE_SIGNAL": "SIGTERM"}
    code, output, _ = run_script(script, tmp_path, environment, who)
    assert (code, output) == (128 - signal.SIGTERM if who == "a helper process" else -signal.SIGTERM, "")


def test_a_training_that_only_looks_at_the_flag_leaves_by_itself(tmp_path: Path, file: NoticeFile) -> None:
    script = OFFLINE + ("print('begun', flush=True)\nwhile not run.preempting:\n    time.sleep(0.01)\nsys.exit(7)\n")
    environment = {"RESWEEP_NOTICE_FILE": str(file.path), "RESWEEP_NOTICE_SIGNAL": "SIGTERM"}
    with start_script(script, tmp_path, environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        wait_until(lambda: file.watched, description="the mark of the script")
        file.write("preempting", "SIGTERM")
        process.communicate(timeout=30)
    assert process.returncode == 7
    assert not file.watched


def test_a_forked_process_looks_for_itself_and_leaves_the_callbacks_to_its_parent(
    tmp_path: Path, file: NoticeFile
) -> None:
    script = OFFLINE + (
        "calls = []\n"
        "run.on_preempt(lambda: calls.append(os.getpid()))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    print('forked', flush=True)\n"
        "    os._exit(0 if run.preempting.wait(20) and not calls else 1)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "run.finish()\n"
        "assert calls == [os.getpid()]\n"
    )
    with start_script(script, tmp_path, {"RESWEEP_NOTICE_FILE": str(file.path)}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "forked\n"
        file.write("preempting", "SIGTERM")
        process.communicate(timeout=30)
    assert process.returncode == 0
