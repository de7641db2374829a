"""EC2: spot interruptions and rebalance recommendations, from the instance metadata service (IMDSv2).

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html: `spot/instance-action` is
there two minutes before a spot instance is stopped or terminated (hibernation begins at once), and should be asked
for every five seconds. A rebalance recommendation comes earlier, to machines at risk, and often nothing follows: who
gave up machines for it would lose more work than preemption costs. So it is a hint, unless it is asked for as a
notice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from resweep_agent.notices.base import Notice
from resweep_agent.notices.deadlines import deadline_at, iso_time
from resweep_agent.notices.metadata import TIMEOUT, Answer, MetadataService, OddAnswerError, TokenService
from resweep_agent.notices.polling import TRIES, Provider

ADDRESS = "http://169.254.169.254"
ADDRESS_IPV6 = "http://[fd00:ec2::254]"
REBALANCE_EVERY = 6
"""Every so many questions, whether the machine is at risk is asked, too."""

_DATA = "/latest/meta-data/"


class Aws(Provider):
    """An EC2 instance.

    Args:
        environ: May name another service: AWS_EC2_METADATA_SERVICE_ENDPOINT, AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE,
            AWS_METADATA_SERVICE_TIMEOUT, AWS_METADATA_SERVICE_NUM_ATTEMPTS; or none: AWS_EC2_METADATA_DISABLED.
        rebalance: A recommendation to rebalance is a notice, not a hint.
    """

    name = "aws"
    interval = 5.0

    def __init__(self, environ: Mapping[str, str], *, rebalance: bool = False) -> None:
        self.tries = max(1, int(_number(environ, "AWS_METADATA_SERVICE_NUM_ATTEMPTS", TRIES)))
        self._environ = environ
        self._rebalance = rebalance
        self._service: TokenService | None = None
        self._asked = 0

    def recognise(self) -> bool:
        """Whether the instance is a spot instance."""
        return self._ask("instance-life-cycle").found() == "spot"

    def ask(self) -> Notice | None:
        """An interruption; else, now and then, a recommendation."""
        answer = self._get("spot/instance-action")
        if answer is not None:
            return _interruption(answer)
        self._asked += 1
        if self._asked % REBALANCE_EVERY == 1 and self._get("events/recommendations/rebalance") is not None:
            return Notice(self.name, detail="rebalance recommendation", hint=not self._rebalance)
        return None

    def _get(self, path: str) -> Answer | None:
        """The answer, None when there is no such thing."""
        answer = self._ask(path)
        if answer.status == 404:
            return None
        answer.found()
        return answer

    def _ask(self, path: str) -> Answer:
        if self._service is None:
            self._service = self._find_service()
        return self._service.ask(_DATA + path)

    def _find_service(self) -> TokenService:
        environ = self._environ
        if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
            raise OddAnswerError("AWS_EC2_METADATA_DISABLED is true")
        is_ipv6 = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower() == "ipv6"
        address = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or (ADDRESS_IPV6 if is_ipv6 else ADDRESS)
        service = MetadataService(address, timeout=_number(environ, "AWS_METADATA_SERVICE_TIMEOUT", TIMEOUT))
        return TokenService(service, "X-aws-ec2-metadata-token", required=True)


def _interruption(answer: Answer) -> Notice:
    try:
        told = json.loads(answer.text)
        action, time = str(told["action"]), told.get("time")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise OddAnswerError(f"{answer.asked} should have an action and a time, got {answer.text[:80]!r}") from None
    return Notice("aws", deadline_at(iso_time(str(time)), answer.now) if time else None, f"spot {action}")


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    """A number above 0 from a variable of AWS's; what it cannot be is ignored, as AWS's own programs do not all say."""
    try:
        number = float(environ[name])
    except (KeyError, ValueError):
        return default
    return number if 0 < number < math.inf else default
