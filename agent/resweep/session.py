"""The run of this process: ``init`` and the functions that work on it."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from resweep.errors import Error, UsageError
from resweep.exitstatus import Witness
from resweep.notes import logger
from resweep.preemption import Callback
from resweep.runs import Run
from resweep.settings import Settings, resolve


class _Session:
    """What this process has begun. A forked child begins anew."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget everything, as in a forked child; its parent's run stays the parent's."""
        self.lock = threading.RLock()
        self.pid = os.getpid()
        self.run: Run | None = None
        self.settings: Settings | None = None
        self.witness: Witness | None = None
        self.hooked = False


_session = _Session()


def _this_session() -> _Session:
    if _session.pid != os.getpid():
        _session.begin()
    return _session


def init(
    *,
    entity: str | None = None,
    project: str | None = None,
    id: str | None = None,
    resume: str | bool | None = None,
    config: Any = None,
    name: str | None = None,
    tags: Iterable[str] | None = None,
    notes: str | None = None,
    group: str | None = None,
    dir: str | os.PathLike[str] | None = None,
    mode: str | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_url: str | None = None,
    checkpoint_keep: int | None = None,
) -> Run:
    """Begin or resume a run. While a run is active in this process, that one is returned.

    Inside an agent the run, its project and how it is resumed come from the agent: ``resweep.init()`` is enough.

    Args:
        entity: Defaults to WANDB_ENTITY, else "local".
        project: Defaults to WANDB_PROJECT, else "uncategorized".
        id: The run's id, unique in its project. Defaults to WANDB_RUN_ID, else a new one.
        resume: "must": the run has to exist. "allow": it is resumed if it exists. "never": it must not exist. "auto" or
            True: the run that did not end in this directory goes on. None: a run of that id is overwritten. Defaults to
            WANDB_RESUME. A run exists once a script has initialised it.
        config: A mapping or namespace. What the sweep chose wins over it.
        name: Shown to people.
        tags: Kept from before a resume when None; so are notes, name and group.
        notes: Free text.
        group: Free text.
        dir: Where ``resweep/`` with spilled rows, checkpoints and the auto-resume file goes; defaults to WANDB_DIR,
            else the working directory.
        mode: "online"; "offline": rows go to a file that ``resweep sync`` sends; "disabled": nothing is kept. Defaults
            to RESWEEP_MODE, outside a sweep else WANDB_MODE.
        checkpoint_dir: The folder for checkpoints. Defaults to RESWEEP_CHECKPOINT_DIR, else one below `dir`.
        checkpoint_url: The object store for checkpoints in place of a folder: s3://, gs://, az://, file://, memory://.
            Needs ``pip install 'resweep[checkpoints]'``. Defaults to RESWEEP_CHECKPOINT_URL.
        checkpoint_keep: How many checkpoints are kept. Defaults to RESWEEP_CHECKPOINT_KEEP, else 2. In a sweep the
            agent says all three.

    Raises:
        UsageError: An argument or variable is not allowed, or the run exists and must not, or must and does not.
        CommError: Redis does not answer within RESWEEP_INIT_TIMEOUT (20 s; 600 s inside a sweep), or refuses.
    """
    session = _this_session()
    with session.lock:
        settings = resolve(
            os.environ, entity=entity, project=project, run_id=id, resume=resume, config=config, name=name, tags=tags,
            notes=notes, group=group, directory=dir, mode=mode, checkpoint_dir=checkpoint_dir,
            checkpoint_url=checkpoint_url, checkpoint_keep=checkpoint_keep,
        )  # fmt: skip
        if session.run is not None:
            return _active_again(session.run, settings)
        from resweep.beginning import begin_run

        witness = Witness()
        run = begin_run(settings, _ended)
        session.run, session.settings, session.witness = run, settings, witness
        if not session.hooked:
            session.hooked = True
            atexit.register(_at_exit)
        return run


def _active_again(run: Run, settings: Settings) -> Run:
    if settings.resume == "must" and settings.run_id != run.id:
        raise Error(
            f"Cannot resume a run while another run is active: {run.id} is, and {settings.run_id} was asked for; "
            "call resweep.finish() first"
        )
    logger.info("resweep.init() was called while run %s is active: that run is returned", run.id)
    return run


def _ended(run: Run, exit_code: int) -> None:
    """Told by a run that it is finished."""
    session = _this_session()
    if session.run is run:
        settings, session.run = session.settings, None
        if settings is not None and settings.resume == "auto" and settings.claim is None and exit_code == 0:
            from resweep.autoresume import AutoResume

            if session.witness is not None:
                AutoResume(settings.directory, f"{settings.entity}/{settings.project}").ended(run.id)


def _at_exit() -> None:
    session = _this_session()
    if session.run is None or session.witness is None:
        return
    ending = session.witness.ending()
    if not ending.certain:
        if session.settings is not None and session.settings.resume == "auto" and session.settings.claim is None:
            logger.warning(
                "run %s: the program ended by sys.exit(), whose code cannot be seen, so resume='auto' will go on with "
                "this run; call run.finish(), or use `with resweep.init(…):`",
                session.run.id,
            )
        session.witness = None  # keeps the entry for resume="auto"
    session.run.finish(ending.exit_code)


def active_run() -> Run | None:
    """The run of this process between ``init`` and ``finish``, else None."""
    return _this_session().run


def _require(what: str) -> Run:
    run = active_run()
    if run is None:
        raise UsageError(f"You must call resweep.init() before resweep.{what}; no run is active")
    return run


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
    """``Run.log`` of the active run. Raises UsageError when there is none."""
    _require("log()").log(data, step, commit)


def finish(exit_code: int = 0) -> None:
    """``Run.finish`` of the active run; without one nothing is to be done."""
    run = active_run()
    if run is not None:
        run.finish(exit_code)


def mark_preempting() -> bool:
    """``Run.mark_preempting`` of the active run. Raises UsageError when there is none."""
    return _require("mark_preempting()").mark_preempting()


def on_preempt(callback: Callback) -> Callback:
    """``Run.on_preempt`` of the active run; also a decorator. Raises UsageError when there is none."""
    return _require("on_preempt()").on_preempt(callback)


def define_metric(name: str, summary: str | None = None, step_metric: str | None = None, **other: object) -> None:
    """``Run.define_metric`` of the active run. Raises UsageError when there is none."""
    _require("define_metric()").define_metric(name, summary, step_metric, **other)


class NotBegun:
    """What ``resweep.config`` and ``resweep.summary`` are before ``init``: every use says what to do."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def _fail(self) -> NoReturn:
        raise UsageError(
            f"You must call resweep.init() before resweep.{object.__getattribute__(self, '_name')}; no run is active"
        )

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)  # what inspect, copy and doctest look for
        self._fail()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self._fail()

    def __getitem__(self, name: object) -> NoReturn:
        self._fail()

    def __setitem__(self, name: object, value: object) -> NoReturn:
        self._fail()

    def __contains__(self, name: object) -> NoReturn:
        self._fail()

    def __iter__(self) -> NoReturn:
        self._fail()

    def __bool__(self) -> bool:
        return False


def module_attribute(name: str) -> object:
    """What ``resweep.run``, ``resweep.config`` and ``resweep.summary`` are now."""
    run = active_run()
    if name == "run":
        return run
    return NotBegun(name) if run is None else getattr(run, name)
