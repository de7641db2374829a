"""The thread that asks a heavy search, so that the main loop never waits for one."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_scheduler.store import AskOutcome

GOODBYE = 1.0
"""Seconds for which the end of an agent waits for a search that computes."""


@dataclass(frozen=True, slots=True)
class Question:
    """Slots that need runs.

    Attributes:
        agents: The slots.
        alone: Ask the search here, whether or not a search service seems to be there.
    """

    agents: tuple[str, ...]
    alone: bool = False


class AskThread:
    """Answers one question at a time. `put`, `take`, `busy` and `close` belong to the main thread.

    Args:
        answer: Called in the thread; it reports errors of its own by returning them.
        wake: Called when there is something to take.
    """

    def __init__(
        self,
        answer: Callable[[Question, Callable[[], float]], AskOutcome | AgentError],
        wake: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._answer = answer
        self._wake = wake
        self._clock = clock
        self._questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self._answers: deque[AskOutcome | AgentError] = deque()
        self._open = 0
        self._thread: threading.Thread | None = None
        self._closing = threading.Lock()
        self._closed = False

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._open > 0

    def put(self, question: Question) -> None:
        """Ask; the thread starts with the first question."""
        self._open += 1
        self._questions.put(question)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="asking", daemon=True)
            self._thread.start()

    def take(self) -> AskOutcome | AgentError | None:
        """The answer, None while there is none."""
        if not self._answers:
            return None
        self._open -= 1
        return self._answers.popleft()

    def close(self) -> None:
        """Answer nothing more; a search that computes for long is left to itself."""
        with self._closing:
            self._closed = True  # what `wake` writes to may be somebody else's file by then
        self._questions.put(None)
        if self._thread is not None:
            self._thread.join(GOODBYE)

    def _work(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                answer = self._answer(question, self._clock)
            except Exception as error:  # whatever a search may raise must end the agent, not hang it
                answer = AgentError(f"the search failed: {type(error).__name__}: {error}", ExitCode.UNEXPECTED)
            self._answers.append(answer)
            with self._closing:
                if not self._closed:
                    self._wake()
