"""A run of before the sweep, as it is kept with the sweep."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue


class Prior(BaseModel):
    """What the search may know of a run that was there before the sweep was created.

    Attributes:
        run: The id that it had.
        params: The parameters of the new sweep's space, nested as in its config.
        state: How it ended.
        value: Best finite value of the metric; None if there is none.
        last: Last finite value of the metric; None if there is none.
        values: Last finite values of several metrics, in the order of the config; empty with one metric.
        stopped: Whether early termination ended it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    params: dict[str, JsonValue]
    state: Literal["finished", "failed", "crashed", "killed"]
    value: float | None = None
    last: float | None = None
    values: tuple[float | None, ...] = ()
    stopped: bool = False
