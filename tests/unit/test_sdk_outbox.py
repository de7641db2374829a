"""Outbox and spill file: order, bounds, and disks that are full."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resweep import spill as spill_module
from resweep.outbox import Outbox
from resweep.spill import Commit, Header, Row, SpillFile, read_records, take_batch

HEADER = Header("r1", "local", "p", "1:nonce")

actions = st.lists(st.sampled_from(["append", "append", "append", "send", "lose", "write", "commit"]), max_size=60)


@settings(deadline=None)
@given(actions=actions, limit=st.integers(1, 8), full=st.sets(st.integers(0, 20)))
def test_whatever_happens_entries_leave_in_order_and_none_is_lost(
    actions: list[str], limit: int, full: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        writes = iter(range(10_000))

        def write(file: int, data: bytes) -> None:
            if next(writes) in full:
                os.write(file, data[: len(data) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")
            os.write(file, data)

        patch.setattr(spill_module, "_write_all", write)
        patch.setattr("resweep.outbox.DISK_PAUSE", 0.0)
        outbox = Outbox(SpillFile(Path(directory) / "r1-1-1.jsonl", HEADER), lambda matter, text: None, limit=limit)
        sent: list[object] = []
        for number, action in enumerate([*actions, *["send"] * 200]):
            if action == "append":
                outbox.append_row(number, {"n": number})
            elif action == "commit":
                outbox.append_commit(Commit(f"/c/{number}", number, {}))
            elif action == "write":
                outbox.write_down()
            elif action == "lose":
                sent += outbox.take()  # executed, but the answer is lost
                outbox.put_back()
            else:
                sent += outbox.take()
                outbox.stored()
        assert outbox.empty
        assert outbox.rows_waiting == 0
        expected = [n for n, action in enumerate(actions) if action in ("append", "commit")]
        seen: list[int] = []
        for entry in sent:
            place = entry.step if isinstance(entry, Row | Commit) else None
            assert place is not None
            if place not in seen:
                seen.append(place)
        assert seen == expected
        seqs = {entry.seq: entry.step for entry in sent if isinstance(entry, Row)}
        assert list(seqs) == list(range(1, len(seqs) + 1))
        assert not (Path(directory) / "r1-1-1.jsonl").exists()


def test_rows_beyond_the_limit_go_to_the_file(tmp_path: Path) -> None:
    outbox = Outbox(SpillFile(tmp_path / "s.jsonl", HEADER), lambda matter, text: None, limit=10)
    for step in range(35):
        outbox.append_row(step, {})
    assert len(list(read_records(tmp_path / "s.jsonl"))) == 31
    assert outbox.rows_waiting == 35


def test_when_the_disk_is_full_rows_stay_in_memory_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def full(file: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(spill_module, "_write_all", full)
    outbox = Outbox(SpillFile(tmp_path / "s.jsonl", HEADER), lambda matter, text: told.append(text), limit=10)
    for step in range(150):
        outbox.append_row(step, {})
    assert (outbox.rows_waiting, outbox.lost) == (100, 50)
    assert "No space left on device" in told[0]
    assert "rows are lost" in told[-1]
    first = outbox.take()[0]
    assert isinstance(first, Row)
    assert first.seq == 1


def test_batches_have_bounds() -> None:
    rows = [Row(seq, seq, {"text": "x" * 1000}) for seq in range(1, 2001)]
    assert 200 < len(take_batch(rows)) < 300
    assert len(take_batch([Row(seq, seq, {}) for seq in range(1, 2001)])) == 500
    assert len(take_batch([Row(1, 1, {"text": "x" * 10**6}), *rows])) == 1
    assert take_batch([Row(1, 1, {}), Row(2, 2, {}), Row(7, 7, {})]) == [Row(1, 1, {}), Row(2, 2, {})]
    commit = Commit("/c", 1, {})
    assert take_batch([Row(1, 1, {}), commit]) == [Row(1, 1, {})]
    assert take_batch([commit, Row(1, 1, {})]) == [commit]


def test_a_row_larger_than_the_window_is_read_back(tmp_path: Path) -> None:
    file = SpillFile(tmp_path / "s.jsonl", HEADER)
    file.append([Row(1, 1, {"text": "x" * 3_000_000}), Row(2, 2, {})])
    assert [entry.seq for entry in file.next_batch() if isinstance(entry, Row)] == [1]
    file.advance()
    assert file.next_batch() == [Row(2, 2, {})]
    file.advance()
    assert not (tmp_path / "s.jsonl").exists()


def test_a_file_of_an_earlier_process_with_the_same_pid_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text("rows of another process\n")
    file = SpillFile(tmp_path / "s.jsonl", HEADER)
    file.append([Row(1, 1, {})])
    file.close()
    assert (tmp_path / "s.jsonl").read_text() == "rows of another process\n"
    assert len(list(read_records(tmp_path / "s-2.jsonl"))) == 2


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text(f'{HEADER.encode()}\n{{"seq":1,"step":0,"row":{{}}}}\n{{"seq":2,"st')
    assert [record.get("seq") for record in read_records(tmp_path / "s.jsonl")] == [None, 1]
