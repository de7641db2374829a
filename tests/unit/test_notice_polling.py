"""The thread that asks providers, and which ones an agent has."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

import pytest
from support.metadata import FakeAws, serving
from support.waiting import wait_until

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.notices import Notice, NoticeChoice
from resweep_agent.notices.aws import Aws
from resweep_agent.notices.metadata import NoAnswerError, OddAnswerError
from resweep_agent.notices.polling import PAUSE, TRIES, PolledSource, Provider
from resweep_agent.notices.slurm import ASK_EVERY, MARGIN, Slurm, job_of
from resweep_agent.parts import Wakeup

END = Notice("sure", detail="it goes")
HINT = Notice("sure", detail="it may go", hint=True)


class Script(Provider):
    """A provider that answers as written down; an error is raised, and the last answer stays."""

    interval = 0.0

    def __init__(self, name: str, *, here: object = True, says: list[Notice | Exception | None] | None = None) -> None:
        self.name = name
        self.here = deque(here if isinstance(here, list) else [here])
        self.says = deque(says or [None])
        self.obeyed: bool | None = None
        self.looked = 0

    def recognise(self) -> bool:
        self.looked += 1
        answer = self.here.popleft() if len(self.here) > 1 else self.here[0]
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    def ask(self) -> Notice | None:
        answer = self.says.popleft() if len(self.says) > 1 else self.says[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self, *, obeyed: bool) -> None:
        self.obeyed = obeyed


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


def never(seconds: float) -> bool:
    raise AssertionError(f"nobody should wait, least of all {seconds:g} s")


# Whose machine it is.


def test_the_first_provider_that_is_there_is_the_one() -> None:
    other, right, third = Script("other", here=OddAnswerError("403")), Script("right"), Script("third")
    assert PolledSource([other, right, third]).find(never) is right
    assert third.looked == 0


def test_nobodys_machine_is_asked_about_once_where_somebody_else_answers() -> None:
    odd = [Script("a", here=OddAnswerError("403")), Script("b", here=OddAnswerError("404"))]
    assert PolledSource(odd).find(never) is None


def test_who_does_not_answer_is_asked_again() -> None:
    """A service may still be starting, like the machine."""
    slow, odd = Script("slow", here=[NoAnswerError("timed out"), True]), Script("odd", here=OddAnswerError("403"))
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return False

    assert PolledSource([slow, odd]).find(pause) is slow
    assert (pauses, odd.looked) == ([PAUSE], 1)
    silent = Script("silent", here=NoAnswerError("timed out"))
    assert PolledSource([silent]).find(pause) is None
    assert (pauses, silent.looked) == ([PAUSE] * TRIES, TRIES), "nobody waits after the last try"


def test_that_a_named_provider_is_not_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    providers = [Script("a", here=OddAnswerError("/x was answered 403")), Script("b", here=OddAnswerError("no"))]
    with caplog.at_level(logging.DEBUG, "resweep_agent"):
        PolledSource(providers, named=frozenset({"a"})).find(never)
    assert [(record.levelname, str(record.msg)) for record in caplog.records] == [
        ("WARNING", 'no-notices-from source=a reason="/x was answered 403"'),
        ("DEBUG", "no-notices-from source=b reason=no"),
    ]


# What it says.


def test_a_notice_wakes_the_agent_and_is_the_last_word(wakeup: Wakeup) -> None:
    source = PolledSource([provider := Script("sure", here=False, says=[None, END])])
    source.start(wakeup.sender)
    wait_until(source.poll, timeout=20, description="the notice")
    assert (source.poll(), source.preemptible) == (END, False)
    wait_until(lambda: not source._thread.is_alive(), timeout=20, description="the end of the thread")
    assert os.read(wakeup.receiver, 10) == b"!"
    source.stop()
    assert provider.obeyed is True


def test_a_hint_is_replaced_by_the_notice_that_follows(wakeup: Wakeup) -> None:
    source = PolledSource([provider := Script("sure", says=[HINT, HINT, None, END])])
    assert [source.step(provider), source.poll()] == [True, HINT]
    assert [source.step(provider), source.step(provider), source.poll()] == [True, True, HINT]
    assert [source.step(provider), source.poll()] == [False, END]


def test_a_provider_that_is_away_for_a_while_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    away: list[Notice | Exception | None] = [None, NoAnswerError("timed out"), OddAnswerError("503"), None, END]
    source = PolledSource([provider := Script("sure", says=away)])
    with caplog.at_level(logging.INFO, "resweep_agent"):
        assert [source.step(provider) for _ in range(5)] == [True, True, True, True, False]
    assert [str(record.msg) for record in caplog.records] == [
        'notice-source-away source=sure reason="timed out" next="asked again"',
        "notice-source-back source=sure",
    ]


def test_a_fault_of_ours_does_not_end_the_asking(wakeup: Wakeup) -> None:
    source = PolledSource([Script("sure", says=[KeyError("oops"), END])])
    source.start(wakeup.sender)
    wait_until(source.poll, timeout=20, description="the notice")
    source.stop()


def test_a_fault_of_ours_while_looking_ends_in_no_notices(wakeup: Wakeup) -> None:
    source = PolledSource([provider := Script("sure", here=KeyError("oops"))])
    source.start(wakeup.sender)
    wait_until(lambda: not source._thread.is_alive(), timeout=20, description="the end of the thread")
    source.stop()
    assert (source.poll(), source.preemptible, provider.obeyed) == (None, False, None)


def test_a_spot_machine_wakes_the_agent(wakeup: Wakeup) -> None:
    source = PolledSource([provider := Script("sure", here=True)])
    source.start(wakeup.sender)
    wait_until(lambda: source.preemptible, timeout=20, description="that the machine is known")
    wait_until(lambda: source._provider is provider, timeout=20, description="the first question")
    source.stop()
    wait_until(lambda: not source._thread.is_alive(), timeout=20, description="the end of the thread")
    assert os.read(wakeup.receiver, 10) == b"!"
    assert provider.obeyed is False


def test_after_its_end_it_writes_to_nobody() -> None:
    """The descriptor may be something else by then."""
    source = PolledSource([provider := Script("sure", says=[END])])
    source.stop()
    source.step(provider)
    assert source.poll() == END


def test_neither_start_nor_end_waits_for_a_service_that_is_silent(wakeup: Wakeup) -> None:
    with serving(fake := FakeAws()) as address:
        fake.mood = "silent"
        environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{address}", "AWS_METADATA_SERVICE_TIMEOUT": "60"}
        source = PolledSource([Aws(environ)])
        source.start(wakeup.sender)
        wait_until(lambda: fake.asked, timeout=20, description="the question")
        source.stop()
        assert source._thread.is_alive()
    wait_until(lambda: not source._thread.is_alive(), timeout=20, description="the end of the thread")


# Which ones: --notice.


def names(text: str | None, environ: Mapping[str, str]) -> list[list[str]]:
    """The providers of each thread."""
    choice = NoticeChoice.parse(text, environ)
    return [[provider.name for provider in source._providers] for source in choice.sources(environ, grace=30)]


CLOUDS = ["aws", "gcp", "azure", "alibaba"]
JOB = {"SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        (None, {}, [CLOUDS]),
        ("auto", {}, [CLOUDS]),
        ("auto", JOB, [["slurm"], CLOUDS]),
        ("none", JOB, []),
        ("gcp, aws", {}, [["aws", "gcp"]]),
        ("slurm", {}, [["slurm"]]),
        ("aws-rebalance", {}, [["aws"]]),
        ("auto,aws-rebalance", {}, [CLOUDS]),
        (None, {"RESWEEP_NOTICE": "azure"}, [["azure"]]),
        ("alibaba", {"RESWEEP_NOTICE": "none"}, [["alibaba"]]),
    ],
)
def test_the_option_names_the_sources(text: str | None, environ: dict[str, str], expected: list[list[str]]) -> None:
    assert names(text, environ) == expected


@pytest.mark.parametrize(
    ("text", "environ", "message"),
    [
        ("asw", {}, r"^--notice is auto, none, or some of slurm, aws, .* got 'asw'; did you mean aws\?$"),
        ("aws,none", {}, r"got 'aws,none'; leave out the other names, or none$"),
        ("", {}, r"got ''; leave it out to have all that apply \(auto\)$"),
        (None, {"RESWEEP_NOTICE": "kubernetes"}, r"^RESWEEP_NOTICE is auto, .* got 'kubernetes'; leave it out"),
    ],
)
def test_a_source_that_there_is_not_is_refused(text: str | None, environ: dict[str, str], message: str) -> None:
    with pytest.raises(AgentError, match=message) as caught:
        NoticeChoice.parse(text, environ)
    assert caught.value.exit_code is ExitCode.USAGE


# The end of a SLURM job.


@pytest.fixture
def squeue(tmp_path: Path) -> Path:
    """What a squeue prints that writes down how it was called."""
    script = tmp_path / "squeue"
    script.write_text('#!/bin/sh\necho "$SLURM_TIME_FORMAT $*" >> "${0%/*}/calls"\ncat "${0%/*}/says"\n')
    script.chmod(0o755)
    return tmp_path / "says"


def tell(squeue: Path, end: float) -> None:
    squeue.write_text(datetime.fromtimestamp(end).strftime("%Y-%m-%dT%H:%M:%S") + "\n")


def environ_of(squeue: Path, **more: str) -> dict[str, str]:
    return {"PATH": f"{squeue.parent}:/usr/bin:/bin", "SLURM_JOB_ID": "7", **more}


def calls(squeue: Path) -> list[str]:
    path = squeue.parent / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_the_end_of_a_job_comes_from_squeue_and_the_notice_leaves_time_to_save(squeue: Path) -> None:
    now = time.time()
    tell(squeue, now + 3600)
    provider = Slurm(environ_of(squeue), grace=60.0)
    assert provider.recognise()
    assert calls(squeue) == ["standard --noheader --jobs=7 --format=%e"]
    assert provider.ask() is None
    assert ASK_EVERY - 30 < provider.interval <= ASK_EVERY

    tell(squeue, now + 60 + MARGIN)
    provider._ask_at = 0.0
    notice = provider.ask()
    assert str(notice) == "slurm time limit"
    assert notice is not None
    assert notice.deadline is not None
    assert 40 < notice.deadline - time.monotonic() <= 60 + MARGIN


def test_a_time_limit_that_was_extended_is_no_notice(squeue: Path) -> None:
    now = time.time()
    tell(squeue, now + 7200)
    provider = Slurm(environ_of(squeue, SLURM_JOB_END_TIME=str(round(now + 3600))), grace=60.0)
    provider.recognise()
    assert calls(squeue) == [], "SLURM has said it already"
    provider._end = now + 10
    assert provider.ask() is None
    assert len(calls(squeue)) == 1
    assert provider.ask() is None
    assert len(calls(squeue)) == 1, "rarely asked"


def test_a_short_job_works_for_half_of_its_time(squeue: Path) -> None:
    end = time.time() + 100
    tell(squeue, end)
    provider = Slurm(environ_of(squeue, SLURM_JOB_END_TIME=str(end)), grace=600.0)
    provider.recognise()
    assert provider.ask() is None
    assert 40 < provider.interval <= 51


@pytest.mark.parametrize("says", ["N/A", "NONE", "Unknown"])
def test_a_job_without_a_limit_gets_no_notice(squeue: Path, says: str) -> None:
    squeue.write_text(says + "\n")
    provider = Slurm(environ_of(squeue), grace=60.0)
    assert provider.recognise()
    assert provider.ask() is None
    assert provider.interval > ASK_EVERY - 30


def test_a_squeue_that_has_no_answer_later_changes_nothing(squeue: Path) -> None:
    provider = Slurm(environ_of(squeue, SLURM_JOB_END_TIME=str(time.time() + 100)), grace=0.0)
    provider.recognise()
    squeue.write_text("slurm_load_jobs error: Unable to contact slurm controller\n")
    provider._end = time.time() + 5
    assert str(provider.ask()) == "slurm time limit"


def test_what_squeue_should_not_print_is_refused(squeue: Path) -> None:
    squeue.write_text("soon\n")
    with pytest.raises(OddAnswerError, match=r"squeue .* should print a time, got 'soon'"):
        Slurm(environ_of(squeue), grace=0.0).recognise()


def test_no_squeue_and_no_job(tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match="No such file"):
        Slurm({"SLURM_JOB_ID": "7", "PATH": str(tmp_path)}, grace=0.0).recognise()
    with pytest.raises(OddAnswerError, match="SLURM_JOB_ID is not set"):
        Slurm({}, grace=0.0).recognise()


def test_a_task_of_an_array_has_a_name_of_its_own() -> None:
    """`squeue --jobs=7` would tell of all tasks, if 7 is the id of the array, too."""
    assert job_of({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}) == "7_3"
    assert job_of({"SLURM_JOB_ID": "9"}) == "9"
    assert job_of({}) is None
