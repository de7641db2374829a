"""W&B's ``scheduler:``: which engine searches. It is read into the `method` and `search` that mean the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from resweep_scheduler.config.faults import FaultLog
from resweep_scheduler.config.numbers import rule_error
from resweep_scheduler.config.reading import read_model
from resweep_scheduler.config.sections import SearchOptions


def _available_engine(value: object) -> object:
    if value == "ax":
        raise rule_error("the engine ax is not supported", "Write optuna, or remove scheduler and use method: bayes.")
    return value


class Scheduler(BaseModel):
    """W&B's block that names a search engine.

    Attributes:
        engine: `optuna`: a sampler of Optuna proposes the runs; `wandb`: what `method` says does.
        source: A Python file; refused, because nothing that is stored with a sweep names code to call.
        optimizer: With `source` a function in it; alone the name of a sampler, or what `search` takes.
        search_space: A function in `source`; refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Annotated[Literal["optuna", "wandb"], BeforeValidator(_available_engine)]
    source: str | None = None
    optimizer: Annotated[str, Field(min_length=1)] | dict[str, JsonValue] | None = None
    search_space: str | None = None


def read_scheduler(raw: object, log: FaultLog) -> tuple[str | None, SearchOptions | None]:
    """The engine, and the sampler if the block names one; faults go to `log`."""
    path = ("scheduler",)
    if isinstance(raw, Mapping):
        raw = {key: value for key, value in raw.items() if value is not None}
    block = read_model(Scheduler, raw, path, log)
    if block is None:
        return None, None
    if block.search_space is not None:
        log.add(
            (*path, "search_space"),
            "a function that draws parameters is not run by agents",
            block.search_space,
            "Write parameters:, where a categorical may bring parameters of its own (choices:), and remove it.",
        )
    if block.source is not None:
        # The function that optimizer names lies in the file: one mistake, one line.
        log.add(
            (*path, "source"),
            "Python code that makes the study is not run by agents",
            block.source,
            "Name the sampler instead, for instance search: {sampler: tpe, options: {multivariate: true}}, "
            "and remove source and optimizer.",
        )
    elif block.optimizer is not None:
        if block.engine != "optuna":
            rule, cure = "is for the engine optuna", "Remove it, or write engine: optuna."
            log.add((*path, "optimizer"), rule, block.optimizer, cure, at_key=True)
        elif isinstance(block.optimizer, str):
            return block.engine, _named(block.optimizer, log)
        else:
            return block.engine, read_model(SearchOptions, block.optimizer, (*path, "optimizer"), log)
    return block.engine, None


def _named(sampler: str, log: FaultLog) -> SearchOptions | None:
    inner = FaultLog()
    options = read_model(SearchOptions, {"sampler": sampler}, (), inner)
    for fault in inner.sorted():
        log.add(("scheduler", "optimizer"), fault.rule, sampler, fault.cure)
    return options
