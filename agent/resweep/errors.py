"""What the SDK raises, and only from ``init`` and the checkpoint functions; ``log`` never raises.

    Error
    ├── UsageError    what was asked for cannot be done: the arguments or the environment must change
    └── CommError     the store does not answer, or refuses

A run that was taken over by another attempt raises nothing: its agent ends it, and until then it logs nothing.
"""

from __future__ import annotations


class Error(Exception):
    """Base of all errors of the SDK."""


class UsageError(Error):
    """An argument, an environment variable or an order of calls that cannot work; the message says what can."""


class CommError(Error):
    """The store does not answer or refuses, longer than the SDK waits."""
