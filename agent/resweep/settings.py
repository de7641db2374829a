"""What ``init`` was asked for, by its arguments and by the environment.

Outside a sweep an argument wins over the environment. Inside an agent's attempt the agent's environment says which run
this is and how it is resumed, and wins in silence, so that one script serves both.

    WANDB_RUN_ID, WANDB_RESUME, WANDB_ENTITY, WANDB_PROJECT, WANDB_DIR
    WANDB_NAME, WANDB_NOTES, WANDB_TAGS, WANDB_RUN_GROUP
    RESWEEP_MODE, WANDB_MODE            online, offline or disabled (inside an attempt only RESWEEP_MODE counts)
    RESWEEP_CLAIM, RESWEEP_SWEEP_ID,
    WANDB_SWEEP_PARAM_PATH              set by the agent: this process is an attempt of a sweep's run
    RESWEEP_CHECKPOINT_DIR, RESWEEP_CHECKPOINT_URL     where checkpoints go: a folder, or an object store
    RESWEEP_CHECKPOINT_KEEP             how many of a run are kept
    RESWEEP_AGENT_RANK                  set by the agent: the rank variables that it was itself started with
    RESWEEP_INIT_TIMEOUT, RESWEEP_FINISH_TIMEOUT, RESWEEP_MARK_TIMEOUT     seconds to wait for Redis

An empty variable counts as unset.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resweep.configuration import config_items
from resweep.errors import UsageError

if TYPE_CHECKING:
    from resweep_scheduler.store import Scope

RESUME_VALUES = ("must", "allow", "never", "auto")
MODES = ("online", "offline", "disabled")
RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "LOCAL_RANK")
"""Which process of a run this is, by torchrun, srun, Open MPI, MPICH and Intel MPI; all but rank 0 read only."""

INIT_TIMEOUT = 20.0  # seconds; outside a sweep a person waits for the answer
INIT_TIMEOUT_IN_SWEEP = 600.0  # seconds; inside one an outage of Redis must not fail the run
FINISH_TIMEOUT = 30.0  # seconds
MARK_TIMEOUT = 5.0  # seconds
CHECKPOINTS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Settings:
    """What one ``init`` goes by. `resume` is "" when unset; `claim` is set inside an attempt of a sweep only."""

    entity: str
    project: str
    run_id: str | None
    resume: str
    mode: str
    claim: str | None
    sweep_id: str | None
    parameter_file: str | None
    config: Mapping[str, Any]
    name: str | None
    notes: str | None
    group: str | None
    tags: tuple[str, ...] | None
    directory: Path
    checkpoint_directory: Path
    checkpoint_url: str  # "" for the directory
    checkpoint_keep: int
    rank: str  # "" for the process that logs, else the variable and its value, as "RANK=3"
    init_timeout: float
    finish_timeout: float
    mark_timeout: float


def resolve(
    environ: Mapping[str, str],
    *,
    entity: str | None = None,
    project: str | None = None,
    run_id: str | None = None,
    resume: str | bool | None = None,
    config: Any = None,
    name: str | None = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    group: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    mode: str | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_url: str | None = None,
    checkpoint_keep: int | None = None,
) -> Settings:
    """Put arguments and environment together.

    Raises:
        UsageError: A value is not among those allowed, or the values contradict each other.
    """
    inside = bool(environ.get("RESWEEP_CLAIM"))
    environ_id = environ.get("WANDB_RUN_ID") or None
    if inside:
        if environ_id is None:
            raise UsageError("RESWEEP_CLAIM needs WANDB_RUN_ID, which is unset; leave both as the agent set them")
        entity, project, run_id = environ.get("WANDB_ENTITY"), environ.get("WANDB_PROJECT"), environ_id
        wanted = _resume_from_environment(environ)
        checkpoint_dir = checkpoint_url = checkpoint_keep = None
    else:
        entity = entity or environ.get("WANDB_ENTITY")
        project = project or environ.get("WANDB_PROJECT")
        run_id = environ_id if run_id is None else run_id
        wanted = _resume_from_environment(environ) if resume is None else _resume_from_argument(resume)
    scope = _checked(entity, project, run_id)
    if wanted == "must" and run_id is None:
        raise UsageError(
            "resume='must' resumes the run with a given id, and none was given; pass id= or set WANDB_RUN_ID"
        )
    base = Path(directory or environ.get("WANDB_DIR") or ".").absolute()
    folder, url = _checkpoint_place(checkpoint_dir, checkpoint_url, environ)
    return Settings(
        entity=scope.entity,
        project=scope.project,
        run_id=run_id,
        resume=wanted,
        mode=_mode(mode, environ, inside),
        claim=environ["RESWEEP_CLAIM"] if inside else None,
        sweep_id=environ.get("RESWEEP_SWEEP_ID") or None if inside else None,
        parameter_file=environ.get("WANDB_SWEEP_PARAM_PATH") if inside else None,
        config=config_items(config),
        name=name or environ.get("WANDB_NAME") or None,
        notes=environ.get("WANDB_NOTES") or None if notes is None else notes,
        group=group or environ.get("WANDB_RUN_GROUP") or None,
        tags=_tags(tags, environ),
        directory=base,
        checkpoint_directory=Path(folder or base / "resweep" / "checkpoints").absolute(),
        checkpoint_url=url,
        checkpoint_keep=_kept(checkpoint_keep, environ),
        rank=_rank(environ),
        init_timeout=_seconds(environ, "RESWEEP_INIT_TIMEOUT", INIT_TIMEOUT_IN_SWEEP if inside else INIT_TIMEOUT),
        finish_timeout=_seconds(environ, "RESWEEP_FINISH_TIMEOUT", FINISH_TIMEOUT),
        mark_timeout=_seconds(environ, "RESWEEP_MARK_TIMEOUT", MARK_TIMEOUT),
    )


def _checked(entity: str | None, project: str | None, run_id: str | None) -> Scope:
    """The project, when names and id can be some."""
    from resweep_scheduler.store import DEFAULT_ENTITY, DEFAULT_PROJECT, InvalidNameError, Scope, validate_run_id

    try:
        if run_id is not None:
            validate_run_id(run_id)
        return Scope(entity or DEFAULT_ENTITY, project or DEFAULT_PROJECT)
    except InvalidNameError as error:
        raise UsageError(str(error)) from None


def _resume_from_argument(resume: object) -> str:
    if isinstance(resume, bool):
        return "auto" if resume else ""
    if isinstance(resume, str) and resume in RESUME_VALUES:
        return resume
    raise UsageError(
        f"resume must be one of 'must', 'allow', 'never', 'auto', True (as 'auto'), False or None, got {resume!r}; "
        "'allow' resumes the run if it exists"
    )


def _resume_from_environment(environ: Mapping[str, str]) -> str:
    text = environ.get("WANDB_RESUME", "").strip().lower()
    if text in ("true", "1"):
        return "auto"
    if text in ("", "false", "0"):
        return ""
    if text in RESUME_VALUES:
        return text
    raise UsageError(
        f"WANDB_RESUME must be 'allow', 'must', 'never' or 'auto', got {environ['WANDB_RESUME']!r}; "
        "true and 1 mean 'auto', and empty means unset"
    )


def _mode(argument: str | None, environ: Mapping[str, str], inside: bool) -> str:
    # Clusters without internet set WANDB_MODE=offline for the real wandb; a sweep must log to its Redis all the same.
    found = [("mode", argument), ("RESWEEP_MODE", environ.get("RESWEEP_MODE"))]
    if not inside:
        found.append(("WANDB_MODE", environ.get("WANDB_MODE")))
    name, value = next(((name, value) for name, value in found if value), ("mode", "online"))
    if value not in MODES:
        raise UsageError(
            f"{name} must be one of 'online', 'offline', 'disabled', got {value!r}; leave it out for online"
        )
    return value


def _tags(argument: Iterable[str] | None, environ: Mapping[str, str]) -> tuple[str, ...] | None:
    if argument is None:
        text = environ.get("WANDB_TAGS", "")
        return tuple(tag.strip() for tag in text.split(",") if tag.strip()) or None
    if isinstance(argument, str):
        raise UsageError(f"tags must be a list of texts, got the text {argument!r}; write tags=[{argument!r}]")
    return tuple(str(tag) for tag in argument)


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(f"{name} must be a number of seconds, 0 or more, got {text!r}; unset it for {default:g}")
    return seconds


def _checkpoint_place(
    folder: str | os.PathLike[str] | None, url: str | None, environ: Mapping[str, str]
) -> tuple[str, str]:
    """The folder and the URL for checkpoints, at most one of which is given. Arguments win over the environment."""
    from resweep_scheduler.store import checkpoint_url_fault

    named = ("checkpoint_dir", "checkpoint_url")
    if not folder and not url:
        folder, url = environ.get("RESWEEP_CHECKPOINT_DIR"), environ.get("RESWEEP_CHECKPOINT_URL")
        named = ("RESWEEP_CHECKPOINT_DIR", "RESWEEP_CHECKPOINT_URL")
    text = os.fspath(folder) if folder else ""
    if "://" in text:
        fault = checkpoint_url_fault(text)
        shown = text if fault is None else fault.shown
        raise UsageError(f"{named[0]} must be a folder on this machine, got {shown!r}; give a URL as {named[1]}")
    if fault := checkpoint_url_fault(url) if url else None:
        raise UsageError(f"{named[1]} {fault.rule}, got {fault.shown!r}. {fault.cure}")
    if text and url:
        raise UsageError(f"checkpoints go to one place, and {named[0]} is {text!r} and {named[1]} {url!r}; unset one")
    return text, url or ""


def _kept(argument: int | None, environ: Mapping[str, str]) -> int:
    text = environ.get("RESWEEP_CHECKPOINT_KEEP", "").strip()
    if argument is None and not text:
        return CHECKPOINTS_KEPT
    name, value = ("RESWEEP_CHECKPOINT_KEEP", text) if argument is None else ("checkpoint_keep", str(argument))
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"{name} must be a whole number from 1 on, got {value!r}; leave it out for {CHECKPOINTS_KEPT}")
    return int(value)


def _rank(environ: Mapping[str, str]) -> str:
    """The rank variable that makes this process a reader, as NAME=VALUE; "" for rank 0 and single processes.

    RANK decides alone. Of the others one that is not 0 is enough: in a batch script of SLURM all processes of an mpirun
    find SLURM_PROCID=0. A rank with which the agent itself was started (``srun -n 4 sweep-agent …``) is the agent's,
    not the script's, unless the script is in a step of its own.
    """
    of_agent = environ.get("RESWEEP_AGENT_RANK", "").split(",")
    step = environ.get("SLURM_STEP_ID", "")
    in_agents_step = not step or f"SLURM_STEP_ID={step}" in of_agent
    own = {
        name: value
        for name in RANK_VARIABLES
        if (value := environ.get(name, "").strip())
        and (f"{name}={value}" not in of_agent or (name == "SLURM_PROCID" and not in_agents_step))
    }
    if "RANK" in own:
        own = {"RANK": own["RANK"]}
    return next((f"{name}={value}" for name, value in own.items() if value != "0"), "")
