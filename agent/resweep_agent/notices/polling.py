"""The thread that asks for notices: it finds out whose this machine is, and then asks that provider now and then."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from resweep_agent.logs import event
from resweep_agent.notices.base import Notice
from resweep_agent.notices.metadata import NoAnswerError, OddAnswerError

_log = logging.getLogger(__name__)

TRIES = 6
"""How often a provider that does not answer is asked whether it is there: half a minute, as a machine or pod may be up
before its metadata service is."""
PAUSE = 5.0
"""Seconds between two such tries."""


class Provider(ABC):
    """Whoever gives this machine and takes it away: a cloud, or SLURM.

    All methods are called from one thread, but for `close`, which the main thread calls.

    Attributes:
        name: As in `--notice`, and the source of its notices.
        tries: How often it is asked whether it is there, if it does not answer.
    """

    name: str
    tries: int = TRIES

    @property
    @abstractmethod
    def interval(self) -> float:
        """Seconds from the last question to the next."""

    @abstractmethod
    def recognise(self) -> bool:
        """Return whether this machine is one that may be taken away (spot, preemptible).

        Raises:
            NoAnswerError: Nobody answers.
            OddAnswerError: This machine is not this provider's, or the environment switches the question off.
        """

    @abstractmethod
    def ask(self) -> Notice | None:
        """Ask whether this machine goes. It may take as long as the provider lets a question wait.

        Raises:
            NoAnswerError: Nobody answers just now.
            OddAnswerError: The answer makes no sense.
        """

    def close(self, *, obeyed: bool) -> None:  # noqa: B027  # most have nothing to do
        """The agent ends.

        Args:
            obeyed: Because of a notice of this provider; what ran is on the run queue.

        Raises:
            NoAnswerError: Nobody answers.
            OddAnswerError: The answer makes no sense.
        """


class PolledSource:
    """A notice source that asks providers in a thread of its own.

    The providers are asked in turn whether this machine is theirs; the first one that says so is asked for notices from
    then on, and what it cannot answer at times is asked again. If it is nobody's, the thread ends. Neither its start
    nor its end waits for an answer.

    Args:
        providers: In the order in which they are asked.
        named: Those that somebody named: that they are not there is worth a warning.
    """

    def __init__(self, providers: Sequence[Provider], *, named: frozenset[str] = frozenset()) -> None:
        self._providers = providers
        self._named = named
        self._provider: Provider | None = None
        self._notice: Notice | None = None
        self._preemptible = False
        self._away = False
        self._lock = threading.Lock()
        self._wake_descriptor: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="resweep-notices", daemon=True)

    @property
    def preemptible(self) -> bool:
        """True once a provider said so."""
        return self._preemptible

    def start(self, wake_descriptor: int) -> None:
        """Start the thread."""
        self._wake_descriptor = wake_descriptor
        self._thread.start()

    def poll(self) -> Notice | None:
        """Return the notice if one came."""
        return self._notice

    def stop(self) -> None:
        """Take leave of the provider. The thread ends with the answer that it waits for."""
        with self._lock:
            self._wake_descriptor = None
        self._stopping.set()
        if self._provider is None:
            return
        try:
            self._provider.close(obeyed=self._notice is not None and not self._notice.hint)
        except (NoAnswerError, OddAnswerError) as error:
            event(_log, logging.INFO, "notice-not-acknowledged", source=self._provider.name, reason=error)

    def find(self, pause: Callable[[float], bool]) -> Provider | None:
        """The provider of this machine, None if there is none.

        Args:
            pause: Waits so many seconds; True when there is no more time.
        """
        silent = list(self._providers)
        reasons: dict[str, Exception] = {}
        for number in range(1, max((provider.tries for provider in silent), default=0) + 1):
            if number > 1 and (not silent or pause(PAUSE)):
                break
            for provider in [each for each in silent if each.tries >= number]:
                try:
                    self._preemptible = provider.recognise()
                    event(_log, logging.INFO, "machine-of", source=provider.name, spot=self._preemptible)
                    return provider
                except NoAnswerError as error:
                    reasons[provider.name] = error
                except OddAnswerError as error:
                    reasons[provider.name] = error
                    silent.remove(provider)
        for name, reason in reasons.items():
            level = logging.WARNING if name in self._named else logging.DEBUG
            event(_log, level, "no-notices-from", source=name, reason=reason)
        return None

    def step(self, provider: Provider) -> bool:
        """Ask once; False when there is nothing more to ask for, because the notice came."""
        try:
            notice = provider.ask()
        except (NoAnswerError, OddAnswerError) as error:
            self._failed(provider, error)
            return True
        if self._away:
            self._away = False
            event(_log, logging.INFO, "notice-source-back", source=provider.name)
        if notice is None or (self._notice is not None and str(notice) == str(self._notice)):
            return True
        self._notice = notice
        self._wake()
        return notice.hint

    def _failed(self, provider: Provider, error: Exception) -> None:
        if not self._away:
            self._away = True
            event(_log, logging.WARNING, "notice-source-away", source=provider.name, reason=error, next="asked again")

    def _run(self) -> None:
        try:
            self._provider = self.find(self._stopping.wait)
        except Exception:
            _log.exception("notice-fault")  # of ours: an agent without notices is better than none
            return
        provider = self._provider
        if provider is None:
            return
        if self._preemptible:
            self._wake()
        more = True
        while more and not self._stopping.is_set():
            asked = time.monotonic()
            try:
                more = self.step(provider)
            except Exception as error:
                self._failed(provider, error)
            self._stopping.wait(max(0.0, asked + provider.interval - time.monotonic()))

    def _wake(self) -> None:
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._wake_descriptor is not None:
                os.write(self._wake_descriptor, b"!")
