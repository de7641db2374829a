"""From settings to a run that logs: the decision table of resuming, and what each mode needs."""

from __future__ import annotations

import glob
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from resweep.autoresume import AutoResume
from resweep.checkpoints import CheckpointFolder
from resweep.configuration import Config
from resweep.connection import close_store, open_store, patiently
from resweep.errors import Error, UsageError
from resweep.notes import Notes, logger
from resweep.offline import Channel, OfflineSender, Silent
from resweep.outbox import Outbox
from resweep.parameters import read_parameters
from resweep.runs import Facts, Run
from resweep.saving import Checkpoints
from resweep.sender import Sender
from resweep.settings import Settings
from resweep.spill import Header, SpillFile, spill_folder
from resweep.steps import StepLedger
from resweep.summaries import Summary

if TYPE_CHECKING:
    from resweep_scheduler.store import ClaimToken, InitAnswer, Objective, RunMeta, Store
    from resweep_scheduler.store import Run as Record

ADOPTION_PATIENCE = 20.0  # seconds in which a lapsed lease may be adopted again by its agent
ADOPTION_PAUSE = 0.5

OnFinish = Callable[[Run, int], None]


def begin_run(settings: Settings, on_finish: OnFinish) -> Run:
    """Begin or resume the run that `settings` ask for.

    Raises:
        UsageError: The run exists and must not, or the other way round.
        CommError: The store does not answer or refuses.
        Error: The attempt was taken over.
    """
    if settings.mode == "disabled":
        return _begin_alone(settings, on_finish)
    if settings.rank:
        return _begin_reading(settings, on_finish)
    if settings.mode == "offline":
        return _begin_offline(settings, on_finish)
    return _begin_online(settings, on_finish)


class Assembly:
    """The parts of a run that all modes have."""

    def __init__(
        self,
        settings: Settings,
        run_id: str,
        *,
        attempt: int,
        config: Mapping[str, Any],
        locked: Mapping[str, Any] | None = None,
        record: Record | None = None,
        resumed: bool = False,
        starting_step: int = 0,
    ) -> None:
        self.settings = settings
        self.run_id = run_id
        self.attempt = attempt
        self.notes = Notes()
        self.config = Config(config, locked=locked or {}, warn=self.notes.warn_once, complain=self.notes.odd_value)
        self.summary = Summary(record.summary if record else {}, self.notes.odd_value)
        self.checkpoints = _checkpoints(settings, run_id, attempt, self.notes)
        self.ledger = StepLedger(starting_step, lambda text: self.notes.once(text[:20], text))
        self.facts = Facts(
            run_id=run_id,
            entity=settings.entity,
            project=settings.project,
            sweep_id=record.sweep_id if record else settings.sweep_id,
            name=settings.name or (record.name if record else ""),
            group=settings.group or (record.group if record else ""),
            notes=(record.notes if record else "") if settings.notes is None else settings.notes,
            tags=(record.tags if record else ()) if settings.tags is None else settings.tags,
            directory=settings.directory,
            attempt=attempt,
            resumed=resumed,
            starting_step=starting_step,
            checkpoint=record.checkpoint if record else None,
            finish_timeout=settings.finish_timeout,
            mark_timeout=settings.mark_timeout,
        )

    def outbox(self, header: Header, label: str, first_seq: int = 1) -> Outbox:
        """An outbox whose file is called after `label`, which says which attempt this is."""
        path = spill_folder(self.settings.directory) / f"{self.run_id}-{label}-{os.getpid()}.jsonl"
        return Outbox(SpillFile(path, header), self.notes.once, first_seq=first_seq)

    def run(self, on_finish: OnFinish) -> Run:
        """The run; its channel is still to be made."""
        return Run(
            self.facts,
            config=self.config,
            summary=self.summary,
            ledger=self.ledger,
            notes=self.notes,
            checkpoints=self.checkpoints,
            on_finish=on_finish,
        )

    def sender(
        self,
        kind: type[Sender],
        run: Run,
        outbox: Outbox,
        *,
        store: Store | None = None,
        token: ClaimToken | None = None,
        objective: Objective | None = None,
    ) -> Channel:
        """What carries the run's rows."""
        return kind(
            store,
            token,
            outbox,
            self.summary,
            self.notes,
            run_id=self.run_id,
            objective=objective,
            ends_run=self.settings.claim is None,
            put_open_row=run.put_open_row,
            checkpoints=self.checkpoints,
        )


def _checkpoints(settings: Settings, run_id: str, attempt: int, notes: Notes) -> Checkpoints:
    """The place of the run's checkpoints; that of an object store is found to be usable before the training begins."""
    if not settings.checkpoint_url or settings.mode == "disabled":
        return CheckpointFolder(
            settings.checkpoint_directory, run_id, attempt, keep=settings.checkpoint_keep, notes=notes,
            commit_timeout=settings.mark_timeout,
        )  # fmt: skip
    from resweep.bucket import open_bucket
    from resweep.remote_checkpoints import RemoteCheckpoints

    return RemoteCheckpoints(
        open_bucket(settings.checkpoint_url), run_id, attempt, scope=f"{settings.entity}/{settings.project}",
        directory=settings.directory, keep=settings.checkpoint_keep, notes=notes,
        commit_timeout=settings.mark_timeout, patience=settings.init_timeout,
    )  # fmt: skip


def _begin_alone(settings: Settings, on_finish: OnFinish) -> Run:
    from resweep_scheduler.store import new_id

    chosen = read_parameters(settings.parameter_file)
    config = {**settings.config, **chosen}
    parts = Assembly(settings, settings.run_id or new_id(), attempt=1, config=config, locked=chosen)
    run = parts.run(on_finish)
    run.begin(Silent())
    return run


def _begin_reading(settings: Settings, on_finish: OnFinish) -> Run:
    """A process that is not rank 0: it reads the run, and logs nothing."""
    from resweep_scheduler.store import UnknownRunError, new_id

    run_id = settings.run_id or new_id()
    token = _claim(settings)
    if settings.mode == "offline":
        return _begin_alone(settings, on_finish)
    store = open_store(settings.entity, settings.project)
    try:
        record = patiently(store, settings.init_timeout, run_id, lambda patient: patient.run(run_id))
    except UnknownRunError:
        record = None
    except BaseException:
        close_store(store)
        raise
    parts = Assembly(
        settings,
        run_id,
        attempt=record.attempt if record else 1,
        config={**(record.config if record else {}), **settings.config, **(record.params if record else {})},
        locked=record.params if record else {},
        record=record,
        resumed=bool(record and record.initialised and (record.attempt > 1 or record.step is not None)),
        starting_step=record.step + 1 if record and record.step is not None else 0,
    )

    def finished(run: Run, exit_code: int) -> None:
        close_store(store)
        on_finish(run, exit_code)

    run = parts.run(finished)
    run.begin(Silent(store, token))
    logger.info("run %s: this process (%s) reads and logs nothing", run_id, settings.rank)
    return run


def _begin_offline(settings: Settings, on_finish: OnFinish) -> Run:
    from resweep_scheduler.store import new_id

    token = _claim(settings)
    run_id = settings.run_id or new_id()
    if settings.resume and token is None:
        logger.warning(
            "`resume` will be ignored since resweep is set to `offline`. Starting a new run with run id %s.", run_id
        )
    nonce = secrets.token_hex(8)
    init = {
        "nonce": nonce,
        "name": settings.name,
        "group": settings.group,
        "notes": settings.notes,
        "tags": settings.tags,
    }
    chosen = read_parameters(settings.parameter_file)
    config = {**settings.config, **chosen}
    parts = Assembly(settings, run_id, attempt=token.attempt if token else 1, config=config, locked=chosen)
    own = {name: value for name, value in parts.config.as_dict().items() if name not in chosen}
    header = Header(
        run_id=run_id,
        entity=settings.entity,
        project=settings.project,
        claim=token.encode() if token else None,
        sweep_id=settings.sweep_id,
        init=init | {"config": own},
    )
    outbox = parts.outbox(header, f"{parts.attempt if token else f'offline-{nonce}'}")
    run = parts.run(on_finish)
    run.begin(parts.sender(OfflineSender, run, outbox))
    if own:
        outbox.note(config=own)
    return run


def _begin_online(settings: Settings, on_finish: OnFinish) -> Run:
    from resweep_scheduler.store import InitOutcome, Scope, new_id

    auto = AutoResume(settings.directory, str(Scope(settings.entity, settings.project)))
    token = _claim(settings)
    if settings.resume == "auto" and token is None:
        run_id = auto.choose(settings.run_id, new_id)
    else:
        run_id = settings.run_id or new_id()
        if not settings.resume and token is None:
            auto.begin_anew()
    store = open_store(settings.entity, settings.project)
    try:
        _send_leftovers(store, settings, run_id)
        answer = _initialise(store, settings, run_id, token)
    except BaseException:
        close_store(store)
        raise
    record, granted = answer.run, answer.token
    assert record is not None
    assert granted is not None
    parts = Assembly(
        settings,
        run_id,
        attempt=granted.attempt,
        config=record.config,
        locked=record.params,
        record=record,
        resumed=answer.outcome is InitOutcome.RESUMED,
        starting_step=answer.starting_step,
    )
    header = Header(
        run_id=run_id,
        entity=settings.entity,
        project=settings.project,
        claim=granted.encode(),
        sweep_id=record.sweep_id,
    )
    outbox = parts.outbox(header, str(granted.attempt), answer.next_seq)

    def finished(run: Run, exit_code: int) -> None:
        close_store(store)
        on_finish(run, exit_code)

    run = parts.run(finished)
    run.begin(parts.sender(Sender, run, outbox, store=store, token=granted, objective=answer.objective))
    # A second init in one attempt is answered as the first one was; what it adds to the config is sent here.
    missing = {name: value for name, value in settings.config.items() if name not in record.config}
    run.config.update(missing)
    return run


def _claim(settings: Settings) -> ClaimToken | None:
    from resweep_scheduler.store import ClaimToken

    if settings.claim is None:
        return None
    assert settings.run_id is not None
    try:
        return ClaimToken.decode(settings.run_id, settings.claim)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _initialise(store: Store, settings: Settings, run_id: str, token: ClaimToken | None) -> InitAnswer:
    """Ask the store, and turn its refusals into errors."""
    from resweep_scheduler.store import InitOutcome, UnknownRunError

    nonce = token.nonce if token else secrets.token_hex(8)
    config = Config(settings.config, warn=logger.warning, complain=Notes().odd_value).as_dict()
    deadline = time.monotonic() + min(ADOPTION_PATIENCE, settings.init_timeout)

    def ask(patient: Store) -> InitAnswer:
        # What the sweep chose is not the script's to set.
        chosen = patient.run(run_id).params if token else {}
        return patient.init_run(
            run_id=run_id,
            resume=settings.resume,
            nonce=nonce,
            attempt=token.attempt if token else None,
            config={name: value for name, value in config.items() if name not in chosen},
            meta=_meta(settings),
        )

    while True:
        try:
            answer = patiently(store, settings.init_timeout, run_id, ask)
        except UnknownRunError as error:
            raise Error(f"{error}; it was removed while this attempt of it began") from error
        if answer.outcome is not InitOutcome.STALE or time.monotonic() > deadline:
            break
        time.sleep(ADOPTION_PAUSE)
    _refuse(answer, run_id)
    return answer


def _send_leftovers(store: Store, settings: Settings, run_id: str) -> None:
    """Send what an earlier process of the run left in files here, as long as its claim is not void."""
    from resweep.sync import SyncOutcome, sync

    if not any(spill_folder(settings.directory).glob(f"{glob.escape(run_id)}-*.jsonl")):
        return
    patiently(store, settings.init_timeout, run_id, lambda patient: patient.redis_time())
    try:
        # Whoever has the run is taken over by this process in any case.
        report = sync(settings.directory, run_id=run_id, take_over=settings.resume != "never")
    except OSError as error:  # a run must not fail to begin because of the rows of another process
        logger.warning("rows of an earlier process of run %s stay in files: %s", run_id, error)
        return
    for file in report.files:
        if file.outcome is not SyncOutcome.IN_USE:
            logger.warning("rows of an earlier process: %s", file)


def _meta(settings: Settings) -> RunMeta:
    from resweep_scheduler.store import RunMeta

    return RunMeta(name=settings.name, group=settings.group, notes=settings.notes, tags=settings.tags)


def _refuse(answer: InitAnswer, run_id: str) -> None:
    from resweep_scheduler.store import InitOutcome

    if answer.outcome is InitOutcome.MUST_EXIST:
        raise UsageError(
            "You provided an invalid value for the `resume` argument. The value 'must' is not a valid option for "
            f"resuming the run ({run_id}) that has not been initialized. Please check your inputs and try again with a "
            "valid run ID. If you are trying to start a new run, please omit the `resume` argument or use "
            "`resume='allow'`."
        )
    if answer.outcome is InitOutcome.MUST_NOT_EXIST:
        raise UsageError(
            "You provided an invalid value for the `resume` argument. The value 'never' is not a valid option for "
            f"resuming a run ({run_id}) that already exists. Please check your inputs and try again with a valid value "
            "for the `resume` argument. If you are trying to resume the run, use `resume='must'` or `resume='allow'`; "
            "to start a new run, give another `id` or none."
        )
    if answer.outcome is InitOutcome.HELD:
        raise UsageError(
            f"run {run_id} belongs to a sweep, and an agent runs it now; wait until it has ended, or give another `id`"
        )
    if answer.outcome is InitOutcome.STALE:
        raise Error(f"run {run_id} was taken over by another attempt; this process is of no further use and should end")
