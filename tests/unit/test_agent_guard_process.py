"""What the guard hears, and whom it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest
from support import processes
from support.waiting import wait_until

from resweep_agent import guard_process
from resweep_agent.guard_process import COALESCE, Guard, kill_marked

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    """A process that would live on, with this environment."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import os, time; os.write(1, b'!'); time.sleep(600)"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(1) == b"!"
    process.stdout.close()
    return process


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that are gone at the end."""
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.wait()


@linux_only
def test_only_processes_with_claim_and_run_are_killed(started: list[subprocess.Popen[bytes]]) -> None:
    mine = sleeper(RESWEEP_CLAIM="1:abcd.1", WANDB_RUN_ID="r1")
    others = [
        sleeper(RESWEEP_CLAIM="1:abcd.1", WANDB_RUN_ID="r2"),
        sleeper(RESWEEP_CLAIM="1:abcd.11", WANDB_RUN_ID="r1"),
        sleeper(X_RESWEEP_CLAIM="1:abcd.1", WANDB_RUN_ID="r1"),
        sleeper(),
    ]
    started += [mine, *others]
    assert kill_marked({b"1:abcd.1": b"r1"}) == 1
    assert mine.wait(10) == -9
    assert [process.poll() for process in others] == [None] * 4
    assert kill_marked({b"1:abcd.1": b"r1"}) == 0


@linux_only
def test_at_the_end_groups_are_killed_even_without_a_mark(started: list[subprocess.Popen[bytes]]) -> None:
    unmarked = sleeper()
    started.append(unmarked)
    guard = Guard()
    guard.hear(b"+ r1 1:abcd.1", 0.0)
    guard.hear(b"= 1:abcd.1 %d" % unmarked.pid, 0.0)
    guard.end_all()
    assert unmarked.wait(10) == -9


def test_attempts_that_end_share_one_search() -> None:
    guard = Guard()
    for number in (b"1", b"2"):
        guard.hear(b"+ r%s 1:abcd.%s" % (number, number), 0.0)
    guard.hear(b"- 1:abcd.1", 10.0)
    guard.hear(b"- 1:abcd.2", 10.5)
    with mock.patch.object(guard_process, "kill_marked", return_value=0) as kill:
        assert guard.sweep(10.9) == 10.0 + COALESCE
        assert kill.call_count == 0
        assert guard.sweep(10.0 + COALESCE) is None
        assert guard.sweep(20.0) is None
    assert kill.call_count == 1


def test_a_search_that_found_something_is_repeated_later() -> None:
    guard = Guard()
    guard.hear(b"+ r 1:abcd.1", 0.0)
    guard.hear(b"- 1:abcd.1", 0.0)
    with mock.patch.object(guard_process, "kill_marked", side_effect=[1, 0]) as kill:
        again = guard.sweep(COALESCE)
        assert again is not None
        assert again > COALESCE
        assert guard.sweep(again) is None
    assert kill.call_count == 2


@pytest.mark.parametrize("line", [b"", b"+", b"+ r", b"- unknown", b"= unknown 1", b"? r c", b"- a b"])
def test_lines_that_mean_nothing_end_nothing(line: bytes) -> None:
    guard = Guard()
    guard.hear(line, 0.0)
    assert (guard.runs, guard.groups, guard.ended, guard.due) == ({}, {}, {}, None)


def test_a_guard_without_work_ends_with_its_input() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", guard_process.__file__], stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"+ r 1:abcd.1\n- 1:abcd.1\n")
    process.stdin.close()
    assert process.wait(30) == 0


@linux_only
def test_signals_do_not_end_the_guard() -> None:
    process = subprocess.Popen([sys.executable, "-I", "-S", guard_process.__file__], stdin=subprocess.PIPE)
    assert process.stdin is not None

    def deaf() -> bool:
        with open(f"/proc/{process.pid}/status") as status:
            ignored = next(line for line in status if line.startswith("SigIgn:"))
        return bool(int(ignored.split()[1], 16) & 1 << 14)

    wait_until(deaf, description="the guard to ignore SIGTERM")
    process.terminate()
    process.stdin.write(b"\n")
    assert processes.alive(process.pid)
    process.stdin.close()
    assert process.wait(30) == 0
