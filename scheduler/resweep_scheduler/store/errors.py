"""What the store raises.

    StoreError
    ├── StoreUnavailableError     nobody answers (refused, cut, loading, failing over): the same call may work later
    ├── StoreRefusedError         the server answered no (password, rights, memory, read-only, too old)
    ├── UnknownSweepError         no sweep has this id
    ├── UnknownRunError           no run has this id in the project
    │   └── RunIdTakenError       the id belongs to a run, but not to the one that was meant
    ├── SweepIdTakenError         another sweep of the server has the id
    ├── IllegalTransitionError    the state does not allow what was asked
    │   └── AgentReplacedError    another process works under the agent's name now
    ├── InvalidNameError          an id or a name cannot be a key
    └── InvalidUrlError           the URL of the server cannot be understood

A stale claim is an answer of a transition, not an exception: it is expected, and its caller must act on it.
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of all errors of the store."""


class StoreUnavailableError(StoreError):
    """The server cannot be reached now; whatever was sent may or may not have been executed."""


class StoreRefusedError(StoreError):
    """The server answered, and refused.

    Args:
        message: One line: what was refused, by which server, what to do.
        temporary: True when the same call may succeed later without a change of ours (memory, failover, full disk).
    """

    def __init__(self, message: str, *, temporary: bool = False) -> None:
        super().__init__(message)
        self.temporary = temporary


class UnknownSweepError(StoreError):
    """No sweep has this id."""


class UnknownRunError(StoreError):
    """No run has this id in the project."""


class IllegalTransitionError(StoreError):
    """The sweep's or run's state does not allow the transition."""


class AgentReplacedError(IllegalTransitionError):
    """A newer process has registered under the same agent id: this one is over."""


class InvalidNameError(StoreError, ValueError):
    """An id or name has characters that a key, a file name or W&B does not allow."""


class InvalidUrlError(StoreError, ValueError):
    """The URL of the server cannot be understood; the message hides its password."""


class RunIdTakenError(UnknownRunError):
    """A run id of an offer belongs to another run.

    Args:
        message: One line: the rule, the id, what to do.
        run_id: The id.
    """

    def __init__(self, message: str, run_id: str = "") -> None:
        super().__init__(message)
        self.run_id = run_id


class SweepIdTakenError(StoreError):
    """Another sweep of this server has the id."""
