"""How `sweep-agent` ends. The numbers are those of the `resweep` command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status of `sweep-agent`; `meaning` is the line that `--help` prints."""

    meaning: str

    OK = 0, "the sweep is finished, --count or --max-wait is reached, or Ctrl-C was pressed once"
    UNEXPECTED = 1, "an error of resweep itself; the runs were given back"
    USAGE = 2, "a wrong option, name or address"
    UNKNOWN_SWEEP = 3, "no such sweep, or it is in another project"
    REDIS_LOST = 4, "Redis cannot be reached"
    REDIS_REFUSED = 5, "Redis answers, and refuses (password, rights, memory, version)"
    ILLEGAL_STATE = 6, "the agent's place was taken by a newer agent of the same name"
    COMMAND_NOT_FOUND = 7, "the sweep's command or program is not on this machine"
    FLAPPING = 8, "too many runs failed"
    PREEMPTED = 75, "a notice came (a signal, SLURM, the cloud); the runs are on the run queue"

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member


class AgentError(Exception):
    """Ends the agent: one line that says what happened and what to do.

    Args:
        message: The line.
        exit_code: The status that the process ends with.
    """

    def __init__(self, message: str, exit_code: ExitCode) -> None:
        super().__init__(message)
        self.exit_code = exit_code
