"""Signals as notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from resweep_agent.notices import NOTICE_SIGNALS, Notice, SignalSource
from resweep_agent.parts import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


@pytest.fixture
def source(wakeup: Wakeup) -> Iterator[SignalSource]:
    source = SignalSource()
    source.start(wakeup.sender)
    yield source
    source.stop()


@pytest.mark.parametrize("number", NOTICE_SIGNALS)
def test_a_signal_is_a_notice_and_wakes_the_main_loop(
    wakeup: Wakeup, source: SignalSource, number: signal.Signals
) -> None:
    assert source.poll() is None
    os.kill(os.getpid(), number)
    assert source.poll() == Notice(number.name)
    assert os.read(wakeup.receiver, 10) == bytes([number])
    os.kill(os.getpid(), signal.SIGTERM)
    assert source.poll() == Notice(number.name), "the first one counts"


def test_ctrl_c_means_to_finish_and_twice_is_a_notice(source: SignalSource) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    assert (source.finish_requested, source.poll()) == (True, None)
    os.kill(os.getpid(), signal.SIGINT)
    assert source.poll() == Notice("Ctrl-C pressed twice")


def test_a_signal_that_is_ignored_stays_ignored_as_under_nohup(wakeup: Wakeup) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        source = SignalSource()
        source.start(wakeup.sender)
        os.kill(os.getpid(), signal.SIGHUP)
        assert source.poll() is None
        source.stop()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_everything_is_put_back(wakeup: Wakeup) -> None:
    numbers = (*NOTICE_SIGNALS, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    source = SignalSource()
    source.start(wakeup.sender)
    source.stop()
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1
