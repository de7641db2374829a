"""Log records are an event name and data; what they look like is decided here and set by the command alone."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import Any

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


def configure(*, level: int, log_format: str) -> None:
    """Send the agent's log to standard error as `text` or `json`, from `level` on. For commands only."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger(ROOT)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level)
