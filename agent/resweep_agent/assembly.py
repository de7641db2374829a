"""Puts an agent together, lets it work, and takes it apart again."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from resweep_agent.ask import Asker
from resweep_agent.claim import Claims
from resweep_agent.devices import make_places
from resweep_agent.endpoint import find_url
from resweep_agent.environment import Surroundings, WandbGateway
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.failures import agent_error
from resweep_agent.gateway import LocalGateway
from resweep_agent.guard import Guard
from resweep_agent.heartbeat import Heart
from resweep_agent.identity import Identity, identify
from resweep_agent.launch import Launcher
from resweep_agent.link import Backoff, Link
from resweep_agent.logs import event
from resweep_agent.loop import Loop
from resweep_agent.notices import NoticeChoice, NoticeSource, SignalSource
from resweep_agent.options import AgentOptions, Policy, make_policy
from resweep_agent.output import OutputPump, Terminal
from resweep_agent.parts import Inbox, Parts, Wakeup
from resweep_agent.pruning import make_pruner
from resweep_agent.requeue import Requeue
from resweep_agent.slot import Slot
from resweep_scheduler.config import ConfigError, SweepConfig
from resweep_scheduler.store import (
    Store,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    Sweep,
    open_store,
    open_sweep,
)
from resweep_scheduler.store.credentials import Credentials

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

START_PATIENCE = 5.0
"""Seconds for which an agent that starts waits for a Redis that is away."""


@dataclass(frozen=True, slots=True)
class Work:
    """What an agent is started with.

    Attributes:
        options: What was asked for.
        environ: The environment of the agent, and of its children but for what each attempt sets.
        make_launcher: Makes what starts the children.
        terminal: Where their output is shown.
        sources: Where notices come from, besides signals and what the options name.
    """

    options: AgentOptions
    environ: Mapping[str, str]
    make_launcher: Callable[[SweepConfig], Launcher]
    terminal: Terminal
    sources: Sequence[NoticeSource] = ()


@dataclass(frozen=True, slots=True)
class _Sweep:
    """The sweep as it was found."""

    url: str
    store: Store
    record: Sweep
    config: SweepConfig
    policy: Policy


def run_agent(work: Work) -> ExitCode:
    """Run one agent until it ends.

    Raises:
        AgentError: It ended for a reason that somebody must do something about.
    """
    try:
        with ExitStack() as stack:
            return _run(work, stack)
    except (StoreError, ConfigError) as error:
        raise agent_error(error) from error


def _run(work: Work, stack: ExitStack) -> ExitCode:
    choice = NoticeChoice.parse(work.options.notice, work.environ)
    requeue = Requeue(work.environ) if work.options.slurm_requeue else None
    sweep = _find_sweep(work)
    launcher = work.make_launcher(sweep.config)
    stack.callback(launcher.close)
    launcher.check()
    identity = identify(work.options.name, work.environ)
    stack.callback(identity.release)
    wakeup = Wakeup()
    stack.callback(wakeup.close)
    sources = [*work.sources, *choice.sources(work.environ, grace=sweep.policy.grace)]
    gateway = _gateway(work.options, sweep, stack)
    parts = _parts(work, sweep, launcher, identity=identity, wakeup=wakeup, sources=sources, gateway=gateway)
    stack.callback(parts.asker.close)
    for source in parts.sources:
        source.start(wakeup.sender)
        stack.callback(source.stop)
    slots = [_slot(parts, number) for number in range(parts.surroundings.places.number)]
    loop = Loop(parts, slots)
    for slot in slots:
        # The first write: a Redis that is full, or a replica, refuses it before anything is claimed.
        _patiently(functools.partial(loop.register, slot))
    parts.guard.start()
    stack.callback(parts.guard.close)
    parts.pump.start()
    stack.callback(parts.pump.close)
    parts.heart.start()
    stack.callback(parts.heart.close)
    event(_log, logging.INFO, "agent-started", agent=identity.name, sweep=f"{sweep.store.scope}/{parts.sweep_id}")
    try:
        return loop.run()
    finally:
        # While the handlers of signals still stand: SLURM requeues a job that runs by ending it first.
        if requeue is not None and loop.ended_by_notice:
            requeue.step(sweep.store, parts.sweep_id)


def _find_sweep(work: Work) -> _Sweep:
    url = find_url(work.options.url, work.environ)
    store, record = _patiently(lambda: _find(work.options, url))
    config = SweepConfig.from_json(record.config_json)
    policy = make_policy(work.options, config, work.environ)
    return _Sweep(url, open_store(url, store.scope, timeout=policy.store_timeout), record, config, policy)


def _find(options: AgentOptions, url: str) -> tuple[Store, Sweep]:
    try:
        store, sweep_id = open_sweep(url, options.sweep, entity=options.entity, project=options.project)
    except ValueError as error:
        if isinstance(error, StoreError):
            raise
        raise AgentError(str(error), ExitCode.USAGE) from None
    return store, store.sweep(sweep_id)


def _patiently(call: Callable[[], Answer]) -> Answer:
    """Call until Redis answers, for `START_PATIENCE` seconds."""
    backoff, deadline = Backoff(), time.monotonic() + START_PATIENCE
    said = False
    while True:
        try:
            return call()
        except (StoreUnavailableError, StoreRefusedError) as error:
            now = time.monotonic()
            temporary = not isinstance(error, StoreRefusedError) or error.temporary
            if not temporary or now >= deadline:
                raise
            if not said:
                event(_log, logging.INFO, "waiting-for-redis", seconds=START_PATIENCE)
            said = True
        time.sleep(backoff.next_pause())


def _gateway(options: AgentOptions, sweep: _Sweep, stack: ExitStack) -> WandbGateway | None:
    if not options.wandb and options.gateway is None:
        return None
    secret = _patiently(Credentials(sweep.store.client, url=sweep.url).secret)
    if options.gateway is not None:
        return WandbGateway(options.gateway.rstrip("/"), secret)
    local = LocalGateway(sweep.url)
    stack.callback(local.close)
    return WandbGateway(local.url, secret)


def _parts(
    work: Work,
    sweep: _Sweep,
    launcher: Launcher,
    *,
    identity: Identity,
    wakeup: Wakeup,
    sources: Sequence[NoticeSource],
    gateway: WandbGateway | None,
) -> Parts:
    options, store, config, policy = work.options, sweep.store, sweep.config, sweep.policy
    directory = options.directory.absolute()
    link = Link()
    inbox = Inbox(wakeup)
    signals = SignalSource()
    sweep_id = sweep.record.sweep_id
    return Parts(
        store=store,
        sweep_id=sweep_id,
        identity=identity,
        policy=policy,
        surroundings=Surroundings(
            environ=work.environ,
            url=sweep.url,
            scope=store.scope,
            sweep_id=sweep_id,
            directory=directory,
            checkpoints=config.checkpoint.url or Path(config.checkpoint.dir or directory / "checkpoints").absolute(),
            keep=config.checkpoint.keep,
            places=make_places(options.slots, options.gpus_per_run, work.environ),
            signal=config.preemption.signal,
            gateway=gateway,
        ),
        launcher=launcher,
        asker=Asker(
            store,
            sweep_id,
            config,
            session=identity.session,
            wake=wakeup.wake,
            next_index=sweep.record.next_index,
            sources=options.sources,
        ),
        heart=Heart(
            store,
            sweep_id=sweep_id,
            session=identity.session,
            lease_ms=policy.lease_ms,
            interval=policy.heartbeat,
            block=min(1.0, policy.store_timeout / 2),
            post=inbox.post,
            link=link,
            pruner=make_pruner(store, sweep_id, config),
        ),
        guard=Guard(),
        pump=OutputPump(work.terminal),
        link=link,
        wakeup=wakeup,
        inbox=inbox,
        signals=signals,
        sources=(signals, *sources),
        count=options.count,
        max_wait=options.max_wait,
    )


def _slot(parts: Parts, number: int) -> Slot:
    agent = parts.identity.of_slot(number)
    claims = Claims(
        sweep_id=parts.sweep_id,
        agent=agent,
        session=parts.identity.session,
        lease_ms=parts.policy.lease_ms,
        preemptible=bool(parts.policy.preemptible),
        slot=number,
        slots=parts.surroundings.places.number,
    )
    return Slot(number, agent, claims)
