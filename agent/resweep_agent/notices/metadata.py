"""Asking a cloud's metadata service: small requests over plain HTTP to a link-local address.

No proxy is used whatever the environment says, no redirect is followed, and no answer is longer than `LONGEST_ANSWER`:
the address may lead to anything on a machine that is in no cloud.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

TIMEOUT = 1.0
"""Seconds for a connection, and for each part of an answer: the service is on the same machine."""
LONGEST_ANSWER = 64 * 1024
"""Bytes."""
TOKEN_LIFE = 21_600
"""Seconds; the longest that the services allow."""
LATER = frozenset({410, 429})
"""Besides 5xx, what a service answers that should be asked again: Azure's provisioning agents do so after 410, 429, 500
and 503 (https://github.com/Azure/azure-init/issues/63), Google's libraries after 500 and 503."""
TOKEN_PATH = "/latest/api/token"


class NoAnswerError(Exception):
    """Nobody answered just now: what came was nothing, no HTTP, or that the service cannot answer yet."""


class OddAnswerError(Exception):
    """The answer is not one of the service that was asked for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service answered.

    Attributes:
        headers: By their names in lower case.
        asked: What was asked for, for messages.
        now: The wall clock (seconds since the epoch) when it was sent, by the service's own clock if it says.
    """

    status: int
    text: str
    headers: Mapping[str, str]
    asked: str
    now: float

    def found(self) -> str:
        """The text of a 200.

        Raises:
            OddAnswerError: The status is another one.
        """
        if self.status != 200:
            raise OddAnswerError(f"{self.asked} was answered {self.status}")
        return self.text


class MetadataService:
    """The service at one address. Each request has a connection of its own, so that threads need not agree.

    Args:
        address: `host`, `host:port` or `http://host[:port][/path]`.
        name: The `Host` header, when the address is a number.
        timeout: Seconds.

    Raises:
        OddAnswerError: The address is none.
    """

    def __init__(self, address: str, *, name: str | None = None, timeout: float = TIMEOUT) -> None:
        url = urlsplit(address if "//" in address else f"//{address}", scheme="http")
        try:
            port = url.port
        except ValueError:
            port = -1
        if url.scheme != "http" or url.hostname is None or port == -1:
            raise OddAnswerError(f"the address of a metadata service is http://HOST[:PORT], got {address!r}")
        self._host = url.hostname
        self._port = port or 80
        self._path = url.path.rstrip("/")
        self._headers = {"Host": name} if name else {}
        self._timeout = timeout

    def ask(
        self,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        method: str = "GET",
        body: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send one request.

        Raises:
            NoAnswerError: There is no answer in time, it is no HTTP, or a status that asks for another try (`LATER`).
            OddAnswerError: The answer is too long.
        """
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout or self._timeout)
        try:
            connection.request(method, self._path + path, body, {**self._headers, **(headers or {})})
            response = connection.getresponse()
            data = response.read(LONGEST_ANSWER + 1)
            answered = {key.lower(): value for key, value in response.getheaders()}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswerError(f"{method} {path}: {error or type(error).__name__}") from None
        finally:
            connection.close()
        if response.status in LATER or response.status >= 500:
            raise NoAnswerError(f"{method} {path} was answered {response.status}")
        if len(data) > LONGEST_ANSWER:
            raise OddAnswerError(f"{method} {path} was answered with more than {LONGEST_ANSWER} bytes")
        text = data.decode(errors="replace").strip()
        return Answer(response.status, text, answered, f"{method} {path}", _time_of(answered))


class TokenService:
    """A metadata service whose answers need a token that is asked for first (AWS's IMDSv2, Alibaba's hardened mode).

    Args:
        header: The header that carries the token; with `-ttl-seconds` it asks for one.
        required: Without it, a service that gives no token is asked without one.
    """

    def __init__(self, service: MetadataService, header: str, *, required: bool) -> None:
        self._service = service
        self._header = header
        self._required = required
        self._token: str | None = None

    def ask(self, path: str) -> Answer:
        """Send one request, with a fresh token if the last one is no longer taken.

        Raises:
            NoAnswerError: As of `MetadataService.ask`.
            OddAnswerError: There is no token, or an answer is too long.
        """
        known = self._token is not None
        answer = self._ask(path)
        if answer.status == 401 and known:
            self._token = None
            answer = self._ask(path)
        return answer

    def _ask(self, path: str) -> Answer:
        if self._token is None:
            self._token = self._new_token()
        return self._service.ask(path, {self._header: self._token} if self._token else {})

    def _new_token(self) -> str:
        answer = self._service.ask(TOKEN_PATH, {f"{self._header}-ttl-seconds": str(TOKEN_LIFE)}, method="PUT")
        if answer.status == 200 and answer.text and answer.text.isprintable() and " " not in answer.text:
            return answer.text
        if self._required:
            raise OddAnswerError(f"{answer.asked} was answered {answer.status}, without a token")
        return ""


def _time_of(headers: Mapping[str, str]) -> float:
    """The `Date` of an answer, rounded up: a machine's own clock may be wrong, and a deadline must not be too late."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() + 1
    except (KeyError, ValueError):
        return time.time()
