"""Keeping Optuna's messages about studies in memory out of other people's terminals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_optuna_log() -> Iterator[None]:
    """In this block Optuna's storage says nothing in this thread; its settings and other threads are left alone."""
    thread = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger = logging.getLogger("optuna.storages._in_memory")
    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)
