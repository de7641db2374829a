"""Each provider of notices against a service that behaves as its documentation says, and against others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from support.metadata import FakeAlibaba, FakeAws, FakeAzure, FakeCloud, FakeGcp, Mood, serving

from resweep_agent.notices import Notice
from resweep_agent.notices.alibaba import Alibaba
from resweep_agent.notices.aws import REBALANCE_EVERY, Aws
from resweep_agent.notices.azure import Azure
from resweep_agent.notices.gcp import Gcp
from resweep_agent.notices.metadata import LONGEST_ANSWER, MetadataService, NoAnswerError, OddAnswerError
from resweep_agent.notices.polling import TRIES, Provider

NOBODY = "127.0.0.1:9"  # discard: nobody listens


def lead_of(notice: Notice | None) -> float:
    """Seconds until the machine goes."""
    assert notice is not None
    assert notice.deadline is not None
    return notice.deadline - time.monotonic()


@pytest.fixture
def aws() -> Iterator[tuple[FakeAws, Aws]]:
    with serving(fake := FakeAws()) as address:
        environ = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://{address}/", "AWS_METADATA_SERVICE_TIMEOUT": "0.2"}
        yield fake, Aws(environ)


@pytest.fixture
def gcp(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeGcp, Gcp]]:
    monkeypatch.setattr("resweep_agent.notices.gcp.WAIT", 1)
    with serving(fake := FakeGcp()) as address:
        yield fake, Gcp({"GCE_METADATA_HOST": address})


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[FakeAzure, Azure]]:
    with serving(fake := FakeAzure()) as address:
        monkeypatch.setattr("resweep_agent.notices.azure.ADDRESS", f"http://{address}")
        yield fake, Azure(tmp_path)


@pytest.fixture
def alibaba(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeAlibaba, Alibaba]]:
    with serving(fake := FakeAlibaba()) as address:
        monkeypatch.setattr("resweep_agent.notices.alibaba.ADDRESS", f"http://{address}")
        yield fake, Alibaba()


@pytest.fixture(params=["aws", "gcp", "azure", "alibaba"])
def any_cloud(request: pytest.FixtureRequest) -> tuple[FakeCloud, Provider]:
    """Each of them."""
    pair: tuple[FakeCloud, Provider] = request.getfixturevalue(request.param)
    return pair


# All of them.


def test_a_machine_is_recognised_and_quiet(any_cloud: tuple[FakeCloud, Provider]) -> None:
    fake, provider = any_cloud
    assert provider.recognise() is (provider.name != "alibaba"), "Alibaba does not say what is a spot machine"
    assert [provider.ask(), provider.ask()] == [None, None]
    if provider.name != "alibaba":
        fake.spot = False
        assert provider.recognise() is False


@pytest.mark.parametrize("mood", ["forbidden", "garbage", "endless"])
def test_an_odd_answer_means_not_this_cloud(any_cloud: tuple[FakeCloud, Provider], mood: Mood) -> None:
    fake, provider = any_cloud
    fake.mood = mood
    with pytest.raises(OddAnswerError):
        provider.recognise()
    assert len(fake.asked) <= 2


@pytest.mark.parametrize("status", [410, 429, 500, 503])
def test_a_service_that_cannot_answer_yet_may_still_be_this_cloud(
    any_cloud: tuple[FakeCloud, Provider], status: int
) -> None:
    fake, provider = any_cloud
    fake.mood = "broken"
    fake.broken_status = status
    with pytest.raises(NoAnswerError, match=f"was answered {status}"):
        provider.recognise()
    fake.mood = "right"
    assert provider.recognise() is (provider.name != "alibaba")


def test_no_answer_in_time_is_no_answer(any_cloud: tuple[FakeCloud, Provider], monkeypatch: pytest.MonkeyPatch) -> None:
    fake, provider = any_cloud
    fake.mood = "silent"
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match="timed out"):
        provider.recognise()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("mood", ["forbidden", "garbage", "endless", "broken"])
def test_odd_answers_of_a_known_cloud_are_errors_and_no_notices(
    any_cloud: tuple[FakeCloud, Provider], mood: Mood
) -> None:
    fake, provider = any_cloud
    provider.recognise()
    provider.ask()
    fake.mood = mood
    with pytest.raises(NoAnswerError if mood == "broken" else OddAnswerError):
        provider.ask()
    fake.mood = "right"
    fake.raise_notice(60)
    assert provider.ask() is not None


def test_a_machine_whose_clock_is_wrong_knows_how_long_it_has(any_cloud: tuple[FakeCloud, Provider]) -> None:
    """The service's clock counts: an hour ahead would make of each notice one that is over."""
    fake, provider = any_cloud
    fake.clock_error = 3600.0
    provider.recognise()
    fake.raise_notice(29.0)
    assert 20 < lead_of(provider.ask()) <= 30


def test_a_deadline_in_the_past_is_now(any_cloud: tuple[FakeCloud, Provider]) -> None:
    fake, provider = any_cloud
    provider.recognise()
    fake.raise_notice(-500.0)
    lead = lead_of(provider.ask())
    assert lead <= (30 if provider.name == "gcp" else 0), "GCP gives no time, but that it begins now"


# AWS.


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_aws_tells_of_every_kind_of_interruption(aws: tuple[FakeAws, Aws], action: str) -> None:
    fake, provider = aws
    provider.recognise()
    fake.action = action
    fake.raise_notice(120)
    notice = provider.ask()
    assert str(notice) == f"aws spot {action}"
    assert 110 < lead_of(notice) <= 120


def test_aws_gets_a_new_token_when_the_old_one_is_over(aws: tuple[FakeAws, Aws]) -> None:
    fake, provider = aws
    provider.recognise()
    provider.ask()
    assert fake.paths().count("/latest/api/token") == 1
    fake.expire_tokens()
    assert provider.ask() is None
    assert fake.paths().count("/latest/api/token") == 2


def test_aws_recommends_to_rebalance_as_a_hint_unless_it_is_asked_for_as_a_notice(aws: tuple[FakeAws, Aws]) -> None:
    fake, provider = aws
    provider.recognise()
    fake.rebalance = True
    hint = provider.ask()
    assert (str(hint), hint is not None and hint.hint) == ("aws rebalance recommendation", True)
    assert [provider.ask() for _ in range(REBALANCE_EVERY - 1)] == [None] * (REBALANCE_EVERY - 1), "rarely asked for"

    eager = Aws(provider._environ, rebalance=True)
    assert eager.ask() == Notice("aws", detail="rebalance recommendation")
    fake.raise_notice(120)
    assert str(provider.ask()) == "aws spot terminate", "what is sure comes first"


def test_aws_notice_without_a_time_is_a_notice(aws: tuple[FakeAws, Aws]) -> None:
    _, provider = aws
    provider.recognise()
    with mock.patch.object(FakeAws, "answer", side_effect=_always('{"action": "stop"}')):
        assert provider.ask() == Notice("aws", detail="spot stop")


@pytest.mark.parametrize("text", ["terminate", "[]", '{"time": "x"}', '{"action": "stop", "time": "soon"}'])
def test_aws_notice_that_makes_no_sense_is_an_error(aws: tuple[FakeAws, Aws], text: str) -> None:
    _, provider = aws
    provider.recognise()
    with (
        mock.patch.object(FakeAws, "answer", side_effect=_always(text)),
        pytest.raises(OddAnswerError, match=r"action and a time|written like"),
    ):
        provider.ask()


def _always(text: str) -> Callable[..., object]:
    from support.metadata import Reply

    return lambda *_: Reply(200, text)


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "AWS_EC2_METADATA_DISABLED is true"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "https://h"}, "http://HOST.*got 'https://h'"),
        ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://h:x"}, "http://HOST.*got 'http://h:x'"),
    ],
)
def test_aws_variables_switch_it_off_or_name_another_service(environ: dict[str, str], error: str) -> None:
    with pytest.raises(OddAnswerError, match=error):
        Aws(environ).recognise()


def test_aws_service_over_ipv6_and_its_patience_are_variables_too() -> None:
    with mock.patch("resweep_agent.notices.aws.MetadataService", side_effect=OddAnswerError) as service:
        provider = Aws(
            {
                "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6",
                "AWS_METADATA_SERVICE_TIMEOUT": "7",
                "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "5",
            }
        )
        with pytest.raises(OddAnswerError):
            provider.recognise()
    service.assert_called_once_with("http://[fd00:ec2::254]", timeout=7.0)
    assert provider.tries == 5
    for odd in ("many", "inf", "nan", "-1", ""):
        assert Aws({"AWS_METADATA_SERVICE_NUM_ATTEMPTS": odd}).tries == TRIES


# GCP.


def test_gcp_waits_for_the_change(gcp: tuple[FakeGcp, Gcp]) -> None:
    fake, provider = gcp
    provider.recognise()
    assert provider.ask() is None
    fake.raise_notice(30)
    notice = provider.ask()
    assert str(notice) == "gcp preempted"
    assert 25 < lead_of(notice) <= 30
    last = fake.asked[-1]
    assert (last.query["wait_for_change"], "last_etag" in last.query) == ("true", True)


def test_gcp_maintenance_is_a_notice_when_it_ends_the_machine(
    gcp: tuple[FakeGcp, Gcp], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resweep_agent.notices.gcp.WAIT", 0)
    fake, provider = gcp
    provider.recognise()
    fake.maintenance = "MIGRATE_ON_HOST_MAINTENANCE"
    assert provider.ask() is None
    fake.maintenance = "TERMINATE_ON_HOST_MAINTENANCE"
    notice = provider.ask()
    assert str(notice) == "gcp host maintenance"
    assert 50 < lead_of(notice) <= 60


def test_gcp_server_without_its_header_is_another_server(aws: tuple[FakeAws, Aws]) -> None:
    fake, provider = aws
    with (
        mock.patch.object(FakeAws, "answer", side_effect=_always("TRUE")),
        pytest.raises(OddAnswerError, match="without `Metadata-Flavor: Google`"),
    ):
        Gcp({"GCE_METADATA_HOST": provider._environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"]}).recognise()
    assert fake.asked


@pytest.mark.parametrize("name", ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"])
def test_gcp_variables_name_another_server(gcp: tuple[FakeGcp, Gcp], name: str) -> None:
    fake, provider = gcp
    address = provider._environ["GCE_METADATA_HOST"]
    assert Gcp({name: address}).recognise()
    assert fake.asked[0].headers["host"] == ("metadata.google.internal" if name == "GCE_METADATA_IP" else address)


def test_gcp_is_not_asked_where_a_variable_says_so() -> None:
    with pytest.raises(OddAnswerError, match="NO_GCE_CHECK is true"):
        Gcp({"NO_GCE_CHECK": "true", "GCE_METADATA_HOST": NOBODY}).recognise()


# Azure.


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("Preempt", "notice"), ("Terminate", "notice"), ("Reboot", "hint"), ("Redeploy", "hint"), ("Freeze", None)],
)
def test_azure_events_that_end_the_machine_are_notices(
    azure: tuple[FakeAzure, Azure], kind: str, expected: str | None
) -> None:
    fake, provider = azure
    provider.recognise()
    fake.event = {"EventType": kind}
    fake.raise_notice(30)
    notice = provider.ask()
    if expected is None:
        assert notice is None
        return
    assert notice is not None
    assert (str(notice), notice.hint) == (f"azure {kind}", expected == "hint")
    assert 20 < lead_of(notice) <= 30


def test_azure_events_of_other_machines_are_theirs(azure: tuple[FakeAzure, Azure]) -> None:
    fake, provider = azure
    provider.recognise()
    fake.event = {"Resources": ["vm_1", "vm_00"]}
    fake.raise_notice(30)
    assert provider.ask() is None
    fake.event = {"Resources": ["vm_1", "VM_0"]}
    assert provider.ask() is not None, "names are the same whatever their case"


def test_azure_event_that_has_begun_has_no_time_left(azure: tuple[FakeAzure, Azure]) -> None:
    fake, provider = azure
    provider.recognise()
    fake.event = {"EventStatus": "Started", "NotBefore": ""}
    fake.raise_notice(30)
    assert lead_of(provider.ask()) <= 0


def test_azure_event_is_acknowledged_by_the_last_agent_on_the_machine_and_after_its_runs(
    azure: tuple[FakeAzure, Azure], tmp_path: Path
) -> None:
    fake, provider = azure
    other = Azure(tmp_path)
    provider.recognise()
    other.recognise()
    fake.raise_notice(30)
    for agent in (provider, other):
        assert agent.ask() is not None
    assert fake.acknowledged == []
    provider.close(obeyed=True)
    assert fake.acknowledged == [], "the other one may still be saving"
    other.close(obeyed=True)
    assert fake.acknowledged == ["E-1"]


def test_azure_event_is_not_acknowledged_by_an_agent_that_ends_for_another_reason(
    azure: tuple[FakeAzure, Azure], tmp_path: Path
) -> None:
    fake, provider = azure
    provider.recognise()
    provider.ask()
    provider.close(obeyed=False)
    fake.raise_notice(30)
    hinted = Azure(tmp_path)
    hinted.recognise()
    hinted.ask()
    hinted.close(obeyed=False)
    assert fake.acknowledged == []


# Alibaba.


def test_alibaba_tells_of_the_release(alibaba: tuple[FakeAlibaba, Alibaba]) -> None:
    fake, provider = alibaba
    provider.recognise()
    fake.raise_notice(300)
    notice = provider.ask()
    assert str(notice) == "alibaba release"
    assert 290 < lead_of(notice) <= 300


def test_alibaba_service_that_wants_a_token_gets_one(alibaba: tuple[FakeAlibaba, Alibaba]) -> None:
    fake, provider = alibaba
    fake.hardened = True
    provider.recognise()
    assert provider.ask() is None
    assert fake.paths().count("/latest/api/token") == 1


# What they share.


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch, gcp: tuple[FakeGcp, Gcp]) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://{NOBODY}")
    assert gcp[1].recognise()


def test_nobody_there_is_no_answer() -> None:
    with pytest.raises(NoAnswerError, match=r"GET /x: .*refused"):
        MetadataService(NOBODY).ask("/x")


def test_no_more_is_read_than_an_answer_may_have(gcp: tuple[FakeGcp, Gcp]) -> None:
    fake, provider = gcp
    fake.mood = "endless"
    with pytest.raises(OddAnswerError, match=f"more than {LONGEST_ANSWER} bytes"):
        provider.recognise()


@pytest.mark.parametrize("address", ["https://h", "ftp://h", "", "http://", "http://h:99999"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(OddAnswerError, match=r"is http://HOST\[:PORT\], got"):
        MetadataService(address)
