"""From what a user wrote under ``parameters`` to parameter models: which kind was meant, and what is wrong with it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final

from resweep_scheduler.config.choices import read_entries, read_probabilities
from resweep_scheduler.config.faults import MISSING, FaultLog, Path, did_you_mean, suggest
from resweep_scheduler.config.kinds import ParameterKind
from resweep_scheduler.config.parameters import KINDS, NAME_PATTERN, Choice, Choices, Nested, Parameter
from resweep_scheduler.config.reading import read_model

_PARAMETER_KEYS: Final = tuple(sorted({"parameters", "choices"}.union(*(kind.model_fields for kind in KINDS.values()))))
_SHAPE_KEYS: Final = {"mu": "normal", "sigma": "normal", "a": "beta", "b": "beta"}


def read_parameters(raw: object, path: Path, log: FaultLog) -> dict[str, Parameter]:
    """Read the mapping of parameters at `path`; what is faulty goes to `log` and is left out of the result."""
    if not isinstance(raw, Mapping):
        log.spoil(
            path, "must be a mapping from names to parameters", raw, "Write for instance lr: {min: 0.0, max: 0.1}."
        )
        return {}
    if not raw and not log.touches(path):
        log.spoil(path, "must have at least one parameter", raw, "Add for instance lr: {values: [0.1, 0.01]}.")
    parameters: dict[str, Parameter] = {}
    for name, written in raw.items():
        here = (*path, name)
        if not re.fullmatch(NAME_PATTERN, name):
            log.add(
                here,
                "a parameter's name must start with a letter or _ and go on with letters, digits, _ . -",
                name,
                "Rename it.",
                at_key=True,
            )
        if (parameter := _read_parameter(written, here, log)) is not None:
            parameters[name] = parameter
    return parameters


def _read_parameter(raw: object, path: Path, log: FaultLog) -> Parameter | None:
    if not isinstance(raw, Mapping):
        cure = f"Write {path[-1]}: {{values: […]}}." if isinstance(raw, list) else f"Write {path[-1]}: {{value: …}}."
        log.spoil(path, "a parameter must be a mapping", raw, cure)
        return None
    if "choices" in raw:
        return _read_choices(raw, path, log)
    if "parameters" in raw:
        return _read_group(raw, path, log)
    kind = _kind_of(raw, path, log)
    return None if kind is None else read_model(kind, raw, path, log)  # type: ignore[return-value]


def _read_group(raw: Mapping[str, object], path: Path, log: FaultLog) -> Nested:
    for key in raw:
        if key != "parameters":
            log.add(
                (*path, key),
                "nothing may stand beside parameters in a group",
                key,
                "Move it into parameters, or remove it.",
                at_key=True,
            )
    return Nested(parameters=read_parameters(raw["parameters"], (*path, "parameters"), log))


def _read_choices(raw: Mapping[str, object], path: Path, log: FaultLog) -> Choices | None:
    """Faulty choices stay in the result as far as they can be read, so that what they bring is known."""
    entries = read_entries(raw, path, log)
    if not entries:
        return None
    probabilities = read_probabilities(entries, (*path, "choices"), log)
    return Choices(
        choices=tuple(
            Choice(
                value=entry.value,  # type: ignore[arg-type]  # plain JSON data since it was read
                parameters=read_parameters(entry.parameters, (*entry.path, "parameters"), log)
                if entry.parameters
                else {},
                probability=probability,
            )
            for entry, probability in zip(entries, probabilities, strict=True)
        )
    )


def _kind_of(raw: Mapping[str, object], path: Path, log: FaultLog) -> type[ParameterKind] | None:
    if "distribution" in raw:
        return _named_kind(raw["distribution"], path, log)
    unknown = [key for key in raw if key not in _PARAMETER_KEYS]
    for key in unknown:
        cure = suggest(key, _PARAMETER_KEYS, f"Remove it; a parameter has {', '.join(_PARAMETER_KEYS)}.")
        log.add((*path, key), "is not a key of a parameter", key, cure, at_key=True)
    if any(did_you_mean(key, _PARAMETER_KEYS) for key in unknown) or len(unknown) == len(raw) > 0:
        return None
    if "value" in raw:
        return KINDS["constant"]
    if "values" in raw:
        return KINDS["categorical_w_probabilities" if "probabilities" in raw else "categorical"]
    return _kind_of_range(raw, path, log)


def _named_kind(name: object, path: Path, log: FaultLog) -> type[ParameterKind] | None:
    if isinstance(name, str) and name in KINDS:
        return KINDS[name]
    cure = suggest(name, KINDS, f"Use one of {', '.join(KINDS)}.")
    log.add((*path, "distribution"), "must be a distribution that exists", name, cure)
    return None


def _kind_of_range(raw: Mapping[str, object], path: Path, log: FaultLog) -> type[ParameterKind] | None:
    for key, kind in _SHAPE_KEYS.items():
        if key in raw:
            log.add(path, f"needs a distribution, because it has {key}", MISSING, f"Add distribution: {kind}.")
            return None
    if "q" in raw:
        log.add(path, "needs a distribution, because it has q", MISSING, "Add distribution: q_uniform.")
        return None
    if "min" not in raw and "max" not in raw:
        cure = "Add value, values, min and max, or distribution."
        log.add(path, "must say what values the parameter takes", dict(raw), cure)
        return None
    low, high = raw.get("min"), raw.get("max")
    if isinstance(low, int | float) and isinstance(high, int | float) and not isinstance(low, bool):
        if isinstance(low, float) != isinstance(high, float) and max(abs(low), abs(high)) <= sys.float_info.max:
            _refuse_mixed_bounds(low, high, path, log)
            return None
        return KINDS["uniform" if isinstance(low, float) else "int_uniform"]
    integers = all(isinstance(bound, int) for bound in (low, high) if bound is not None)
    return KINDS["int_uniform" if integers else "uniform"]


def _refuse_mixed_bounds(low: float, high: float, path: Path, log: FaultLog) -> None:
    # W&B's library and its SDK disagree here; the rule is the SDK's.
    rule = "bounds must be both integers (int_uniform) or both floats (uniform)"
    if float(low).is_integer() and float(high).is_integer():
        cure = f"Write min: {int(low)} and max: {int(high)}, or min: {float(low)!r} and max: {float(high)!r}."
    else:
        cure = f"Write min: {float(low)!r} and max: {float(high)!r}, or two integers."
    log.add(path, rule, {"min": low, "max": high}, cure)
