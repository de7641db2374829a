"""The samplers of Optuna that a config may name, and which options each of them takes.

Listed here and not read from Optuna, so that agents check a config without loading it; a test compares the list with
the installed Optuna. Left out are `seed` (the sweep has one), arguments that Optuna is about to remove, and those that
are functions or objects: a config is data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, TypeAlias

from resweep_scheduler.config.faults import suggest
from resweep_scheduler.config.numbers import rule_error


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Count:
    """An integer from `least` up."""

    least: int


@dataclass(frozen=True, slots=True)
class Share:
    """A number from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Word:
    """One of a few words."""

    words: tuple[str, ...]


OptionKind: TypeAlias = Flag | Count | Share | Word


@dataclass(frozen=True, slots=True)
class Sampler:
    """What must be known of a sampler before it is loaded.

    Attributes:
        options: Its options by name.
        several_goals: Whether it can optimise `metrics`.
        packages: The packages that it needs beyond ours.
    """

    options: Mapping[str, OptionKind] = field(default_factory=dict)
    several_goals: bool = True
    packages: tuple[str, ...] = ()


CROSSOVERS: Final = ("uniform", "blxalpha", "sbx", "spx", "undx", "vsbx")
_THREE_PARENTS: Final = ("spx", "undx")

_GENETIC: Final[Mapping[str, OptionKind]] = {
    "population_size": Count(2),
    "mutation_prob": Share(),
    "crossover": Word(CROSSOVERS),
    "crossover_prob": Share(),
    "swapping_prob": Share(),
}

SAMPLERS: Final[Mapping[str, Sampler]] = MappingProxyType(
    {
        "tpe": Sampler(
            {
                "n_startup_trials": Count(0),
                "n_ei_candidates": Count(1),
                "multivariate": Flag(),
                "group": Flag(),
                "constant_liar": Flag(),
            }
        ),
        "gp": Sampler({"n_startup_trials": Count(0), "deterministic_objective": Flag()}, packages=("torch", "scipy")),
        "cmaes": Sampler(
            {
                "n_startup_trials": Count(0),
                "popsize": Count(2),
                "use_separable_cma": Flag(),
                "lr_adapt": Flag(),
                "consider_pruned_trials": Flag(),
            },
            several_goals=False,
            packages=("cmaes",),
        ),
        "qmc": Sampler({"qmc_type": Word(("sobol", "halton")), "scramble": Flag()}, packages=("scipy",)),
        "nsga2": Sampler(_GENETIC),
        "nsga3": Sampler({**_GENETIC, "dividing_parameter": Count(1)}),
        "random": Sampler(),
        "brute_force": Sampler({"avoid_premature_stop": Flag()}),
    }
)
"""By the name that stands in a config."""

_OTHER_NAMES: Final = {
    "nsgaii": "nsga2",
    "nsgaiii": "nsga3",
    "cma": "cmaes",
    "cma_es": "cmaes",
    "sobol": "qmc",
    "halton": "qmc",
    "bruteforce": "brute_force",
    "grid": "brute_force",
}


def check_sampler(value: object) -> object:
    """A validator: the name of a sampler.

    Raises:
        PydanticCustomError: There is none of that name.
    """
    if isinstance(value, str) and value in SAMPLERS:
        return value
    plain = str(value).lower().removesuffix("sampler").replace("-", "_")
    meant = plain if plain in SAMPLERS else _OTHER_NAMES.get(plain)
    names = ", ".join(SAMPLERS)
    raise rule_error(
        "must be the name of a sampler",
        f"Did you mean {meant!r}?" if meant else suggest(plain, SAMPLERS, f"The samplers are: {names}."),
    )


def check_options(sampler: str, options: Mapping[str, object]) -> None:
    """Check the options of a known sampler by name and kind.

    Raises:
        PydanticCustomError: One is not an option of it, or has a value that it cannot have.
    """
    kinds = SAMPLERS[sampler].options
    for name, value in options.items():
        if name == "seed":
            raise rule_error(
                "has no option seed: the seed belongs to the sweep",
                "Write seed: at the top level of the config.",
                key="options",
            )
        if name not in kinds:
            listed = f"The options are: {', '.join(kinds)}." if kinds else "Remove it: there are no options."
            raise rule_error(f"has no option {name!r} for {sampler}", suggest(name, kinds, listed), key="options")
        _check_option(name, kinds[name], value)
    if options.get("crossover") in _THREE_PARENTS and options.get("population_size") == 2:
        raise rule_error(
            f"has the crossover {options['crossover']}, which needs a population of at least 3",
            "Write population_size: 50.",
            key="options",
        )
    if options.get("group") is True and options.get("multivariate") is False:
        raise rule_error("has group without multivariate", "Remove multivariate: false.", key="options")
    if options.get("lr_adapt") is True and options.get("use_separable_cma") is True:
        raise rule_error(
            "has lr_adapt and use_separable_cma, which exclude each other", "Remove one of them.", key="options"
        )


def _check_option(name: str, kind: OptionKind, value: object) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match kind:
        case Flag():
            fits, rule, cure = isinstance(value, bool), "is true or false", "Write true or false."
        case Count(least):
            fits = is_number and isinstance(value, int) and value >= least
            rule, cure = f"is an integer from {least} up", f"Write {name}: 24."
        case Share():
            fits = isinstance(value, int | float) and is_number and 0 <= value <= 1
            rule, cure = "is a number from 0 to 1", f"Write {name}: 0.5."
        case Word(words):
            fits, rule = value in words, f"is one of {', '.join(words)}"
            cure = suggest(value, words, f"Write {name}: {words[0]}.")
    if not fits:
        raise rule_error(f"has the option {name}, which {rule}", cure, key="options")
