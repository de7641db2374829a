"""What the keys that choose and direct the search must be together: metric, metrics, scheduler, search."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from resweep_scheduler.config.faults import FaultLog, Path
from resweep_scheduler.config.names import as_written
from resweep_scheduler.config.parameters import (
    Categorical,
    CategoricalWithProbabilities,
    Choices,
    Constant,
    IntUniform,
    LogUniformValues,
    Nested,
    Parameter,
    QLogUniformValues,
    QUniform,
    Uniform,
    flatten,
    leaves_of,
)
from resweep_scheduler.config.samplers import SAMPLERS
from resweep_scheduler.config.sections import SearchOptions
from resweep_scheduler.config.toplevel import Draft

_IN_OPTUNA: Final = Constant | Categorical | IntUniform | Uniform | QUniform | LogUniformValues | QLogUniformValues
"""The kinds that W&B hands to a study; Optuna has no others."""
_WITHOUT_ORDER: Final = (Constant, Categorical, CategoricalWithProbabilities, Choices)


def check_goals(draft: Draft, log: FaultLog) -> None:
    """Check `metric` and `metrics` against each other and against what can use several goals."""
    if not draft.metrics:
        return
    names = [metric.name for metric in draft.metrics]
    if draft.metric is not None:
        rule, cure = "metric and metrics exclude each other", "Remove one of them."
        log.add(("metrics",), rule, names, cure, at_key=True)
    elif draft.early_terminate is not None:
        rule, cure = "early_terminate compares runs by one metric", "Remove it, or use metric: {name: loss}."
        log.add(("early_terminate",), rule, names, cure, at_key=True)


def check_search(draft: Draft, log: FaultLog) -> None:
    """Check the sampler against method, goals and parameters, and choose it where `scheduler` says so."""
    if draft.method in ("grid", "random"):
        if draft.engine == "optuna":
            rule = "the engine optuna needs method custom or bayes"
            log.add(("scheduler",), rule, draft.method, "Remove scheduler, or use method: bayes.", at_key=True)
        elif draft.search is not None:
            cure = "Remove search, or use method: bayes."
            log.add(("search",), "search needs method bayes", draft.method, cure, at_key=True)
        return
    if draft.scheduler is not None:
        if draft.scheduler.search_space is None and not log.touches(("parameters",)):
            _check_distributions(draft, log)
        return
    if draft.engine == "optuna" and draft.search is None and not log.touches(("scheduler",)):
        draft.search = SearchOptions()
    if draft.search is None:
        return
    known = SAMPLERS[draft.search.sampler]
    if draft.metrics and not known.several_goals:
        rule = f"{draft.search.sampler} has one goal only"
        log.add(draft.sampler_at, rule, draft.search.sampler, "Use tpe, nsga2 or nsga3 with metrics.")
    if not log.touches(("parameters",)):
        _check_space(draft, draft.search.sampler, log)
    _warn_of_packages(draft, draft.search.sampler, known.packages)


def is_integer_in_optuna(parameter: QUniform | QLogUniformValues) -> bool:
    """Whether a quantised parameter takes integers in a study: a step of 1 that was not written is one."""
    if isinstance(parameter, QLogUniformValues):
        return parameter.q == 1 and parameter.min >= 1
    whole = isinstance(parameter.q, int) or parameter.q == 1
    return whole and parameter.min.is_integer() and parameter.max.is_integer()


def _check_distributions(draft: Draft, log: FaultLog) -> None:
    """Check that a study can have the parameters: it knows neither all kinds nor conditions."""
    for leaf in leaves_of(draft.parameters):
        name, kind = ".".join(leaf.path), leaf.parameter
        if not isinstance(kind, _IN_OPTUNA):
            rule = f"{kind.distribution} has no equivalent in Optuna"
            cure = "Use uniform, log_uniform_values or values: […], or draw it in scheduler.search_space."
            log.add(as_written(leaf.place, draft.written), rule, kind.distribution, cure, at_key=True)
        elif isinstance(kind, QLogUniformValues) and not is_integer_in_optuna(kind):
            draft.warnings.append(
                f"{name} takes every float from min to max: Optuna has no logarithmic steps, so q is not used"
            )
    _refuse_choices(draft.parameters, log)


def _refuse_choices(parameters: Mapping[str, Parameter], log: FaultLog, place: Path = ("parameters",)) -> None:
    for name, parameter in parameters.items():
        if isinstance(parameter, Nested):
            _refuse_choices(parameter.parameters, log, (*place, name, "parameters"))
        elif isinstance(parameter, Choices):
            rule = "choices are not for a study, whose parameters stand side by side"
            cure = "Draw them in scheduler.search_space, or remove scheduler and use method: bayes."
            log.add((*place, name, "choices"), rule, name, cure, at_key=True)


def _check_space(draft: Draft, sampler: str, log: FaultLog) -> None:
    if sampler == "cmaes":
        always = flatten(draft.parameters)  # what choices bring stays inside them
        if sum(not isinstance(parameter, _WITHOUT_ORDER) for parameter in always.values()) < 2:
            rule = "cmaes needs at least two parameters that are numbers and always exist"
            log.add(draft.sampler_at, rule, sorted(map(".".join, always)), "Use tpe.")
    elif sampler == "brute_force":
        for leaf in leaves_of(draft.parameters):
            if not (leaf.parameter.countable or isinstance(leaf.parameter, CategoricalWithProbabilities)):
                rule = f"brute_force needs parameters that can be counted, and {'.'.join(leaf.path)} cannot"
                cure = "Use values: […], int_uniform, q_uniform, or another sampler."
                log.add(draft.sampler_at, rule, leaf.parameter.distribution, cure)


def _warn_of_packages(draft: Draft, sampler: str, packages: tuple[str, ...]) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        draft.warnings.append(
            f"sampler {sampler} needs {' and '.join(missing)}, not installed here: "
            f"`pip install {' '.join(missing)}` wherever agents or the search service run"
        )
