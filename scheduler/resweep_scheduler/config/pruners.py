"""Optuna's pruners by name. The only module of the config that loads Optuna, when a config names one."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

CLASSES: Final = {
    "hyperband": "HyperbandPruner",
    "median": "MedianPruner",
    "patient": "PatientPruner",
    "percentile": "PercentilePruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "threshold": "ThresholdPruner",
    "wilcoxon": "WilcoxonPruner",
}
"""Names in a config, and Optuna's classes."""

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "None": (type(None),),
    "BasePruner": (dict,),
}


class PrunerError(ValueError):
    """A pruner cannot be made. `rule` and `cure` complete the sentence for people; `key` is what is to blame."""

    def __init__(self, key: str, rule: str, cure: str) -> None:
        super().__init__(f"{key} {rule}. {cure}")
        self.key = key
        self.rule = rule
        self.cure = cure


def make_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """One of Optuna's pruners; the pruner that `patient` wraps is given as ``{pruner: NAME, options: {…}}``.

    Raises:
        PrunerError: There is no such pruner, or its options are not what Optuna's constructor takes.
    """
    import optuna

    if name not in CLASSES:
        raise PrunerError("pruner", f"must be one of {', '.join(CLASSES)}", "Use one of these.")
    if name == "wilcoxon":
        _require_scipy()
    pruner = getattr(optuna.pruners, CLASSES[name])
    known = inspect.signature(pruner.__init__).parameters
    allowed = {option: parameter for option, parameter in known.items() if option != "self"}
    for option, value in options.items():
        if option not in allowed:
            raise PrunerError(
                "options", f"has no option {option!r} for {name}", f"The options are: {', '.join(allowed)}."
            )
        _check_type(option, value, allowed[option].annotation)
    given = dict(options)
    missing = [
        option
        for option, parameter in allowed.items()
        if parameter.default is inspect.Parameter.empty and option not in given and option != "wrapped_pruner"
    ]
    if missing:
        raise PrunerError("options", f"needs {', '.join(missing)} for {name}", f"Add options: {{{missing[0]}: …}}.")
    if "wrapped_pruner" in allowed:
        given["wrapped_pruner"] = _wrapped(given.get("wrapped_pruner"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            made: BasePruner = pruner(**given)
    except (TypeError, ValueError) as error:
        raise PrunerError(
            "options", f"must be what {CLASSES[name]} takes: {str(error).rstrip('.')}", "Change them."
        ) from None
    return made


def _wrapped(given: Any) -> BasePruner | None:
    if given is None:
        return None
    if not isinstance(given.get("pruner"), str) or not isinstance(given.get("options", {}), dict):
        raise PrunerError("options", "has wrapped_pruner, which names a pruner", "Write {pruner: median, options: {}}.")
    try:
        return make_pruner(given["pruner"], given.get("options", {}))
    except PrunerError as error:
        raise PrunerError("options", f"has wrapped_pruner, whose {error.key} {error.rule}", error.cure) from None


def _check_type(option: str, value: Any, annotation: Any) -> None:
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    names = [name.strip() for name in text.strip("'\"").split("|")]
    types = tuple(kind for name in names for kind in _TYPES.get(name, (object,)))
    if not isinstance(value, types) or (isinstance(value, bool) and object not in types):
        wanted = " or ".join("{pruner, options}" if name == "BasePruner" else name for name in names)
        raise PrunerError("options", f"has the option {option}, which is {wanted}", f"Change {option}.")
    if isinstance(value, str) and value != "auto":
        raise PrunerError("options", f"has the option {option}, which is a number or auto", f"Write {option}: auto.")


def _require_scipy() -> None:
    if importlib.util.find_spec("scipy") is None:
        raise PrunerError("pruner", "wilcoxon needs the package scipy", "Run: pip install scipy.")
