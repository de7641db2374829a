"""The kinds of parameters with values of their own: W&B's distributions with their defaults, one frozen model each.

Source: W&B's sweep schema.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from resweep_scheduler.config.numbers import Integer, Lattice, Positive, Real, Step, rule_error

_TOLERANCE: Final = 1e-4
# The largest and smallest exponents whose exponential is a positive finite float.
MAX_EXPONENT: Final = 709.0
MIN_EXPONENT: Final = -745.0
# No draw from 53 random bits lies further out than this many standard deviations.
MAX_DEVIATIONS: Final = 8.3


class ParameterKind(BaseModel):
    """What all kinds share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    searchable: ClassVar[bool] = True
    """False where there is nothing to choose (a constant)."""
    countable: ClassVar[bool] = False
    """True where a grid can enumerate the values."""


class Constant(ParameterKind):
    """Always the same value; any JSON value, also null."""

    searchable = False
    countable = True
    distribution: Literal["constant"] = "constant"
    value: JsonValue


class Categorical(ParameterKind):
    """One of the values, each as likely as the others."""

    countable = True
    distribution: Literal["categorical"] = "categorical"
    values: tuple[JsonValue, ...] = Field(min_length=1)


class CategoricalWithProbabilities(ParameterKind):
    """One of the values, with a probability for each."""

    distribution: Literal["categorical_w_probabilities"] = "categorical_w_probabilities"
    values: tuple[JsonValue, ...] = Field(min_length=1)
    probabilities: tuple[Annotated[Real, Field(ge=0)], ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_probabilities(self) -> Self:
        if len(self.values) != len(self.probabilities):
            raise rule_error(
                f"must have one probability for each value: {len(self.values)} values, "
                f"{len(self.probabilities)} probabilities",
                "Add or remove entries until both lists have the same length.",
                key="probabilities",
            )
        if not sum_to_one(self.probabilities):
            total = math.fsum(self.probabilities)
            raise rule_error(f"must sum to 1, not {total:g}", "Divide each by their sum.", key="probabilities")
        return self


class IntUniform(ParameterKind):
    """An integer from min to max, both included."""

    countable = True
    distribution: Literal["int_uniform"] = "int_uniform"
    min: Integer
    max: Integer

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        _require_order(self.min, self.max)
        return self


class _Ranged(ParameterKind):
    """Kinds with a lower and an upper bound."""

    min: Real
    max: Real

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        _require_order(self.min, self.max)
        self._check_range()
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that the parameter can take before it is quantised."""
        return self.min, self.max

    def _check_range(self) -> None:
        """Rules of a kind that need both bounds."""


class Uniform(_Ranged):
    """A float between min and max."""

    distribution: Literal["uniform"] = "uniform"


class _RangedExponents(_Ranged):
    """Kinds whose bounds are exponents of e (deprecated in W&B, often a misunderstanding)."""

    values_kind: ClassVar[str]
    # Inverse kinds take the negative of their exponents.
    sign: ClassVar[int] = 1

    @property
    def limits(self) -> tuple[float, float]:
        ends = math.exp(self.sign * self.min), math.exp(self.sign * self.max)
        return min(ends), max(ends)

    def _check_range(self) -> None:
        for key, bound in (("min", self.min), ("max", self.max)):
            if not MIN_EXPONENT <= self.sign * bound <= MAX_EXPONENT:
                raise rule_error(
                    f"must be an exponent of e whose power is a float, from {MIN_EXPONENT:g} to {MAX_EXPONENT:g}",
                    f"Use {self.values_kind} if min and max are limits of the value itself.",
                    key=key,
                )


class LogUniform(_RangedExponents):
    """e to the power of a float between min and max."""

    distribution: Literal["log_uniform"] = "log_uniform"
    values_kind = "log_uniform_values"


class InvLogUniform(_RangedExponents):
    """e to the power of minus a float between min and max."""

    distribution: Literal["inv_log_uniform"] = "inv_log_uniform"
    values_kind = "inv_log_uniform_values"
    sign = -1


class _RangedLogarithmic(_Ranged):
    """Kinds whose bounds are values, uniform in the logarithm."""

    min: Positive


class LogUniformValues(_RangedLogarithmic):
    """A float between min and max whose logarithm is uniform."""

    distribution: Literal["log_uniform_values"] = "log_uniform_values"


class InvLogUniformValues(_RangedLogarithmic):
    """A float between min and max, log-uniform and counted from the top."""

    distribution: Literal["inv_log_uniform_values"] = "inv_log_uniform_values"


class _QuantisedRange(_Ranged):
    """Kinds whose values are the multiples of q inside the bounds."""

    q: Step = 1.0

    @property
    def lattice(self) -> Lattice:
        """The values that the parameter can take."""
        return Lattice(self.q, *self.limits)

    def _check_range(self) -> None:
        super()._check_range()
        if self.lattice.empty:
            low, high = self.limits
            raise rule_error(
                f"must have a multiple inside the bounds; no multiple of {self.q:g} lies from {low:g} to {high:g}",
                "Take a smaller q or wider bounds.",
                key="q",
            )


class QUniform(_QuantisedRange):
    """A multiple of q between min and max, uniform."""

    countable = True
    distribution: Literal["q_uniform"] = "q_uniform"


class QLogUniform(_QuantisedRange, _RangedExponents):
    """A multiple of q near e to the power of a float between min and max."""

    distribution: Literal["q_log_uniform"] = "q_log_uniform"
    values_kind = "q_log_uniform_values"


# Pydantic takes a field from the first base that has it: the one whose min must be positive.
class QLogUniformValues(_RangedLogarithmic, _QuantisedRange):
    """A multiple of q between min and max, log-uniform."""

    distribution: Literal["q_log_uniform_values"] = "q_log_uniform_values"


class _Gaussian(ParameterKind):
    """Kinds made from a normal variable."""

    mu: Real = 0.0
    sigma: Annotated[Real, Field(ge=0)] = 1.0
    exponential: ClassVar[bool] = False

    @model_validator(mode="after")
    def _check_spread(self) -> Self:
        if self.exponential:
            if self.mu + MAX_DEVIATIONS * self.sigma > MAX_EXPONENT:
                raise rule_error(
                    f"must keep mu + {MAX_DEVIATIONS:g} sigma at most {MAX_EXPONENT:g}, or e to its power is no float",
                    "mu and sigma belong to the logarithm of the value: give the logarithm.",
                    key="mu",
                )
        elif not math.isfinite(abs(self.mu) + MAX_DEVIATIONS * self.sigma):
            raise rule_error("must keep mu + 8.3 sigma a float", "Take a smaller sigma.", key="sigma")
        return self


class Normal(_Gaussian):
    """Normal with mean mu and standard deviation sigma."""

    distribution: Literal["normal"] = "normal"


class LogNormal(_Gaussian):
    """e to the power of a normal variable with mean mu and standard deviation sigma."""

    distribution: Literal["log_normal"] = "log_normal"
    exponential = True


class QNormal(_Gaussian):
    """The multiple of q nearest to a normal variable."""

    distribution: Literal["q_normal"] = "q_normal"
    q: Step = 1.0

    @property
    def lattice(self) -> Lattice:
        """The values that the parameter can take: all multiples of q."""
        return Lattice(self.q, None, None)


class QLogNormal(_Gaussian):
    """The multiple of q nearest to a log-normal variable."""

    distribution: Literal["q_log_normal"] = "q_log_normal"
    exponential = True
    q: Step = 1.0

    @property
    def lattice(self) -> Lattice:
        """The values that the parameter can take: the multiples of q from 0 up."""
        return Lattice(self.q, 0, None)


# Beyond that, a beta variable is a constant for all purposes, and its quantiles cannot be computed well.
Shape = Annotated[Positive, Field(le=1e6)]


class Beta(ParameterKind):
    """Beta distributed between 0 and 1, with shapes a and b."""

    distribution: Literal["beta"] = "beta"
    a: Shape = 1.0
    b: Shape = 1.0


class QBeta(ParameterKind):
    """The multiple of q inside [0, 1] nearest to a beta variable."""

    distribution: Literal["q_beta"] = "q_beta"
    a: Shape = 1.0
    b: Shape = 1.0
    q: Step = 1.0

    @property
    def lattice(self) -> Lattice:
        """The values that the parameter can take."""
        return Lattice(self.q, 0, 1)


def _require_order(low: float, high: float) -> None:
    if low >= high:
        raise rule_error(
            f"must be less than max, and {low:g} is not less than {high:g}",
            "Exchange the two, or use value: for a single value.",
            key="min",
        )


def sum_to_one(probabilities: Iterable[float]) -> bool:
    """Whether probabilities sum to 1, as exactly as people write them."""
    return abs(math.fsum(probabilities) - 1) <= _TOLERANCE
