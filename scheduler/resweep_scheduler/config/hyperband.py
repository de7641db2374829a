"""``early_terminate``: which runs are stopped before their end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from resweep_scheduler.config.numbers import Real, Whole, rule_error


class Hyperband(BaseModel):
    """Hyperband's stopping rule as W&B has it: bands from `min_iter`, or from `max_iter` and `s`.

    `strict` is false by default, as W&B documents (W&B's code takes true).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["hyperband"]
    min_iter: Annotated[Whole, Field(ge=1)] | None = None
    max_iter: Annotated[Whole, Field(ge=1)] | None = None
    s: Annotated[Whole, Field(ge=1)] | None = None
    eta: Annotated[Real, Field(gt=1)] = 3.0
    strict: StrictBool = False

    @model_validator(mode="after")
    def _check_bands(self) -> Self:
        if self.max_iter is not None and self.s is not None:
            if self.max_iter / self.eta < 1:
                raise rule_error(
                    f"must leave at least one band, and {self.max_iter} / eta {self.eta:g} is below 1",
                    "Take a larger max_iter or a smaller eta.",
                    key="max_iter",
                )
        elif self.min_iter is None:
            raise rule_error(
                "needs bands: min_iter, or max_iter together with s", "Add min_iter: 3, or max_iter: 27 and s: 2."
            )
        return self
