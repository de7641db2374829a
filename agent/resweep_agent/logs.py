"""Log records are an event name and data; what they look like is decided here and set by the command alone."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from resweep_agent.streams import write_through

LINES_WAITING = 1000
"""Lines that wait for a reader of standard error; when there are more, the oldest are lost."""
LAST_LINES = 2.0
"""Seconds that the end of the agent waits for what was not read yet."""
ROOT = "resweep_agent"
"""The logger whose level and handler `configure` sets."""


@dataclass(frozen=True, slots=True)
class Happening:
    """The message of a record: rendered as text only by handlers that know nothing of it."""

    name: str
    data: dict[str, object]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{name}={_word(value)}" for name, value in self.data.items())])


def event(logger: logging.Logger, level: int, name: str, **data: object) -> None:
    """Log that something happened: `name` is stable, `data` says to whom and what follows. None is left out."""
    if logger.isEnabledFor(level):
        given = {key: value for key, value in data.items() if value is not None}
        logger.log(level, Happening(name, given), stacklevel=2)


class TextFormatter(logging.Formatter):
    """`12:30:01 run-started run=k3j2 attempt=2`, with the level in front when it is a warning or worse."""

    def format(self, record: logging.LogRecord) -> str:
        words = [time.strftime("%H:%M:%S", time.localtime(record.created))]
        if record.levelno >= logging.WARNING:
            words.append(record.levelname.lower() + ":")
        text = " ".join([*words, record.getMessage()])
        return text if record.exc_info is None else f"{text}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (seconds since the epoch), `level`, `event`, and the data."""

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {"time": round(record.created, 3), "level": record.levelname.lower()}
        if isinstance(record.msg, Happening):
            values |= {"event": record.msg.name, **record.msg.data}
        else:
            values["event"] = record.getMessage()
        if record.exc_info is not None:
            values["traceback"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


def _word(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(character in text for character in ' "\n=') else text


class StandardErrorHandler(logging.Handler):
    """Shows the log from a thread of its own, so that a reader who stops reading holds up the log and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stderr
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._ending = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="resweep-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, soon."""
        try:
            self.say(self.format(record))
        except Exception:
            self.handleError(record)

    def say(self, text: str) -> None:
        """Show a text as it is, soon."""
        with self._changed:
            if len(self._waiting) == LINES_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(text)
            self._changed.notify()

    def close(self) -> None:
        """Show what is left, if it is read in time."""
        with self._changed:
            ended, self._ending = self._ending, True
            self._changed.notify()
        if not ended:
            self._thread.join(LAST_LINES)
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ending)
                if not self._waiting:
                    return
                text = self._waiting.popleft()
                lost, self._lost = self._lost, 0
            if lost:
                what = {"msg": Happening("log-lines-lost", {"number": lost}), "levelno": logging.WARNING}
                self._show(self.format(logging.makeLogRecord({**what, "levelname": "WARNING"})))
            self._show(text)

    def _show(self, text: str) -> None:
        if self._stream is None:  # it was closed before we were started
            return
        try:
            write_through(self._stream, (text + "\n").encode("utf-8", "backslashreplace"))
        except (OSError, ValueError):
            self._stream = None


def configure(*, level: int, log_format: str) -> StandardErrorHandler:
    """Send the agent's log to standard error as `text` or `json`, from `level` on. For commands only.

    Returns:
        What shows it; its `close` shows the last lines.
    """
    handler = StandardErrorHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger(ROOT)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)
    return handler
