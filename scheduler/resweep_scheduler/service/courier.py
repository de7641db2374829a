"""Deliveries outside the queue of jobs, in a thread of their own: a receiver that hangs holds up nobody else."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from resweep_scheduler.store import StoreError, UnknownSweepError

_log = logging.getLogger(__name__)


class Courier:
    """Makes the deliveries of one sweep after the other, in the order in which they were asked for.

    Its thread ends with the process: what it was at is still noted in Redis, and delivered by the next one.
    """

    def __init__(self) -> None:
        self._errands: queue.SimpleQueue[tuple[str, Callable[[], object]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._asked_for: set[str] = set()
        self._thread: threading.Thread | None = None

    def ask_for(self, sweep_id: str, deliver: Callable[[], object]) -> None:
        """Call `deliver` soon, unless the sweep's last errand is not done yet."""
        with self._lock:
            if sweep_id in self._asked_for:
                return
            self._asked_for.add(sweep_id)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()
        self._errands.put((sweep_id, deliver))

    def _run(self) -> None:
        while True:
            sweep_id, deliver = self._errands.get()
            try:
                deliver()
            except UnknownSweepError:
                pass  # it was removed meanwhile
            except StoreError as error:
                _log.warning("deliveries-interrupted sweep=%s: %s", sweep_id, error)
            except Exception:
                _log.exception("deliveries-failed sweep=%s", sweep_id)
            finally:
                with self._lock:
                    self._asked_for.discard(sweep_id)
