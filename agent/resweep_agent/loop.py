"""The agent's main loop: one thread changes the slots, in steps; between steps it sleeps until something happens."""

from __future__ import annotations

import contextlib
import logging
import random
import selectors
import time
from collections.abc import Callable, Sequence

from resweep_agent.claim import Next
from resweep_agent.ending import Verdict
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.failures import agent_error
from resweep_agent.flapping import FlappingGuard
from resweep_agent.giveback import give_back
from resweep_agent.launch import UnfitRunError, prepare
from resweep_agent.logs import event
from resweep_agent.lookout import Lookout, time_to_kill
from resweep_agent.notices import Notice
from resweep_agent.parts import Parts
from resweep_agent.report import deliver, end_of, end_of_failed_launch, send_last_words
from resweep_agent.slot import Slot
from resweep_agent.watch import Attempt
from resweep_scheduler.store import (
    AgentReplacedError,
    ClaimAnswer,
    ClaimedRun,
    EndAnswer,
    EndRequest,
    Hold,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    UnknownSweepError,
)

_log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two claims of an idle agent that nobody wakes."""
LONGEST_SLEEP = 5.0
"""Seconds after which the guard is looked at."""
REPORT_PATIENCE = 30.0
"""Seconds after the grace of a notice in which reports must be delivered."""
IDLE_PATIENCE = 600.0
"""Seconds for which an agent without work waits for a Redis that is away."""
CLAIMS_IN_A_ROW = 32
"""Claims of one slot in one step; other agents that are faster each time do not hold up the other slots."""


class Loop:
    """Takes runs, has them executed and reports how they end, until there is a reason to end."""

    def __init__(self, parts: Parts, slots: Sequence[Slot], clock: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._slots = slots
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._selector.register(parts.wakeup.receiver, selectors.EVENT_READ)
        self._flapping = FlappingGuard(parts.policy.flapping, clock())
        self._verdict = Verdict()
        self._lookout = Lookout(parts)
        self._report_until = float("inf")
        self._taken = 0
        self._idle_until = 0.0
        self._idle_since: float | None = None

    def run(self) -> ExitCode:
        """Work until there is a reason to end.

        Raises:
            AgentError: The reason is an error.
            StoreError: Redis refuses for good.
        """
        try:
            while True:
                due = self.step(self._clock())
                if due is None:
                    return self._verdict.result()
                self._sleep(due)
        finally:
            give_back(self._parts, self._slots)
            self._selector.close()

    @property
    def ended_by_notice(self) -> bool:
        """True when a notice is why it ends."""
        return self._verdict.ending is not None and self._verdict.ending.exit_code is ExitCode.PREEMPTED

    def step(self, now: float) -> float | None:
        """Do everything that can be done at `now`; return when to look again at the latest, None for the end."""
        self._parts.guard.step()
        self._take_notices(now)
        self._take_beats(now)
        self._take_suggestions(now)
        for slot in self._slots:
            self._watch(slot, now)
            self._deliver(slot, now)
        for slot in self._slots:
            self._claim(slot, now)
        self._parts.asker.send(now)
        return self._look_at_the_end(now)

    # -- what comes from outside ---------------------------------------------------------------------------------------

    def _take_notices(self, now: float) -> None:
        if self._parts.signals.finish_requested and self._verdict.ending is None:
            self._verdict.decide(ExitCode.OK, "Ctrl-C: what runs may finish; once more gives it back to the run queue")
        for notice in self._lookout.news():
            self._take_notice(notice)
        if self._parts.policy.preemptible is None and self._lookout.finds_preemptible():
            self._parts.heart.preemptible = True
            for slot in self._slots:
                slot.claims.preemptible = True

    def _take_notice(self, notice: Notice) -> None:
        policy = self._parts.policy
        ending = [] if notice.hint else self._attempts()
        if not notice.hint and not self.ended_by_notice:
            self._verdict.decide(ExitCode.PREEMPTED, f"notice: {notice}")
        tokens = [attempt.run.token for attempt in ending if not attempt.notice] if policy.marks else []
        self._lookout.announce(notice, tokens, self._clock())
        if notice.hint:
            return
        kill_at = time_to_kill(notice, policy.grace, self._clock())
        self._report_until = min(self._report_until, kill_at + REPORT_PATIENCE)
        for attempt in ending:
            attempt.give_notice(str(notice), policy.signal, kill_at)

    def _take_beats(self, now: float) -> None:
        for beat in self._parts.inbox.take():
            attempt = next((a for a in self._attempts() if a.run.token == beat.token), None)
            if attempt is None or attempt.fenced:
                continue
            run_id = beat.token.run_id
            if beat.hold is not Hold.OWNER:
                event(_log, logging.WARNING, "run-lost", run=run_id, hold=beat.hold.value, next="its child is killed")
                attempt.fence()
            elif beat.stop and not attempt.stopped:
                event(_log, logging.INFO, "run-stopped", run=run_id, reason=beat.stop)
                attempt.stop(beat.stop, self._parts.policy.grace, now)

    def _take_suggestions(self, now: float) -> None:
        try:
            if self._parts.asker.collect(now):
                self._idle_until = 0.0
        except AgentError as error:
            self._give_up(error)

    def _attempts(self) -> list[Attempt]:
        return [slot.attempt for slot in self._slots if slot.attempt is not None]

    # -- the life of an attempt ----------------------------------------------------------------------------------------

    def _watch(self, slot: Slot, now: float) -> None:
        attempt = slot.attempt
        if attempt is None:
            return
        ended = attempt.step(now)
        if ended is not None or attempt.lingers:
            with contextlib.suppress(KeyError):  # not again: a lingering child ended long ago
                self._selector.unregister(attempt.child)
        if ended is None:
            return
        parts = self._parts
        parts.heart.hold()
        attempt.child.close()
        parts.pump.finish(attempt.output)
        parts.guard.ended(attempt.run.token)
        slot.attempt = None
        if attempt.fenced:
            parts.heart.drop(attempt.run.token, send_output=False)
            slot.clear()
            return
        slot.end = end_of(attempt, ended, marks=parts.policy.marks)
        if ended.code != 0:
            send_last_words(parts.store, attempt)

    def _deliver(self, slot: Slot, now: float) -> None:
        if slot.end is None or slot.run is None or now < slot.retry_at:
            return
        parts = self._parts
        answer: EndAnswer | None = None
        claimed: ClaimAnswer | None = None
        try:
            if slot.end.exit_code == 0 and self._may_claim():
                request = slot.claims.request(parts.asker.offer)
                answer, claimed = parts.store.end_and_claim(slot.end, request)
            if answer is None or answer.hold is Hold.STALE:
                answer = deliver(
                    parts.store,
                    slot.end,
                    slot.run,
                    sweep_id=parts.sweep_id,
                    agent=slot.agent,
                    lease_ms=parts.policy.lease_ms,
                )
            self._call_worked(slot, now)
            self._reported(slot, slot.end, answer, now)
            if claimed is not None:
                self._settle(slot, claimed, now)
        except (StoreUnavailableError, StoreRefusedError) as error:
            self._call_failed(slot, error, now)
        except (AgentError, UnknownSweepError, AgentReplacedError) as error:
            self._give_up(error)

    def _reported(self, slot: Slot, request: EndRequest, answer: EndAnswer, now: float) -> None:
        token = request.token
        accepted = answer.hold in (Hold.OWNER, Hold.ENDED)
        self._parts.heart.drop(token, send_output=accepted)
        slot.clear()
        event(
            _log,
            logging.INFO if accepted else logging.WARNING,
            "run-ended" if accepted else "report-refused",
            run=token.run_id,
            attempt=token.attempt,
            state=answer.state.value if answer.state is not None else None,
            hold=None if accepted else answer.hold.value,
            reason=answer.reason or request.reason or None,
        )
        if answer.state is not None and accepted and not request.preempted:
            too_many = self._flapping.record(answer.state, now)
            if too_many is not None:
                self._verdict.decide(
                    ExitCode.FLAPPING,
                    f"{too_many}; the last one was {token.run_id} ({answer.reason or request.reason}). See its"
                    f" output: `resweep logs {token.run_id}`; then `resweep retry --failed {self._parts.sweep_id}`",
                )

    # -- claims --------------------------------------------------------------------------------------------------------

    def _may_claim(self) -> bool:
        count = self._parts.count
        return self._verdict.ending is None and (count is None or self._taken < count)

    def _claim(self, slot: Slot, now: float) -> None:
        parts = self._parts
        for _ in range(CLAIMS_IN_A_ROW):
            if not slot.free or now < max(slot.retry_at, self._idle_until) or not self._may_claim():
                return
            try:
                answer = parts.store.claim(slot.claims.request(parts.asker.offer))
                self._call_worked(slot, now)
                self._settle(slot, answer, now)
            except (StoreUnavailableError, StoreRefusedError) as error:
                self._call_failed(slot, error, now)
            except (AgentError, UnknownSweepError, AgentReplacedError) as error:
                self._give_up(error)

    def _settle(self, slot: Slot, answer: ClaimAnswer, now: float) -> None:
        parts = self._parts
        follows = slot.claims.settle(answer)
        parts.asker.learn(answer.next_index, answer.ready)
        match follows:
            case Next.LAUNCH if answer.run is not None:
                self._launch(slot, answer.run)
            case Next.ASK:
                if not parts.asker.ask(self._idle_agents()):
                    self._wait(now)
            case Next.RENAME:
                parts.asker.rename(answer.reason)
            case Next.REGISTER:
                self.register(slot)
            case Next.WAIT:
                self._wait(now)
            case Next.DONE:
                if all(other.free for other in self._slots):
                    self._verdict.decide(ExitCode.OK, f"the sweep is finished ({answer.reason})")
                self._wait(now)

    def _idle_agents(self) -> list[str]:
        idle = [slot.agent for slot in self._slots if slot.free]
        return idle if self._parts.count is None else idle[: self._parts.count - self._taken]

    def _wait(self, now: float) -> None:
        self._idle_until = now + POLL * random.uniform(0.75, 1.0)

    def register(self, slot: Slot) -> None:
        """Introduce a slot; what an earlier process of the same name held goes back to the run queue.

        Raises:
            StoreError: The store did not answer, refused, or does not know the sweep.
        """
        identity = self._parts.identity
        released = self._parts.store.register(
            self._parts.sweep_id, agent=slot.agent, session=identity.session, host=identity.host, pid=identity.pid
        )
        slot.claims.registered()
        if released:
            event(_log, logging.INFO, "runs-given-back", agent=slot.agent, runs=",".join(released))

    def _launch(self, slot: Slot, run: ClaimedRun) -> None:
        parts = self._parts
        slot.run = run
        token = run.token
        self._taken += 1
        directory = parts.surroundings.attempt_directory(run)
        environment = prepare(parts.surroundings, run, slot.agent, slot.number)
        parts.guard.expect(token)
        try:
            child = parts.launcher.launch(run, environment, directory)
        except (AgentError, UnfitRunError) as error:
            parts.guard.ended(token)
            slot.end = end_of_failed_launch(token, error)
            if isinstance(error, AgentError):
                self._verdict.decide(error.exit_code, str(error))
            return
        parts.guard.launched(token, child.group)
        prefix = f"[{token.run_id}] " if len(self._slots) > 1 else ""
        output = parts.pump.attach(child.output, directory / "output.log", prefix)
        notice_file = parts.surroundings.notice_file(run)
        slot.attempt = Attempt(run, child, output, self._clock(), notice_file, settles=parts.policy.marks)
        self._selector.register(child, selectors.EVENT_READ)
        parts.heart.keep(slot.agent, run, output)
        self._idle_since = None
        facts = {"run": token.run_id, "attempt": token.attempt, "step": run.step, "pid": child.group}
        event(_log, logging.INFO, "run-started", **facts)
        parts.asker.prepare()

    def _give_up(self, error: AgentError | UnknownSweepError | AgentReplacedError) -> None:
        """Claim nothing more; what runs may finish."""
        known = agent_error(error)
        self._verdict.decide(known.exit_code, str(known))

    # -- Redis away ----------------------------------------------------------------------------------------------------

    def _call_failed(self, slot: Slot, error: StoreError, now: float) -> None:
        if isinstance(error, StoreRefusedError) and not error.temporary and all(slot.free for slot in self._slots):
            raise error
        slot.failed(self._clock())
        self._parts.link.failed(error, now)

    def _call_worked(self, slot: Slot, now: float) -> None:
        slot.worked()
        self._parts.link.worked(now)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _look_at_the_end(self, now: float) -> float | None:
        parts = self._parts
        down_since = parts.link.down_since
        all_free = all(slot.free for slot in self._slots)
        if all_free and parts.count is not None and self._taken >= parts.count:
            self._verdict.decide(ExitCode.OK, f"{self._taken} runs were taken (--count)")
        if all_free and self._idle_since is None:
            self._idle_since = now
        waited = now - self._idle_since if all_free and self._idle_since is not None else 0.0
        if parts.max_wait is not None and all_free and waited >= parts.max_wait:
            if down_since is None:
                self._verdict.decide(ExitCode.OK, f"no work for {parts.max_wait:g} s (--max-wait)")
            else:
                # Whether there is work nobody knows.
                why = f"Redis has not answered for {now - down_since:.0f} s (--max-wait {parts.max_wait:g})"
                self._verdict.decide(ExitCode.REDIS_LOST, f"{why}; `resweep doctor`")
        if all_free and down_since is not None and now - down_since >= IDLE_PATIENCE:
            self._verdict.decide(ExitCode.REDIS_LOST, f"Redis did not answer for {IDLE_PATIENCE:g} s; `resweep doctor`")
        if self._verdict.ending is not None and all_free:
            return None
        if now >= self._report_until and not self._attempts():
            raise AgentError(
                "Redis did not take the report of a run's end in time; its lease decides now; see `resweep doctor`",
                ExitCode.REDIS_LOST,
            )
        return self._next_look(now)

    def _next_look(self, now: float) -> float:
        times = [now + LONGEST_SLEEP, self._report_until]
        for slot in self._slots:
            if slot.attempt is not None:
                times.append(slot.attempt.due(now))
            elif slot.end is not None:
                times.append(slot.retry_at)
            elif slot.free and self._may_claim():
                times.append(max(slot.retry_at, self._idle_until))
        if self._parts.max_wait is not None and self._idle_since is not None:
            times.append(self._idle_since + self._parts.max_wait)
        return min(times)

    def _sleep(self, due: float) -> None:
        parts = self._parts
        parts.heart.release()
        seconds = due - self._clock()
        if seconds <= 0:
            return
        idle = all(slot.free for slot in self._slots) and self._may_claim() and parts.link.down_since is None
        if idle and not parts.asker.busy and not self._selector.select(0):
            block = min(seconds, POLL, parts.policy.store_timeout / 2)
            try:
                if parts.store.wait_for_work(parts.sweep_id, block):
                    self._idle_until = 0.0
            except (StoreUnavailableError, StoreRefusedError) as error:
                parts.link.failed(error, self._clock())
        else:
            self._selector.select(seconds)
        parts.wakeup.clear()
