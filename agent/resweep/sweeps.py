"""Sweeps from Python: create one, and run an agent whose runs are calls of a function.

Everything behind these two functions is loaded when they are called, so that `import resweep` stays light.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from resweep.errors import CommError, Error, UsageError
from resweep.notes import logger


def sweep(
    config: Mapping[str, object] | str | Path,
    *,
    entity: str | None = None,
    project: str | None = None,
    prior_runs: Sequence[str] = (),
    warm_start: Sequence[str] = (),
    url: str | None = None,
) -> str:
    """Create a sweep and return its id.

    Args:
        config: The config as a mapping, or the path of its YAML file. A mapping needs no `program`: its runs may be
            calls of a function (see `agent`).
        entity: Default: WANDB_ENTITY, else the config's, else `local`.
        project: Default: WANDB_PROJECT, else the config's, else `uncategorized`.
        prior_runs: Ids of runs that the search of `method: bayes` learns from, too. Those that do not fit the config
            are left out, and the log says why.
        warm_start: Ids of sweeps; their runs are prior runs.
        url: The address of Redis. Default: RESWEEP_URL, REDIS_URL, else the embedded server of this machine.

    Raises:
        UsageError: The config has faults (all are named), a name cannot be one, or there is no such prior run.
        CommError: Redis does not answer, or refuses.
    """
    from resweep_agent.endpoint import find_url
    from resweep_agent.exitcodes import AgentError
    from resweep_scheduler.config import ConfigError, load_sweep, parse_sweep
    from resweep_scheduler.config.functions import check_source
    from resweep_scheduler.creation import create_sweep
    from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, Scope, StoreError
    from resweep_scheduler.warm_start import add_priors

    try:
        if isinstance(config, Mapping):
            checked = parse_sweep(config)
            text = checked.to_json()
        else:
            checked = load_sweep(config, require_program=False)
            text = Path(config).read_text(encoding="utf-8")
        if checked.scheduler is not None:
            check_source(checked.scheduler, "sweep config" if isinstance(config, Mapping) else str(config))
        entity = entity or os.environ.get("WANDB_ENTITY")
        project = project or os.environ.get("WANDB_PROJECT")
        address = find_url(url, os.environ)
        if prior_runs or warm_start:
            scope = Scope(entity or checked.entity or DEFAULT_ENTITY, project or checked.project or DEFAULT_PROJECT)
            known = checked.warnings
            checked = add_priors(address, checked, scope, runs=prior_runs, sweeps=warm_start)
            for left_out in checked.warnings[len(known) :]:
                logger.warning("%s", left_out)
        _, sweep_id = create_sweep(address, checked, config_text=text, entity=entity, project=project)
    except ConfigError as error:
        raise UsageError(str(error)) from error
    except (StoreError, AgentError) as error:
        raise _translated(error) from error
    return sweep_id


def agent(
    sweep_id: str,
    function: Callable[[], object],
    *,
    count: int | None = None,
    entity: str | None = None,
    project: str | None = None,
    url: str | None = None,
    **options: object,
) -> None:
    """Take runs of a sweep and call `function()` for each, in a process of its own, until the sweep is finished.

    Inside the function `resweep.init()` gives the run with its parameters. What the function prints goes to the
    terminal and to a file; an exception is exit status 1. The processes are forked from the state of this process at
    the call of `agent`, so do not use a GPU before it.

    Args:
        sweep_id: [entity/][project/]SWEEP.
        function: The training, without arguments.
        count: Take this many runs, then return.
        entity: The sweep's entity, if it is to be checked. Default: WANDB_ENTITY.
        project: The sweep's project, if it is to be checked. Default: WANDB_PROJECT.
        url: The address of Redis. Default: RESWEEP_URL, REDIS_URL, else the embedded server of this machine.
        options: More options of `sweep-agent` by their names in Python: name, slots, gpus_per_run, preemptible,
            notice, grace, lease, heartbeat, max_consecutive_failed_runs, max_wait, directory (a `Path`), sources
            (Python files as `Path`s whose functions may direct the search).

    Raises:
        UsageError: There is no such sweep, or an option cannot be as it is.
        CommError: Redis does not answer, or refuses.
        Error: Too many runs failed, or the agent cannot go on.
        SystemExit: A notice came (SIGTERM and the like), with exit status 75: this process was told to end.
    """
    from resweep_agent.exitcodes import AgentError, ExitCode
    from resweep_agent.functions import run_function_agent
    from resweep_agent.options import AgentOptions

    try:
        asked = AgentOptions(
            sweep=sweep_id,
            count=count,
            entity=entity or os.environ.get("WANDB_ENTITY"),
            project=project or os.environ.get("WANDB_PROJECT"),
            url=url,
            **options,  # type: ignore[arg-type]  # checked by the call itself
        )
    except TypeError as error:
        raise UsageError(f"agent() has no such option: {error}; see help(resweep.agent)") from None
    try:
        exit_code = run_function_agent(asked, function, _finish_active_run)
    except AgentError as error:
        raise _translated(error) from error
    if exit_code is ExitCode.PREEMPTED:
        sys.exit(int(exit_code))


def _finish_active_run(exit_code: int) -> None:
    """In the process of a run: send what was logged, however the function ended."""
    from resweep.session import finish

    finish(exit_code)


def _translated(error: Exception) -> Error:
    from resweep_agent.exitcodes import ExitCode
    from resweep_agent.failures import agent_error

    known = agent_error(error)
    if known.exit_code in (ExitCode.USAGE, ExitCode.UNKNOWN_SWEEP):
        return UsageError(str(error))
    if known.exit_code in (ExitCode.REDIS_LOST, ExitCode.REDIS_REFUSED):
        return CommError(str(error))
    return Error(str(error))
