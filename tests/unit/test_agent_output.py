"""What children print."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import wait_until

from resweep_agent.output import TAIL, OutputPump, OutputStream, Piece


class Screen:
    """A terminal that remembers."""

    def __init__(self) -> None:
        self.shown = b""

    def write(self, data: bytes) -> None:
        self.shown += data


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def pump(screen: Screen) -> Iterator[OutputPump]:
    pump = OutputPump(screen)
    pump.start()
    yield pump
    pump.close()


def tail(stream: OutputStream) -> str:
    """All the text that waits for Redis."""
    text = ""
    while piece := stream.take_tail():
        text += piece.text
    return text


def finished(pump: OutputPump, stream: OutputStream) -> None:
    pump.finish(stream)
    wait_until(stream.closed.is_set, description="the end of the output")


def test_output_goes_to_the_terminal_the_file_and_the_tail(pump: OutputPump, screen: Screen, tmp_path: Path) -> None:
    receiver, sender = os.pipe()
    stream = pump.attach(receiver, tmp_path / "a" / "output.log")
    os.write(sender, b"one\ntw")
    os.write(sender, b"o\n")
    os.close(sender)
    finished(pump, stream)
    assert screen.shown == b"one\ntwo\n"
    assert (tmp_path / "a" / "output.log").read_bytes() == b"one\ntwo\n"
    assert tail(stream) == "one\ntwo\n"
    assert stream.take_tail() is None


def test_lines_of_several_runs_have_a_prefix_and_stay_whole(pump: OutputPump, screen: Screen, tmp_path: Path) -> None:
    pipes = [os.pipe(), os.pipe()]
    streams = [pump.attach(receiver, tmp_path / str(n), prefix=f"[r{n}] ") for n, (receiver, _) in enumerate(pipes)]
    os.write(pipes[0][1], b"half ")
    os.write(pipes[1][1], b"other\n")
    wait_until(lambda: b"other" in screen.shown, description="the line of the second run")
    os.write(pipes[0][1], b"line\nlast")
    for (_, sender), stream in zip(pipes, streams, strict=True):
        os.close(sender)
        finished(pump, stream)
    assert screen.shown.splitlines() == [b"[r1] other", b"[r0] half line", b"[r0] last"]


def test_a_grandchild_that_keeps_the_pipe_open_keeps_nothing_else(
    pump: OutputPump, screen: Screen, tmp_path: Path
) -> None:
    receiver, sender = os.pipe()
    stream = pump.attach(receiver, tmp_path / "log")
    os.write(sender, b"last words")
    finished(pump, stream)
    assert tail(stream) == "last words"
    os.close(sender)


def test_bytes_that_are_no_utf_8_are_kept_in_the_file_and_replaced_in_the_tail(
    pump: OutputPump, screen: Screen, tmp_path: Path
) -> None:
    receiver, sender = os.pipe()
    stream = pump.attach(receiver, tmp_path / "log")
    os.write(sender, b"\xff\xc3")
    os.close(sender)
    finished(pump, stream)
    assert (tmp_path / "log").read_bytes() == b"\xff\xc3"
    assert tail(stream) == "\ufffd\ufffd"


def test_a_file_that_cannot_be_written_is_said_once_and_stops_nothing(
    pump: OutputPump, screen: Screen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    receiver, sender = os.pipe()
    with caplog.at_level(logging.WARNING):
        stream = pump.attach(receiver, tmp_path / "file" / "output.log")
        for word in (b"one ", b"two"):
            os.write(sender, word)
            wait_until(lambda word=word: word in screen.shown, description="the output")  # type: ignore[misc]
        os.close(sender)
        finished(pump, stream)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["output-file-failed"]
    assert tail(stream) == "one two"


def test_only_the_end_of_much_output_waits_for_redis(tmp_path: Path) -> None:
    receiver, sender = os.pipe()
    stream = OutputStream(receiver, tmp_path / "log", Screen(), "")
    for number in range(8):
        stream.add(bytes([ord("a") + number]) * TAIL)
    assert tail(stream) == "h" * TAIL
    stream.finish()
    os.close(sender)


def test_text_that_could_not_be_sent_comes_before_what_follows(tmp_path: Path) -> None:
    receiver, sender = os.pipe()
    stream = OutputStream(receiver, tmp_path / "log", Screen(), "")
    stream.add(b"one ")
    piece = stream.take_tail()
    assert piece is not None
    stream.add(b"two")
    stream.put_back(piece)
    assert [stream.take_tail(), stream.take_tail()] == [piece, Piece(2, "two")]
    stream.finish()
    os.close(sender)


def test_the_thread_may_see_that_it_is_to_end_before_it_is_woken(
    screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    pump = OutputPump(screen)
    pump.start()
    write = os.write

    def late(descriptor: int, data: bytes) -> int:
        if descriptor == pump._wake_sender:
            write(descriptor, data)  # somebody else's order wakes the thread
            pump._thread.join(10)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", late)
    pump.close()


CLOSED = """
import os, sys
from pathlib import Path
from resweep_agent.output import OutputPump, StandardOutput
assert sys.stdout is None
pump = OutputPump(StandardOutput())
pump.start()
receiver, sender = os.pipe()
stream = pump.attach(receiver, Path("log"))
for _ in range(10):
    os.write(sender, b"x" * 60_000)  # more than a pipe holds: somebody reads it
os.close(sender)
pump.finish(stream)
sys.exit(0 if stream.closed.wait(20) else 1)
"""


def test_without_standard_output_output_is_shown_nowhere_and_read_all_the_same(tmp_path: Path) -> None:
    """As by `sweep-agent … >&-`."""
    argv = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-c", CLOSED]
    ended = subprocess.run(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "log").stat().st_size == 600_000


class Broken(Screen):
    """A terminal with a fault that nobody thought of."""

    def write(self, data: bytes) -> None:
        super().write(data)
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize("screen", [Broken()])
@pytest.mark.parametrize("prefix", ["", "[r] "])
def test_a_fault_is_said_once_and_reading_goes_on(
    pump: OutputPump, tmp_path: Path, caplog: pytest.LogCaptureFixture, prefix: str
) -> None:
    (tmp_path / "log").touch()
    receiver, sender = os.pipe()
    stream = pump.attach(receiver, tmp_path / "log", prefix)
    for word in (b"one\n", b"two\nthree"):
        os.write(sender, word)
        wait_until(lambda word=word: word in (tmp_path / "log").read_bytes(), description="the output")  # type: ignore[misc]
    os.close(sender)
    finished(pump, stream)
    assert [record.getMessage() for record in caplog.records] == ["output-fault"]
    assert tail(stream) == "one\ntwo\nthree"
