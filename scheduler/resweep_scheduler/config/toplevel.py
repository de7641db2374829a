"""The top-level keys of a sweep config, each by itself; what they must be together is in rules.py."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import BaseModel, Field

from resweep_scheduler.config.engine import read_scheduler
from resweep_scheduler.config.faults import MISSING, FaultLog, did_you_mean, suggest
from resweep_scheduler.config.inference import read_parameters
from resweep_scheduler.config.metric import Metric
from resweep_scheduler.config.numbers import Whole
from resweep_scheduler.config.parameters import Parameter
from resweep_scheduler.config.reading import read_model
from resweep_scheduler.config.sections import Checkpoint, Lease, Preemption, Retry, SearchOptions, Source
from resweep_scheduler.config.stopping import RULES, StoppingRule
from resweep_scheduler.config.sweep import MAX_SEED
from resweep_scheduler.config.webhooks import Webhook, read_webhooks

METHODS: Final = ("grid", "random", "bayes")
_WORKING_METHODS: Final = "Use grid, random or bayes"
_NOT_AVAILABLE: Final = {
    "settings": "settings belongs to W&B's own command. Remove it.",
    "launch": "launch belongs to W&B Launch. Remove it.",
}
_IGNORED: Final = {
    "job": "job belongs to W&B Launch and is ignored",
    "image_uri": "image_uri belongs to W&B Launch and is ignored",
    "controller": "controller is ignored: resweep's agents own the sweep together",
}


class Simple(BaseModel):
    """The keys with one plain value."""

    program: Annotated[str, Field(min_length=1)] | None = None
    name: str | None = None
    description: str | None = None
    entity: str | None = None
    project: str | None = None
    run_cap: Annotated[Whole, Field(ge=1)] | None = None
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] | None = None
    apiVersion: str | None = None  # noqa: N815 - W&B's key
    kind: Literal["sweep"] | None = None
    job: str | None = None
    image_uri: str | None = None


SECTIONS: Final[dict[str, type[BaseModel]]] = {
    "metric": Metric,
    "preemption": Preemption,
    "retry": Retry,
    "lease": Lease,
    "checkpoint": Checkpoint,
    "search": SearchOptions,
}
"""The keys that hold a mapping of their own."""
KEYS: Final = (
    "method", "parameters", "metrics", "scheduler", "early_terminate", "command", "controller",
    *SECTIONS, "webhooks", *Simple.model_fields,
)  # fmt: skip


@dataclass
class Draft:
    """What could be read of a config; None where nothing was given or it was faulty."""

    method: str | None = None
    parameters: dict[str, Parameter] = field(default_factory=dict)
    metric: Metric | None = None
    metrics: tuple[Metric, ...] = ()
    program: str | None = None
    command: tuple[str, ...] | None = None
    name: str | None = None
    description: str | None = None
    entity: str | None = None
    project: str | None = None
    run_cap: int | None = None
    early_terminate: StoppingRule | None = None
    seed: int | None = None
    preemption: Preemption | None = None
    retry: Retry | None = None
    lease: Lease | None = None
    checkpoint: Checkpoint | None = None
    search: SearchOptions | None = None
    webhooks: tuple[Webhook, ...] | None = None
    engine: str | None = None
    """Of W&B's scheduler."""
    scheduler: Source | None = None
    sampler_at: tuple[str, ...] = ("search", "sampler")
    """Where the sampler is named."""
    warnings: list[str] = field(default_factory=list)
    written: Mapping[str, object] = field(default_factory=dict)
    """The parameters as they were written, faulty ones too."""
    misspelt: set[str] = field(default_factory=set)
    """Keys that are missing because another key was meant to be them; that is reported already."""

    @property
    def draws(self) -> bool:
        """Whether a function draws the parameters of a run."""
        return self.scheduler is not None and self.scheduler.search_space is not None


def read_top_level(raw: Mapping[str, object], log: FaultLog) -> Draft:
    """Read every key by itself; faults go to `log`, and what is faulty stays out of the draft."""
    draft = Draft()
    for key in raw:
        if key not in KEYS:
            _refuse_key(key, raw[key], log)
            draft.misspelt.add(did_you_mean(key, KEYS) or key)
    if "scheduler" in raw:
        draft.engine, draft.search, draft.scheduler = read_scheduler(raw["scheduler"], log)
        if draft.search is not None:
            draft.sampler_at = ("scheduler", "optimizer")
    if "method" not in draft.misspelt:
        draft.method = _read_method(raw, draft, log)
    _read_parameters(raw, draft, log)
    for name, model in SECTIONS.items():
        if name in raw and not (name == "search" and _search_stands_twice(draft, log)):
            setattr(draft, name, read_model(model, raw[name], (name,), log))
    readers: dict[str, Callable[[object, FaultLog], object]] = {
        "metrics": _read_metrics,
        "early_terminate": _read_early_terminate,
        "command": _read_command,
        "webhooks": read_webhooks,
    }
    for name, read in readers.items():
        if name in raw:
            setattr(draft, name, read(raw[name], log))
    _read_simple(raw, draft, log)
    if "controller" in raw:
        _check_controller(raw["controller"], log)
    draft.warnings += [warning for key, warning in _IGNORED.items() if raw.get(key) is not None]
    return draft


def _read_parameters(raw: Mapping[str, object], draft: Draft, log: FaultLog) -> None:
    if draft.draws:
        if raw.get("parameters") is not None:
            draft.warnings.append("parameters is not used, because scheduler.search_space draws them")
    elif "parameters" in raw:
        draft.parameters = read_parameters(raw["parameters"], ("parameters",), log)
        draft.written = raw["parameters"] if isinstance(raw["parameters"], Mapping) else {}
    elif "parameters" not in draft.misspelt and not log.touches(("scheduler",)):
        log.add(("parameters",), "is required", MISSING, "Add for instance parameters: {lr: {values: [0.1, 0.01]}}.")


def _read_simple(raw: Mapping[str, object], draft: Draft, log: FaultLog) -> None:
    # An empty value ("name:") of a plain key means that it was not given.
    for key in Simple.model_fields:
        if (
            raw.get(key) is not None
            and (simple := read_model(Simple, {key: raw[key]}, (), log))
            and hasattr(draft, key)
        ):
            setattr(draft, key, getattr(simple, key))


def _refuse_key(key: str, value: object, log: FaultLog) -> None:
    if key in _NOT_AVAILABLE:
        rule, _, cure = _NOT_AVAILABLE[key].partition(". ")
        log.add((key,), rule, value, cure, at_key=True)
        return
    cure = suggest(key, KEYS, f"Remove it; the keys are: {', '.join(KEYS)}.")
    log.add((key,), "is not a key of a sweep config", key, cure, at_key=True)


def _search_stands_twice(draft: Draft, log: FaultLog) -> bool:
    if draft.scheduler is not None:
        rule, value = "the study is made by scheduler.source already", draft.scheduler.source
    elif draft.search is not None:
        rule, value = "the sampler is named by scheduler.optimizer already", draft.search.sampler
    else:
        return False
    log.add(("search",), rule, value, "Remove one of the two.", at_key=True)
    return True


def _read_metrics(raw: object, log: FaultLog) -> tuple[Metric, ...]:
    path = ("metrics",)
    if not isinstance(raw, list) or len(raw) < 2:
        cure = "Write a list such as [{name: loss}, {name: size}]; a single one is metric: {name: loss}."
        log.add(path, "must be a list of at least two metrics", raw, cure)
        return ()
    metrics = [read_model(Metric, entry, (*path, place), log) for place, entry in enumerate(raw)]
    names: set[str] = set()
    for place, metric in enumerate(metrics):
        if metric is None:
            continue
        if metric.name in names:
            rule = "must be of different names"
            log.add((*path, place, "name"), rule, metric.name, "Name another metric, or remove this one.")
        if metric.target is not None:
            rule = "is for a single metric: with several goals there is no one value to reach"
            log.add((*path, place, "target"), rule, metric.target, "Remove it; run_cap: N ends the sweep.", at_key=True)
        names.add(metric.name)
    return tuple(metric for metric in metrics if metric is not None) if None not in metrics else ()


def _read_method(raw: Mapping[str, object], draft: Draft, log: FaultLog) -> str | None:
    method = raw.get("method", MISSING)
    if method is MISSING:
        log.add(("method",), "is required", MISSING, "Add method: grid, random or bayes.")
    elif method == "custom":
        if draft.engine == "optuna":
            return "bayes"  # W&B calls it so where an engine other than its own searches
        if not log.touches(("scheduler",)):
            rule = "method custom needs scheduler: {engine: optuna}"
            log.add(("method",), rule, method, f"{_WORKING_METHODS}, or add the scheduler.")
    elif method not in METHODS:
        cure = suggest(method, METHODS, f"{_WORKING_METHODS}.")
        log.add(("method",), "must be grid, random or bayes", method, cure)
    else:
        return str(method)
    return None


def _read_early_terminate(raw: object, log: FaultLog) -> StoppingRule | None:
    path = ("early_terminate",)
    if not isinstance(raw, Mapping):
        log.spoil(path, "must be a mapping", raw, "Write for instance {type: hyperband, min_iter: 3}.")
        return None
    kind = raw.get("type", MISSING)
    if isinstance(kind, str) and kind in RULES:
        return read_model(RULES[kind], raw, path, log)
    if kind is MISSING:
        log.add((*path, "type"), "is required", MISSING, "Add type: hyperband.")
    else:
        rule = f"must be one of {', '.join(RULES)}"
        log.add((*path, "type"), rule, kind, suggest(kind, RULES, "Write hyperband."))
    return None


def _read_command(raw: object, log: FaultLog) -> tuple[str, ...] | None:
    path = ("command",)
    if isinstance(raw, str):
        try:
            words = shlex.split(raw)
        except ValueError:
            words = raw.split()
        quoted = ", ".join(f'"{word}"' for word in words)
        log.add(path, "must be a list with one entry for each argument", raw, f"Write [{quoted}].")
        return None
    if not isinstance(raw, list) or not raw:
        log.add(
            path,
            "must be a list with at least one entry",
            raw,
            'Write for instance ["python", "${program}", "${args}"].',
        )
        return None
    for index, element in enumerate(raw):
        if not isinstance(element, str | int | float):
            rule = "an entry of command must be text or a number"
            log.add((*path, index), rule, element, "Write it as one text in quotes, or remove it.")
    return tuple(str(element) for element in raw)


def _check_controller(raw: object, log: FaultLog) -> None:
    if not isinstance(raw, Mapping) or raw.get("type") not in ("local", "cloud"):
        log.add(("controller",), "must be {type: local} or {type: cloud}", raw, "Remove it; it is ignored anyway.")
