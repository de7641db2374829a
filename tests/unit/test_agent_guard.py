"""The agent's side of the guard."""

from __future__ import annotations

import logging
import os
from typing import Any
from unittest import mock

import pytest

from resweep_agent import guard
from resweep_scheduler.store import ClaimToken

TOKEN = ClaimToken("run0", 1, "session.1")


def test_what_a_new_guard_must_know_lies_in_its_pipe_before_it_exists() -> None:
    """The agent may be killed between the start of the guard and its next line of code."""
    heard: list[bytes] = []

    def start(*arguments: object, stdin: int, **more: Any) -> mock.Mock:
        heard.append(os.read(stdin, 65536))
        return mock.Mock(pid=1, poll=lambda: None)

    with mock.patch("resweep_agent.guard.subprocess.Popen", side_effect=start):
        ours = guard.Guard()
        ours.expect(TOKEN)
        ours.launched(TOKEN, 4711)
        ours.start()
        ours.close()
    assert heard == [b"+ run0 1:session.1\n= 1:session.1 4711\n"]


def test_a_guard_that_the_machine_cannot_start_again_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []
    refusals = [BlockingIOError("no process left")] * 2

    def start(*arguments: object, stdin: int, **more: Any) -> mock.Mock:
        if heard and refusals:
            raise refusals.pop()
        heard.append(os.read(stdin, 65536))
        dead = len(heard) == 1
        return mock.Mock(pid=1, returncode=-9, poll=lambda: -9 if dead else None)

    with mock.patch("resweep_agent.guard.subprocess.Popen", side_effect=start), caplog.at_level(logging.WARNING):
        ours = guard.Guard()
        ours.expect(TOKEN)
        ours.start()
        for _ in range(2):
            ours.step()
            assert ours.pid is None
        ours.launched(TOKEN, 4711)
        ours.step()
        ours.close()
        ours.step()
    assert heard == [b"+ run0 1:session.1\n", b"+ run0 1:session.1\n= 1:session.1 4711\n"]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["guard-restarted", "guard-failed"]
