"""Alibaba Cloud: the release of preemptible instances, from the instance metadata service.

https://www.alibabacloud.com/help/en/ecs/user-guide/query-the-interruption-events-of-preemptible-instances:
`instance/spot/termination-time` is there five minutes before the instance is released. The service does not say whether
an instance is a preemptible one.
"""

from __future__ import annotations

import re

from resweep_agent.notices.base import Notice
from resweep_agent.notices.deadlines import deadline_at, iso_time
from resweep_agent.notices.metadata import Answer, MetadataService, OddAnswerError, TokenService
from resweep_agent.notices.polling import Provider

ADDRESS = "http://100.100.100.200"

_DATA = "/latest/meta-data/"
_INSTANCE = re.compile(r"[A-Za-z0-9-]{1,64}")


class Alibaba(Provider):
    """An ECS instance; its service may ask for a token (hardened mode)."""

    name = "alibaba"
    interval = 10.0

    def __init__(self) -> None:
        self._service = TokenService(MetadataService(ADDRESS), "X-aliyun-ecs-metadata-token", required=False)

    def recognise(self) -> bool:
        """Whether this is an instance; False, as it does not say of what kind."""
        answer = self._service.ask(_DATA + "instance-id")
        if not _INSTANCE.fullmatch(answer.found()):
            raise OddAnswerError(f"{answer.asked} should be the id of an instance, got {answer.text[:80]!r}")
        return False

    def ask(self) -> Notice | None:
        """The release that is near."""
        answer: Answer = self._service.ask(_DATA + "instance/spot/termination-time")
        if answer.status == 404 or not answer.found():
            return None
        return Notice(self.name, deadline_at(iso_time(answer.text), answer.now), "release")
