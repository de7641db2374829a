"""The sweep config as everything else reads it: complete, checked, frozen."""

from __future__ import annotations

import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resweep_scheduler.config.faults import ConfigError, Fault
from resweep_scheduler.config.metric import Metric
from resweep_scheduler.config.numbers import Whole
from resweep_scheduler.config.parameters import Parameter
from resweep_scheduler.config.prior import Prior
from resweep_scheduler.config.sections import Checkpoint, Lease, Preemption, Retry, SearchOptions, Source
from resweep_scheduler.config.stopping import StoppingRule
from resweep_scheduler.config.template import DEFAULT_COMMAND
from resweep_scheduler.config.webhooks import Webhook

MAX_SEED = 2**63 - 1


class SweepConfig(BaseModel):
    """A sweep, normalised: every default is filled in. Made by `load_sweep` and `parse_sweep`, which check it.

    Attributes:
        method: How new runs get their parameters.
        parameters: The search space, nested as the user wrote it.
        metric: What is optimised; None for grid and random without a metric, and with `metrics`.
        metrics: What is optimised when there are several goals, at least two; else empty.
        program: The training script; None if the command names what is run, or a function is.
        command: Template of the command line of a run.
        name, description, entity, project: Texts; None if not given.
        run_cap: Most runs that the sweep makes; None for no limit.
        early_terminate: Rule that stops weak runs; None for none.
        seed: Seed of the search; drawn when the config was read if the user gave none.
        preemption, retry, lease, checkpoint: How runs survive.
        search: The sampler of Optuna that ``bayes`` uses; None for its default.
        scheduler: The Python file whose functions make the study and draw the parameters that ``bayes`` uses; None for
            none. With ``scheduler.search_space`` there are no `parameters`.
        webhooks: Whom a search service tells what happens.
        priors: Runs of before the sweep that its search learns from; no key of the YAML.
        warnings: What was accepted and will not have the effect that one might expect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: Literal["grid", "random", "bayes"]
    parameters: dict[str, Parameter]
    metric: Metric | None = None
    metrics: tuple[Metric, ...] = ()
    program: Annotated[str, Field(min_length=1)] | None = None
    command: tuple[str, ...] = DEFAULT_COMMAND
    name: str | None = None
    description: str | None = None
    entity: str | None = None
    project: str | None = None
    run_cap: Annotated[Whole, Field(ge=1)] | None = None
    early_terminate: Annotated[StoppingRule, Field(discriminator="type")] | None = None
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)]
    preemption: Preemption = Preemption()
    retry: Retry = Retry()
    lease: Lease = Lease()
    checkpoint: Checkpoint = Checkpoint()
    search: SearchOptions | None = None
    scheduler: Source | None = None
    webhooks: tuple[Webhook, ...] = ()
    priors: tuple[Prior, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def open_names(self) -> bool:
        """Whether the names of the parameters are known only when a run is drawn."""
        return self.scheduler is not None and self.scheduler.search_space is not None

    def to_json(self) -> str:
        """The config as one line of JSON; `from_json` gives back an equal config."""
        return json.dumps(self.model_dump(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: The text is not what this version writes.
        """
        try:
            return cls.model_validate(json.loads(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where, value = ".".join(str(part) for part in first["loc"]), first["input"]
            rule = f"a stored config must fit this version: {first['msg']}"
        except ValueError as error:
            where, value, rule = "", text, f"a stored config must be JSON: {error}"
        cure = "Create the sweep again, or use the version of resweep that made it."
        raise ConfigError([Fault(where, None, None, rule, value, cure)], "stored sweep config")
