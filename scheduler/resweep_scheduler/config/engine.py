"""W&B's ``scheduler:``: which engine searches, and the Python file whose functions direct it.

Without a file the block is read into the `method` and `search` that mean the same. With one it is kept as it is: the
functions are called by those alone who were given the file by their own user (search/source.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from resweep_scheduler.config.faults import FaultLog
from resweep_scheduler.config.numbers import rule_error
from resweep_scheduler.config.reading import read_model
from resweep_scheduler.config.sections import SearchOptions, Source

_PATH = ("scheduler",)


def _available_engine(value: object) -> object:
    if value == "ax":
        raise rule_error("the engine ax is not supported", "Write optuna, or remove scheduler and use method: bayes.")
    return value


class Scheduler(BaseModel):
    """W&B's block that names a search engine.

    Attributes:
        engine: `optuna`: a study of Optuna proposes the runs; `wandb`: what `method` says does.
        source: A Python file.
        optimizer: With `source` a function in it that makes the study; alone the name of a sampler, or what `search`
            takes.
        search_space: A function in `source` that draws the parameters of a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Annotated[Literal["optuna", "wandb"], BeforeValidator(_available_engine)]
    source: str | None = None
    optimizer: Annotated[str, Field(min_length=1)] | dict[str, JsonValue] | None = None
    search_space: str | None = None


class Engine(NamedTuple):
    """What the block says; all None when it is faulty.

    Attributes:
        name: Of the engine.
        search: The sampler that it names.
        source: The file with its functions.
    """

    name: str | None = None
    search: SearchOptions | None = None
    source: Source | None = None


def read_scheduler(raw: object, log: FaultLog) -> Engine:
    """Read the block; faults go to `log`."""
    if isinstance(raw, Mapping):
        raw = {key: value for key, value in raw.items() if value is not None}
    block = read_model(Scheduler, raw, _PATH, log)
    if block is None:
        return Engine()
    if block.engine != "optuna":
        for key in ("source", "optimizer", "search_space"):
            if (value := getattr(block, key)) is not None:
                rule, cure = "is for the engine optuna", "Remove it, or write engine: optuna."
                log.add((*_PATH, key), rule, value, cure, at_key=True)
        return Engine(block.engine)
    if block.source is not None:
        return Engine(block.engine, source=_source(block, log))
    if block.search_space is not None:
        rule, cure = "is a function in source", "Add source: study.py, the file that has it."
        log.add((*_PATH, "search_space"), rule, block.search_space, cure, at_key=True)
    if isinstance(block.optimizer, str):
        return Engine(block.engine, _named(block.optimizer, log))
    if block.optimizer is not None:
        return Engine(block.engine, read_model(SearchOptions, block.optimizer, (*_PATH, "optimizer"), log))
    return Engine(block.engine)


def _source(block: Scheduler, log: FaultLog) -> Source | None:
    if isinstance(block.optimizer, dict):
        rule = "is the name of a function where there is a source"
        log.add((*_PATH, "optimizer"), rule, block.optimizer, "Write for instance optimizer: make_study.")
        return None
    if block.optimizer is None and block.search_space is None:
        rule = "needs optimizer or search_space, or nothing in it is used"
        cure = "Add optimizer: make_study, a function in the file, or remove source."
        log.add((*_PATH, "source"), rule, block.source, cure, at_key=True)
        return None
    values = {key: value for key, value in block.model_dump().items() if value is not None}
    return read_model(Source, values, _PATH, log)


def _named(sampler: str, log: FaultLog) -> SearchOptions | None:
    inner = FaultLog()
    options = read_model(SearchOptions, {"sampler": sampler}, (), inner)
    for fault in inner.sorted():
        log.add((*_PATH, "optimizer"), fault.rule, sampler, fault.cure)
    return options
