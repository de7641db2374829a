"""What the keys of a sweep config must be together: everything that cannot run is refused when a sweep is created."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from resweep_scheduler.config.equality import category_key
from resweep_scheduler.config.faults import MISSING, FaultLog, Path
from resweep_scheduler.config.kinds import Categorical, InvLogUniform, LogUniform, QLogUniform
from resweep_scheduler.config.names import as_written, check_names, names_written
from resweep_scheduler.config.parameters import Leaf, leaves_of
from resweep_scheduler.config.searching import check_goals, check_search
from resweep_scheduler.config.template import DEFAULT_COMMAND, MACROS, names_of, template_faults, tokens
from resweep_scheduler.config.toplevel import Draft

_GRID_CURES: Final = {
    "categorical_w_probabilities": "Remove probabilities, or use method: random.",
    "uniform": "Use values: […], distribution: q_uniform with a step q, or method: random.",
}
_GRID_CURE: Final = "Use values: […], or method: random."


def check_together(draft: Draft, log: FaultLog, *, require_program: bool) -> None:
    """Check what needs more than one key, and add the warnings."""
    leaves = list(leaves_of(draft.parameters))
    check_names(draft.parameters, draft.written, log)
    if draft.method == "grid":
        _check_grid(leaves, draft, log)
    elif draft.method == "bayes":
        _check_bayes(leaves, draft, log)
    check_goals(draft, log)
    check_search(draft, log)
    if draft.early_terminate is not None and not draft.metrics:
        _check_early_terminate(draft, log)
    _check_command(draft, log, require_program=require_program)
    _warn_of_exponents(leaves, draft)


def _is_reported(key: str, draft: Draft, log: FaultLog) -> bool:
    """Whether something was said about a key already, so that its absence is no second mistake."""
    return log.touches((key,)) or key in draft.misspelt


def _check_grid(leaves: Sequence[Leaf], draft: Draft, log: FaultLog) -> None:
    for leaf in leaves:
        parameter = leaf.parameter
        if not parameter.countable:
            kind = parameter.distribution
            rule = "a grid needs what can be counted: value, values without probabilities, int_uniform or q_uniform"
            place = as_written(leaf.place, draft.written)
            log.add(place, rule, kind, _GRID_CURES.get(kind, _GRID_CURE), at_key=True)
        elif isinstance(parameter, Categorical):
            keys = [category_key(value) for value in parameter.values]
            if len(set(keys)) < len(keys):
                draft.warnings.append(f"{'.'.join(leaf.path)} has equal values; the grid runs each of them once")


def _check_bayes(leaves: Sequence[Leaf], draft: Draft, log: FaultLog) -> None:
    reported = _is_reported("metric", draft, log) or log.touches(("metrics",))
    if draft.metric is None and not draft.metrics and not reported:
        log.add(("metric",), "is required by method bayes", MISSING, "Add metric: {name: loss, goal: minimize}.")
    if leaves and not log.touches(("parameters",)) and not any(leaf.parameter.searchable for leaf in leaves):
        rule = "method bayes needs at least one parameter that is not a constant"
        log.add(
            ("parameters",),
            rule,
            sorted(".".join(leaf.path) for leaf in leaves),
            "Give one of them values, or min and max.",
            at_key=True,
        )


def _check_early_terminate(draft: Draft, log: FaultLog) -> None:
    if draft.metric is None and not _is_reported("metric", draft, log):
        log.add(("metric",), "is required by early_terminate", MISSING, "Add metric: {name: loss, goal: minimize}.")


def _check_command(draft: Draft, log: FaultLog, *, require_program: bool) -> None:
    if _is_reported("command", draft, log):
        return
    if draft.command is None:
        if draft.program is None and require_program and not _is_reported("program", draft, log):
            log.add(
                ("program",), "needs something to run", MISSING, "Add program: train.py, or a command that names it."
            )
        return
    names = names_of(draft.parameters)
    has_program = draft.program is not None or _is_reported("program", draft, log)
    for fault in template_faults(draft.command, names, has_program=has_program, open_names=draft.draws):
        # A faulty parameter is missing here, and its name is no second mistake.
        if fault.index is not None and _names_faulty_parameter(draft.command[fault.index], draft, names, log):
            continue
        where: Path = ("command",) if fault.index is None else ("command", fault.index)
        log.add(where, fault.rule, fault.value, fault.cure)
    used = {name for element in draft.command for name in tokens(element)}
    for name in sorted(used & set(names) & MACROS):
        draft.warnings.append(f"${{{name}}} in command is the macro, not the parameter of the same name")
    if draft.program is not None and "program" not in used and draft.command != DEFAULT_COMMAND:
        draft.warnings.append("program is not used, because command does not contain ${program}")


def _names_faulty_parameter(element: str, draft: Draft, names: Mapping[str, bool], log: FaultLog) -> bool:
    if not log.touches(("parameters",)):
        return False
    written = set(names_written(draft.written))
    return any(name not in names and name.rpartition(".")[2] in written for name in tokens(element))


def _warn_of_exponents(leaves: Sequence[Leaf], draft: Draft) -> None:
    for leaf in leaves:
        parameter = leaf.parameter
        if isinstance(parameter, LogUniform | QLogUniform | InvLogUniform):
            draft.warnings.append(
                f"{'.'.join(leaf.path)} uses {parameter.distribution}, whose min and max are exponents of e; "
                f"{parameter.values_kind} takes the limits themselves"
            )
