"""What the exit status of `resweep` says. `sweep-agent` uses the same numbers for the same things.

The epilogue of `resweep --help` and docs/agents.md list them; tests compare all of them.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Each member's text is what `--help` prints for it."""

    meaning: str

    def __new__(cls, number: int, meaning: str) -> ExitCode:
        member = int.__new__(cls, number)
        member._value_ = number
        member.meaning = meaning
        return member

    OK = 0, "done; for `start`: the sweep is finished"
    UNEXPECTED = 1, "a fault of resweep itself: please report it"
    USAGE = 2, "wrong arguments, or a config with faults"
    UNKNOWN = 3, "no such sweep or run"
    REDIS_UNAVAILABLE = 4, "Redis does not answer"
    REDIS_REFUSED = 5, "Redis refuses: password, rights, memory, read-only, too old"
    ILLEGAL_STATE = 6, "the state of the sweep or run does not allow it"
    COMMAND_NOT_FOUND = 7, "the program or command of the sweep is not there"
    FLAPPING = 8, "runs kept failing, so the agent stopped"
    RUNS_FAILED = 9, "`start`: the sweep is finished, some runs failed or crashed"
    SBATCH_REFUSED = 10, "`slurm --submit`: sbatch refused the job, or did not answer"
    PREEMPTED = 75, "ended by a notice (a signal, SLURM, the cloud); its runs are on the run queue"
    INTERRUPTED = 130, "ended by Ctrl-C"


def exit_code_of(error: Exception) -> ExitCode | None:
    """Return the exit code for an error that was foreseen, else None."""
    from resweep_scheduler.config import ConfigError
    from resweep_scheduler.service.server import ServerError
    from resweep_scheduler.store import errors

    kinds: tuple[tuple[type[Exception], ExitCode], ...] = (
        (ConfigError, ExitCode.USAGE),
        (errors.InvalidNameError, ExitCode.USAGE),
        (errors.InvalidUrlError, ExitCode.USAGE),
        (errors.UnknownSweepError, ExitCode.UNKNOWN),
        (errors.UnknownRunError, ExitCode.UNKNOWN),
        (errors.StoreUnavailableError, ExitCode.REDIS_UNAVAILABLE),
        (ServerError, ExitCode.REDIS_UNAVAILABLE),
        (errors.StoreRefusedError, ExitCode.REDIS_REFUSED),
        (errors.SweepIdTakenError, ExitCode.ILLEGAL_STATE),
        (errors.IllegalTransitionError, ExitCode.ILLEGAL_STATE),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), None)
