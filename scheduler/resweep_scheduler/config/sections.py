"""The keys that W&B does not have: ``preemption``, ``retry``, ``lease``, ``checkpoint``, ``search``."""

from __future__ import annotations

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
