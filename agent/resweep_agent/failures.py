"""From the errors of store and config to the exit code that the agent ends with."""

from __future__ import annotations

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_scheduler.config import ConfigError
from resweep_scheduler.store import (
    IllegalTransitionError,
    InvalidNameError,
    InvalidUrlError,
    StoreRefusedError,
    StoreUnavailableError,
    UnknownRunError,
    UnknownSweepError,
)

EXIT_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (UnknownSweepError, ExitCode.UNKNOWN_SWEEP),
    (UnknownRunError, ExitCode.UNKNOWN_SWEEP),
    (StoreUnavailableError, ExitCode.REDIS_LOST),
    (StoreRefusedError, ExitCode.REDIS_REFUSED),
    (IllegalTransitionError, ExitCode.ILLEGAL_STATE),
    (InvalidNameError, ExitCode.USAGE),
    (InvalidUrlError, ExitCode.USAGE),
    (ConfigError, ExitCode.USAGE),
)
"""How the agent ends on each error of the store."""


def agent_error(error: Exception) -> AgentError:
    """The error as the agent ends with it."""
    if isinstance(error, AgentError):
        return error
    for kind, exit_code in EXIT_CODES:
        if isinstance(error, kind):
            return AgentError(str(error), exit_code)
    return AgentError(str(error), ExitCode.UNEXPECTED)
