"""Writing to what this process was started with: a file, a terminal, a pipe whose reader may sleep."""

from __future__ import annotations

import os
from typing import TextIO


def write_through(stream: TextIO, data: bytes) -> None:
    """Write UTF-8 to a stream, past its buffer where it has a descriptor.

    Who waits for a reader inside the buffer holds its lock, and the interpreter, which flushes it, could not end.

    Raises:
        OSError: The reader went away.
        ValueError: The stream is closed.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, AttributeError):  # no file: a test's, a notebook's
        if hasattr(stream, "buffer"):
            stream.buffer.write(data)
        else:
            stream.write(data.decode("utf-8", "replace"))
        stream.flush()
        return
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
