"""Machines that are taken away, and the runs that they work on, for one day of virtual time through the real store.

As many runs as machines, each longer than the day, so that whatever makes a run or a machine wait is felt. A machine
that is taken away is replaced at once by an empty one, which asks for a run. When machines go is drawn beforehand, by
slot, so that every policy meets the same losses.

Heartbeats that only renew a lease are one: the first of an attempt asks for a lease that ends where the last one would
have moved it. All else that changes something is said, by the calls that agents make: register, claim, heartbeat,
commit_checkpoint (the last one of each attempt), log, mark_preempting, end_attempt.
"""

from __future__ import annotations

import heapq
import random
import secrets
from collections import deque
from dataclasses import dataclass, field

import harness
from virtual_time import VirtualStore

from resweep_scheduler.store import ClaimedRun, ClaimOutcome, ClaimRequest, ClaimToken, EndRequest, SweepSettings

DAY = 86_400.0
CHECKPOINT = 3_600.0  # seconds of work between two
SAVING = 10.0  # training stands still
STARTING = 60.0  # interpreter, imports, data, reading the checkpoint
LEAD = 120.0  # notice before the machine goes, as on EC2
STEP = 60.0
PULSE = 10.0  # how often somebody at least is heard


@dataclass(frozen=True, slots=True)
class Policy:
    """What is done about machines that go.

    Attributes:
        warned: The notice reaches the script, whose end is told to the store before the machine is gone.
        saves: The script saves a checkpoint when it is warned.
        beat, silence: Seconds between two signs of life; and after the last one, until a run is seen as lost.
        retried: A lost run goes back on the queue; else it is over.
        fruitless: `preemption.max_attempts_without_progress`.
    """

    name: str
    warned: bool = False
    saves: bool = False
    beat: float = 10.0
    silence: float = 60.0
    retried: bool = True
    fruitless: int = 3


@dataclass(slots=True)
class Machine:
    slot: int
    name: str
    goes: float
    session: str = field(default_factory=lambda: secrets.token_hex(4))
    asked: int = 1
    run: ClaimedRun | None = None
    began: float = 0.0  # the attempt
    base: float = 0.0  # seconds of work in the checkpoint that it began from


@dataclass(slots=True)
class Outcome:
    """What a day came to; seconds over all machines.

    Attributes:
        useful: Work that stands at the end of the day.
        done_again: Work that was lost.
        overhead: Starting, and saving checkpoints.
        preempted: Machines that were taken away from a run.
        delays: For each of those runs that came back: until it was started elsewhere.
        given_up: Runs that are over though nobody wanted it.
    """

    paid: float = 0.0
    useful: float = 0.0
    done_again: float = 0.0
    overhead: float = 0.0
    preempted: int = 0
    delays: list[float] = field(default_factory=list)
    given_up: int = 0

    @property
    def goodput(self) -> float:
        return self.useful / self.paid

    @property
    def idle(self) -> float:
        return self.paid - self.useful - self.done_again - self.overhead


def losses(slot: int, mean: float, seed: int) -> list[float]:
    """When the machines of a slot go, in the order of time, the last one after the day."""
    chance = random.Random(f"{seed} {slot}")
    times = [chance.expovariate(1 / mean)]
    while times[-1] < DAY:
        times.append(times[-1] + chance.expovariate(1 / mean))
    return times


class Fleet:
    """One policy's day. Events are (second, order, what, machine or run)."""

    def __init__(self, store: VirtualStore, policy: Policy, *, machines: int, mean: float) -> None:
        self.store, self.policy = store, policy
        self.outcome = Outcome(paid=machines * DAY)
        self.sweep_id = f"s{secrets.token_hex(4)}"
        self._losses = [deque(losses(slot, mean, seed=1)) for slot in range(machines)]
        self._work: dict[str, float] = {}  # run → seconds in its checkpoint
        self._open: dict[str, float] = {}  # run → when it was taken from its last machine
        self._idle: deque[Machine] = deque()
        self._queued = machines  # runs that wait for a machine; a few more than there are where runs were given up
        self._events: list[tuple[float, int, str, Machine]] = []
        self._order = 0
        self._made = 0
        self._heard = 0.0  # when the store last wound its lease clock

    def simulate(self) -> Outcome:
        """Lives through the day."""
        self.store.create_sweep(
            sweep_id=self.sweep_id, nonce=self.sweep_id, config_text="", config_json="{}",
            settings=SweepSettings(run_cap=len(self._losses), max_attempts_without_progress=self.policy.fruitless),
        )  # fmt: skip
        for first in range(0, len(self._losses), 100):
            number = min(100, len(self._losses) - first)
            self.store.add_runs(self.sweep_id, harness.offer_for(self.sweep_id, first, number))
        for slot in range(len(self._losses)):
            self._replace(slot)
        while self._events and self._events[0][0] <= DAY:
            at, _, what, machine = heapq.heappop(self._events)
            while self._heard + PULSE < at:
                self._move_to(self._heard + PULSE)
                self._be_heard()
            self._move_to(at)
            getattr(self, f"_{what}")(machine, at)
        self._move_to(DAY)
        self.store.flush()
        self._count_what_stands()
        return self.outcome

    @property
    def _now(self) -> float:
        return self.store.clock.seconds

    def _move_to(self, second: float) -> None:
        self.store.clock.move_to(second)

    def _push(self, at: float, what: str, machine: Machine) -> None:
        self._order += 1
        heapq.heappush(self._events, (at, self._order, what, machine))

    # What happens to machines.

    def _replace(self, slot: int) -> None:
        """An empty machine is there, and asks."""
        self._made += 1
        machine = Machine(slot, f"m{slot}-{self._made}", self._losses[slot].popleft())
        self.store.register(self.sweep_id, agent=machine.name, session=machine.session, host="sim", pid=1)
        self._push(machine.goes, "gone", machine)
        if not self._ask(machine):
            self._idle.append(machine)

    def _ask(self, machine: Machine) -> bool:
        """Asks for a run, if there may be one; a machine that has its notice takes nothing more."""
        now, policy = self._now, self.policy
        if not self._queued or (policy.warned and now >= machine.goes - LEAD):
            return False
        stands = machine.goes - LEAD if policy.warned else machine.goes  # the last moment of training
        lease = (machine.goes - now) // policy.beat * policy.beat + policy.silence
        nonce, silence_ms = f"{machine.session}.{machine.asked}", round(policy.silence * 1000)
        self._heard = now
        answer = self.store.claim(ClaimRequest(self.sweep_id, machine.name, nonce, silence_ms, policy.retried))
        self._queued -= 1
        if answer.outcome is not ClaimOutcome.RUN or answer.run is None:
            return False
        machine.asked += 1
        machine.run, machine.began = answer.run, now
        run_id = answer.run.token.run_id
        self.store.heartbeat(self.sweep_id, agent=machine.name, token=answer.run.token, lease_ms=round(lease * 1000))
        saved = answer.run.checkpoint
        machine.base = float(saved.metadata["work"]) if saved is not None else 0.0
        assert machine.base == self._work.setdefault(run_id, 0.0), "the store hands out another checkpoint"
        if run_id in self._open:
            self.outcome.delays.append(now - self._open.pop(run_id))
        saves, _, _ = self._progress(machine, stands)
        if saves:
            self._push(now + STARTING + saves * (CHECKPOINT + SAVING), "saved", machine)
        if policy.warned:
            self._push(stands, "noticed", machine)
        else:
            self._push(now + lease + 0.002, "missed", machine)
        return True

    def _progress(self, machine: Machine, at: float) -> tuple[int, float, float]:
        """Of the attempt up to a moment: checkpoints, seconds of work since the last one, seconds of overhead."""
        worked = at - machine.began - STARTING
        if worked < 0:
            return 0, 0.0, at - machine.began
        saves, rest = divmod(worked, CHECKPOINT + SAVING)
        return int(saves), min(rest, CHECKPOINT), STARTING + saves * SAVING + max(0.0, rest - CHECKPOINT)

    def _saved(self, machine: Machine, at: float) -> None:
        """The last checkpoint of the attempt that the clock made."""
        if machine.run is not None:
            saves, _, _ = self._progress(machine, at + 0.001)
            self._commit(machine.run.token, machine.base + saves * CHECKPOINT)

    def _commit(self, token: ClaimToken, work: float) -> None:
        self._work[token.run_id] = work
        self.store.commit_checkpoint(
            token, path=f"/{work}", step=int(work // STEP) - 1, metadata={"work": work}, after=int(work // STEP)
        )

    def _noticed(self, machine: Machine, at: float) -> None:
        """The notice comes; the script ends at once, or saves first."""
        if machine.run is not None:
            self.store.mark_preempting(machine.run.token, reason="notice: sim")
            self._push(at + (SAVING if self.policy.saves else 0), "told", machine)

    def _told(self, machine: Machine, at: float) -> None:
        """The script has ended, and the agent says so."""
        run = machine.run
        assert run is not None
        saves = self.policy.saves
        lost = self._account(machine, at - (SAVING if saves else 0), keeps=saves)
        self._log(machine, lost)
        if saves:
            self.outcome.overhead += SAVING
            self._commit(run.token, self._work[run.token.run_id])
        self.store.end_attempt(EndRequest(run.token, 1, preempted=True))
        self._open[run.token.run_id] = at
        machine.run = None
        self._queued += 1
        self._hand_out()

    def _gone(self, machine: Machine, at: float) -> None:
        """The machine is not there any more; without a word, its run is seen as lost later."""
        if machine.run is not None:
            lost = self._account(machine, at, keeps=not self.policy.retried)
            self._log(machine, lost)
            self._open[machine.run.token.run_id] = at
            machine.run = None
        elif machine in self._idle:
            self._idle.remove(machine)
        self._replace(machine.slot)

    def _missed(self, machine: Machine, at: float) -> None:
        """The lease has run out: whoever asks next finds it."""
        self._be_heard()
        self._queued += self.policy.retried
        self._hand_out()

    def _hand_out(self) -> None:
        for _ in range(len(self._idle)):
            machine = self._idle.popleft()
            if self._ask(machine):
                return
            self._idle.append(machine)

    def _be_heard(self) -> None:
        self._heard = self._now
        nobody = ClaimToken("nobody", 1, "nobody.1")
        self.store.heartbeat(self.sweep_id, agent="nobody", token=nobody, lease_ms=60_000)

    # What it comes to.

    def _account(self, machine: Machine, at: float, *, keeps: bool) -> float:
        """Adds up an attempt; returns the seconds of work that were lost."""
        assert machine.run is not None
        saves, rest, overhead = self._progress(machine, at)
        self.outcome.preempted += 1
        self.outcome.overhead += overhead
        self._work[machine.run.token.run_id] = machine.base + saves * CHECKPOINT + (rest if keeps else 0)
        lost = 0.0 if keeps else rest
        self.outcome.done_again += lost
        return lost

    def _log(self, machine: Machine, lost: float) -> None:
        """The first and the last step that the attempt finished."""
        assert machine.run is not None
        token = machine.run.token
        first, end = int(machine.base // STEP), int((self._work[token.run_id] + lost) // STEP)
        if end > first:
            self.store.log(token, first_seq=1, rows=[(first, "{}"), (end - 1, "{}")])

    def _count_what_stands(self) -> None:
        self.outcome.useful = sum(self._work.values())
        owned = {machine.slot: machine for _, _, what, machine in self._events if what == "gone" and machine.run}
        for machine in owned.values():
            assert machine.run is not None
            saves, rest, overhead = self._progress(machine, DAY)
            self.outcome.useful += machine.base + saves * CHECKPOINT + rest - self._work[machine.run.token.run_id]
            self.outcome.overhead += overhead
        counts = self.store.sweep(self.sweep_id).counts
        self.outcome.given_up = sum(number for state, number in counts.items() if state.is_terminal)
