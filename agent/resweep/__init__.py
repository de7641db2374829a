"""resweep: hyperparameter sweeps that survive preemption.

    import resweep

    with resweep.init() as run:
        path = run.restore_checkpoint()
        for epoch in range(run.starting_step, run.config.epochs):
            run.log({"loss": loss})
            run.save_checkpoint("model.pt")

Importing this changes nothing and loads next to nothing: each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for true; typing itself would double the time of this import
if TYPE_CHECKING:
    from typing import Any

    from resweep.configuration import Config
    from resweep.errors import CommError, Error, UsageError
    from resweep.runs import Run
    from resweep.session import define_metric, finish, init, log, mark_preempting, on_preempt
    from resweep.summaries import Summary
    from resweep.sweeps import agent, sweep

    config: Config
    summary: Summary
    run: Run | None

_HOMES = {
    "CommError": "resweep.errors",
    "Error": "resweep.errors",
    "UsageError": "resweep.errors",
    "Run": "resweep.runs",
    "agent": "resweep.sweeps",
    "define_metric": "resweep.session",
    "finish": "resweep.session",
    "init": "resweep.session",
    "log": "resweep.session",
    "mark_preempting": "resweep.session",
    "on_preempt": "resweep.session",
    "sweep": "resweep.sweeps",
}
_OF_THE_RUN = ("config", "run", "summary")

__all__ = [
    "CommError",
    "Error",
    "Run",
    "UsageError",
    "agent",
    "config",
    "define_metric",
    "finish",
    "init",
    "log",
    "mark_preempting",
    "on_preempt",
    "run",
    "summary",
    "sweep",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value
    if name in _OF_THE_RUN:
        from resweep.session import module_attribute

        return module_attribute(name)
    raise AttributeError(f"module 'resweep' has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
