"""Why the agent ends, once it is decided; it then claims nothing more and waits for what runs."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.logs import event

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """The exit code and, for errors, the line that says why."""

    exit_code: ExitCode
    why: str

    @property
    def is_error(self) -> bool:
        """True when the line is shown as an error."""
        return self.exit_code not in (ExitCode.OK, ExitCode.PREEMPTED)


class Verdict:
    """The first ending counts; but a notice comes before every good ending."""

    def __init__(self) -> None:
        self.ending: Ending | None = None

    def decide(self, exit_code: ExitCode, why: str) -> None:
        """Decide to end."""
        known = self.ending
        if known is not None and (known.is_error or exit_code is not ExitCode.PREEMPTED):
            return
        self.ending = Ending(exit_code, why)
        event(_log, logging.INFO, "agent-ending", why=why)

    def result(self) -> ExitCode:
        """The exit code of an ending that is no error.

        Raises:
            AgentError: The ending is an error.
        """
        ending = self.ending or Ending(ExitCode.OK, "")
        if ending.is_error:
            raise AgentError(ending.why, ending.exit_code)
        return ending.exit_code
