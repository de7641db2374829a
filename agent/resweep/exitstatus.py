"""How this process ends, as far as that can be seen without changing anything in it.

A run outside a sweep that is neither finished by hand nor used as a context manager ends when the interpreter does. No
hook is replaced to learn the exit status. What can be seen from an atexit function:

* an uncaught exception: the interpreter leaves it in ``sys.last_value`` before it runs atexit functions;
* a main program that ran to its end: its frame stopped at a return;
* ``sys.exit(…)``: neither of the two. The code is not to be seen; it is taken for 0, and the run can still be resumed.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from types import FrameType

CRASH = 1
INTERRUPT = 255
"""W&B's exit code for KeyboardInterrupt."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An exit code, and whether it was seen or only supposed."""

    exit_code: int
    certain: bool


def code_of(error: BaseException | None) -> int:
    """The exit code of a block that ended with `error`."""
    if error is None:
        return 0
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPT
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code if isinstance(error.code, int) else CRASH
    return CRASH


class Witness:
    """Remembers how things stand when a run begins, and tells at the end how the program ended."""

    def __init__(self) -> None:
        self._before = _last_error()
        self._main = _main_frame()

    def ending(self) -> Ending:
        """Called from an atexit function."""
        error = _last_error()
        if error is not None and error is not self._before and not _is_interactive():
            return Ending(code_of(error), certain=True)
        return Ending(0, certain=self._main is not None and _returned(self._main))


def _last_error() -> BaseException | None:
    return getattr(sys, "last_value", None)


def _is_interactive() -> bool:
    """In a notebook or at a prompt an error ends a cell, not the program."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def _main_frame() -> FrameType | None:
    """The outermost frame of the main thread: the program itself."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _returned(frame: FrameType) -> bool:
    from opcode import opname

    return 0 <= frame.f_lasti < len(frame.f_code.co_code) and opname[frame.f_code.co_code[frame.f_lasti]].startswith(
        "RETURN_"
    )
