"""Keys that hold a mapping: ``preemption``, ``retry``, ``lease``, ``checkpoint``, ``search``, which W&B does not have,
and what is kept of its ``scheduler``."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool, model_validator

from resweep_scheduler.config.numbers import Positive, Real, Whole, rule_error
from resweep_scheduler.config.samplers import check_options, check_sampler
from resweep_scheduler.store.checkpoints import checkpoint_url_fault

_Count = Annotated[Whole, Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Preemption(_Section):
    """What happens when a machine is about to be taken away.

    Attributes:
        auto: Whether a notice to the agent counts as preempting even if the script never says so; None leaves it to
            the agent (on under SLURM and on spot machines).
        signal: What the script is sent after a notice; "none": only the flag of the SDK tells it.
        grace: Seconds between that and SIGKILL.
        max_attempts_without_progress: A run preempted that often in a row without a new step becomes failed; 0 = never.
            Attempts that logged something and were ended by their machines may be ten times as many.
    """

    auto: StrictBool | None = None
    signal: Literal["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "none"] = "SIGTERM"
    grace: Annotated[Real, Field(ge=0)] = 30.0
    max_attempts_without_progress: _Count = 3


class Retry(_Section):
    """How often one run is retried by itself after it failed (exit status ≠ 0) or crashed (no status)."""

    failed: _Count = 0
    crashed: _Count = 0


class Lease(_Section):
    """How long an attempt owns its run without a sign of life.

    Attributes:
        duration: Seconds after the last heartbeat until another agent may take the run; at least 1.
        heartbeat: Seconds between heartbeats; at most a third of the duration. Default 10, or a sixth of the duration
            where that is less.
    """

    duration: Annotated[Real, Field(ge=1)] = 60.0
    heartbeat: Positive = 10.0

    @model_validator(mode="before")
    @classmethod
    def _follow_short_leases(cls, data: Any) -> Any:
        if isinstance(data, dict) and "heartbeat" not in data:
            duration = data.get("duration")
            if isinstance(duration, int | float) and not isinstance(duration, bool) and 1 <= duration < 60:
                return {**data, "heartbeat": duration / 6}
        return data

    @model_validator(mode="after")
    def _leave_room_for_lost_heartbeats(self) -> Self:
        if self.heartbeat * 3 > self.duration * (1 + 1e-9):
            raise rule_error(
                f"must be at most a third of the lease's duration, {self.duration:g} s",
                f"Write heartbeat: {self.duration / 6:g}, or lengthen duration.",
                key="heartbeat",
            )
        return self


def _check_checkpoint_url(value: object) -> object:
    fault = checkpoint_url_fault(value) if isinstance(value, str) else None
    if fault is not None:
        raise rule_error(fault.rule, fault.cure, shown=fault.shown)
    return value


def _check_checkpoint_folder(value: object) -> object:
    if isinstance(value, str) and "://" in value:
        fault = checkpoint_url_fault(value)
        shown = value if fault is None else fault.shown
        raise rule_error("must be a folder on this machine", "Write a URL as url.", shown=shown)
    return value


class Checkpoint(_Section):
    """Where checkpoints go, and how many of each run are kept. With neither a folder nor a URL: the agent's directory.

    Attributes:
        dir: A folder, which all machines share if runs are to resume on another one.
        url: An object store: s3://, gs://, az://, file:// or memory://.
        keep: How many checkpoints of a run are kept, the newest ones.
    """

    dir: Annotated[str, Field(min_length=1), BeforeValidator(_check_checkpoint_folder)] | None = None
    url: Annotated[str, BeforeValidator(_check_checkpoint_url)] | None = None
    keep: Annotated[Whole, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _be_in_one_place(self) -> Self:
        if self.dir is not None and self.url is not None:
            raise rule_error("checkpoints go to one place, and dir is given, too", "Remove one of the two.", key="url")
        return self


class SearchOptions(_Section):
    """The sampler of Optuna behind ``method: bayes`` and its options."""

    sampler: Annotated[str, BeforeValidator(check_sampler)] = "tpe"
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        check_options(self.sampler, self.options)
        return self


def _python_file(value: object) -> object:
    if not isinstance(value, str) or not value.isprintable() or not _module_name(value).isidentifier():
        raise rule_error("must be the name of a Python file", "Write for instance source: study.py.")
    if not value.endswith(".py"):
        raise rule_error("must be the name of a Python file, which ends in .py", f"Write source: {value}.py.")
    return value


def _module_name(file: str) -> str:
    return PurePosixPath(file).name.removesuffix(".py")


def _function_name(value: object) -> object:
    if not isinstance(value, str) or not value.isidentifier():
        raise rule_error("must be the name of a function in source", "Write the name alone, for instance make_study.")
    return value


class Source(_Section):
    """A Python file whose functions direct the search: W&B's ``scheduler``, in its words.

    It is never found by this name: whoever executes it was given a file by its own user (search/source.py), and only
    compares the two names.

    Attributes:
        engine: Optuna.
        source: The file, as the config names it.
        optimizer: The function in it that makes the study; None: a study with Optuna's default sampler.
        search_space: The function in it that draws the parameters of a run; None: `parameters` says what is drawn.
    """

    engine: Literal["optuna"] = "optuna"
    source: Annotated[str, BeforeValidator(_python_file)]
    optimizer: Annotated[str, BeforeValidator(_function_name)] | None = None
    search_space: Annotated[str, BeforeValidator(_function_name)] | None = None

    @property
    def file(self) -> str:
        """The name of the file without its folder."""
        return PurePosixPath(self.source).name

    @property
    def option(self) -> str:
        """How people give the file to a command; quoted for a shell, because the text may come from anybody."""
        return f"--source {shlex.quote(self.source)}"

    @property
    def functions(self) -> dict[str, str]:
        """The functions that are used, by the key that names each."""
        named = {"optimizer": self.optimizer, "search_space": self.search_space}
        return {key: name for key, name in named.items() if name is not None}
