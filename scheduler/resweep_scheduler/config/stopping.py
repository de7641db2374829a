"""``early_terminate``: which runs are stopped before their end.

In all rules the iteration of a run is the number of values of the metric that it has logged, from 1; neither a step nor
an epoch.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StrictBool, model_validator

from resweep_scheduler.config.numbers import Real, Whole, rule_error

MOST_BANDS: Final = 100
LAST_ITERATION: Final = 2**53

_Iteration = Annotated[Whole, Field(ge=1, le=LAST_ITERATION)]
_Count = Annotated[Whole, Field(ge=0)]


class _Rule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hyperband(_Rule):
    """Hyperband's stopping rule as W&B has it: bands from `max_iter` and `s`, or from `min_iter`.

    At each band the best 1/`eta` of all runs that came there go on. `strict` compares what a run had at the band, else
    its best value so far counts; it is false by default, as W&B documents (W&B's code takes true).
    """

    type: Literal["hyperband"]
    min_iter: _Iteration | None = None
    max_iter: _Iteration | None = None
    s: Annotated[Whole, Field(ge=1)] | None = None
    eta: Annotated[Real, Field(gt=1)] = 3.0
    strict: StrictBool = False

    @property
    def bands(self) -> tuple[int, ...]:
        """The iterations at which runs are compared, ascending."""
        bands: list[int] = []
        if self.max_iter is not None and self.s is not None:
            band = float(self.max_iter)
            for _ in range(min(self.s, MOST_BANDS)):
                band /= self.eta
                if band < 1:
                    break
                bands.append(int(band))
        elif self.min_iter is not None:
            band = float(self.min_iter)
            for _ in range(MOST_BANDS):
                if band > LAST_ITERATION:
                    break
                bands.append(int(band))
                band *= self.eta
        return tuple(sorted(set(bands)))

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        if not self.bands:
            if self.max_iter is not None and self.s is not None:
                raise rule_error(
                    f"must leave at least one band, and {self.max_iter} / eta {self.eta:g} is below 1",
                    "Take a larger max_iter or a smaller eta.",
                    key="max_iter",
                )
            raise rule_error(
                "needs bands: min_iter, or max_iter together with s", "Add min_iter: 3, or max_iter: 27 and s: 2."
            )
        return self


class _Percentile(_Rule):
    n_startup_runs: _Count = 5
    min_iter: _Iteration = 1
    interval: _Iteration = 1


class Median(_Percentile):
    """A run is stopped when its best value so far is worse than the median of what finished runs had there.

    Nothing is stopped before `n_startup_runs` runs have finished, nor before iteration `min_iter`; from there on every
    `interval`-th iteration is looked at.
    """

    type: Literal["median"]


class Percentile(_Percentile):
    """As `median`, with another percentile of the finished runs, best first: 25 asks for their best quarter."""

    type: Literal["percentile"]
    percentile: Annotated[Real, Field(ge=0, le=100)]


class OptunaPruner(_Rule):
    """One of Optuna's pruners by its name, such as `wilcoxon`, with its options; the agent asks it."""

    type: Literal["optuna"]
    pruner: str
    options: dict[str, JsonValue] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        from resweep_scheduler.config.pruners import PrunerError, make_pruner

        try:
            make_pruner(self.pruner, self.options)
        except PrunerError as error:
            raise rule_error(error.rule, error.cure, key=error.key) from None
        return self


StoppingRule: TypeAlias = Hyperband | Median | Percentile | OptunaPruner

RULES: Final[dict[str, type[StoppingRule]]] = {
    "hyperband": Hyperband,
    "median": Median,
    "percentile": Percentile,
    "optuna": OptunaPruner,
}
"""By `type`."""
