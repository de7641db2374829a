"""The metric that a sweep optimises."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from resweep_scheduler.config.numbers import Real


def _false_as_text(value: object) -> object:
    # Unquoted in YAML, the word "false" of W&B's schema is a boolean.
    return "false" if value is False else value


class Metric(BaseModel):
    """What the runs log and the search optimises (W&B's ``metric``).

    Attributes:
        name: The key under which runs log it.
        goal: Direction of better.
        target: No new runs once a run reached it; active runs go on.
        impute: What a failed, crashed or killed run counts as for the search.
        impute_while_running: What an unfinished run counts as; "false" leaves it open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    goal: Literal["minimize", "maximize"] = "minimize"
    target: Real | None = None
    impute: Literal["latest", "best", "worst"] = "worst"
    impute_while_running: Annotated[Literal["latest", "best", "worst", "false"], BeforeValidator(_false_as_text)] = (
        "false"
    )
