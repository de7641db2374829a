"""The agent's main loop, step by step: a store without a server, children without processes, a clock of the test."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest
from support.checks import check_promises
from support.launching import FakeChild, FakeLauncher
from support.stores import SWEEP, Agent, make_sweep
from support.waiting import wait_until

from resweep_agent.ask import Asker
from resweep_agent.claim import Claims
from resweep_agent.devices import Places
from resweep_agent.environment import Surroundings
from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.flapping import FlappingLimits
from resweep_agent.guard import Guard
from resweep_agent.heartbeat import Beat, Heart
from resweep_agent.identity import Identity
from resweep_agent.launch import Exit
from resweep_agent.link import Link
from resweep_agent.lookout import time_to_kill
from resweep_agent.loop import IDLE_PATIENCE, REPORT_PATIENCE, Loop
from resweep_agent.notices import Notice, SignalSource
from resweep_agent.options import Policy
from resweep_agent.output import OutputPump
from resweep_agent.parts import Inbox, Parts, Wakeup
from resweep_agent.slot import Slot
from resweep_agent.watch import SETTLING
from resweep_scheduler.config import parse_sweep
from resweep_scheduler.search import SearchError
from resweep_scheduler.store import Hold, Run, RunState, Store, StoreRefusedError, StoreUnavailableError, SweepCommand

AWAY = StoreUnavailableError("redis://h/0 cannot be reached")
OTHER_LIMITS = FlappingLimits(0, 0, 2)


class Silent:
    def write(self, data: bytes) -> None:
        """Show nothing."""


class NoticeByHand:
    """A notice source of the test."""

    def __init__(self) -> None:
        self.notice: Notice | None = None
        self.preemptible = False

    def start(self, wake_descriptor: int) -> None:
        """Nothing to start."""

    def poll(self) -> Notice | None:
        return self.notice

    def stop(self) -> None:
        """Nothing to stop."""


class Bench:
    """A loop and all that it works with.

    Attributes:
        now: The agent's clock.
    """

    def __init__(self, store: Store, folder: Path, stack: ExitStack) -> None:
        self.store = store
        self.folder = folder
        self.stack = stack
        self.launcher = FakeLauncher()
        self.source = NoticeByHand()
        self.signals = SignalSource()
        self.now = 1000.0

    def build(
        self,
        *,
        slots: int = 1,
        count: int | None = None,
        max_wait: float | None = None,
        marks: bool = True,
        preemptible: bool | None = False,
        flapping: FlappingLimits = OTHER_LIMITS,
        values: int = 3,
        run_cap: int | None = None,
        learns: bool = False,
    ) -> Loop:
        make_sweep(self.store, run_cap=run_cap)
        config = parse_sweep({"method": "grid", "parameters": {"a": {"values": list(range(values))}}})
        if learns:
            config = parse_sweep(
                {"method": "bayes", "metric": {"name": "m"}, "parameters": {"a": {"min": 0, "max": 9}}}
            )
        store, link, wakeup = self.store, Link(), Wakeup()
        self.stack.callback(wakeup.close)
        self.inbox = Inbox(wakeup)
        identity = Identity("me", "abcd", "host", 1)
        policy = Policy(60_000, 10.0, 30.0, signal.SIGTERM, marks, preemptible, flapping)
        pump = OutputPump(Silent())
        pump.start()
        self.stack.callback(pump.close)
        heart = Heart(
            store,
            sweep_id=SWEEP,
            session="abcd",
            lease_ms=60_000,
            interval=10.0,
            block=0.1,
            post=self.inbox.post,
            link=link,
        )
        parts = Parts(
            store=store,
            sweep_id=SWEEP,
            identity=identity,
            policy=policy,
            surroundings=Surroundings(
                environ={"WANDB_DIR": str(self.folder)},
                url="redis://h/0",
                scope=store.scope,
                sweep_id=SWEEP,
                directory=self.folder,
                checkpoints=self.folder / "checkpoints",
                places=Places(slots),
            ),
            launcher=self.launcher,
            asker=Asker(store, SWEEP, config, session="abcd", wake=wakeup.wake),
            heart=heart,
            guard=Guard(),
            pump=pump,
            link=link,
            wakeup=wakeup,
            inbox=self.inbox,
            signals=self.signals,
            sources=(self.signals, self.source),
            count=count,
            max_wait=max_wait,
        )
        self.link = link
        claims = [
            Claims(sweep_id=SWEEP, agent=identity.of_slot(n), session="abcd", lease_ms=60_000, preemptible=False)
            for n in range(slots)
        ]
        self.stack.callback(parts.asker.close)
        self.loop = Loop(parts, [Slot(n, identity.of_slot(n), claims[n]) for n in range(slots)], clock=lambda: self.now)
        return self.loop

    def step(self, later: float = 0.0) -> float | None:
        """One step, some seconds later."""
        self.now += later
        return self.loop.step(self.now)

    def end(self, number: int = -1, ended: Exit = Exit(0, None)) -> None:  # noqa: B008  # frozen
        """The child of the launch `number` ends."""
        self.launcher.children[number].ended = ended

    def record(self, number: int = -1) -> Run:
        """The record of the run of the launch `number`."""
        return self.store.run(self.launcher.launched[number][0].token.run_id)

    @property
    def child(self) -> FakeChild:
        return self.launcher.children[-1]


@pytest.fixture
def bench(store: Store, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(store, tmp_path, stack)


def states(bench: Bench) -> list[str]:
    return [run.state.value for run in bench.store.runs(SWEEP)]


def test_a_sweep_is_worked_through_and_the_agent_ends(bench: Bench) -> None:
    loop = bench.build(values=2)
    bench.step()
    assert [run.params for run, _ in bench.launcher.launched] == [{"a": 0}]
    bench.end()
    bench.step(1.0)
    bench.end()
    assert bench.step(1.0) is None
    assert states(bench) == ["finished", "finished"]
    assert loop._verdict.result() is ExitCode.OK


def test_between_two_runs_there_is_one_flight_to_the_store(bench: Bench) -> None:
    bench.build()
    bench.step()
    bench.end()
    with (
        mock.patch.object(bench.store, "end_attempt") as end_attempt,
        mock.patch.object(bench.store, "claim") as claim,
        mock.patch.object(bench.store, "end_and_claim", wraps=bench.store.end_and_claim) as both,
    ):
        bench.step(1.0)
    assert (both.call_count, end_attempt.call_count, claim.call_count) == (1, 0, 0)
    assert len(bench.launcher.launched) == 2


def test_the_run_queue_comes_before_the_search(bench: Bench) -> None:
    bench.build()
    bench.step()
    other = Agent(bench.store, "other")
    other.take(bench.loop._parts.asker.offer)
    other.end(None, preempted=True)
    bench.end()
    bench.step(1.0)
    run, _ = bench.launcher.launched[-1]
    assert (run.params, run.token.attempt, run.resumed) == ({"a": 1}, 2, True)


def test_each_slot_has_a_run_of_its_own(bench: Bench) -> None:
    bench.build(slots=2)
    bench.step()
    assert [run.params["a"] for run, _ in bench.launcher.launched] == [0, 1]
    assert [environment["RESWEEP_AGENT_ID"] for _, environment in bench.launcher.launched] == ["me", "me.1"]


def test_count_is_the_number_of_runs_taken(bench: Bench) -> None:
    bench.build(slots=2, count=1)
    bench.step()
    assert len(bench.launcher.launched) == 1
    bench.end()
    assert bench.step(1.0) is None
    assert states(bench) == ["finished"]


@pytest.mark.parametrize(
    ("ended", "state"),
    [(Exit(0, None), "finished"), (Exit(3, None), "failed"), (Exit(None, 9), "crashed")],
)
def test_the_way_a_child_ends_decides_the_state_of_its_run(bench: Bench, ended: Exit, state: str) -> None:
    bench.build(count=1)
    bench.step()
    bench.end(ended=ended)
    bench.step(1.0)
    assert bench.step(SETTLING) is None
    assert states(bench) == [state]


@pytest.mark.parametrize("ended", [Exit(3, None), Exit(None, 15)])
def test_a_notice_that_comes_a_moment_after_a_bad_end_explains_it(bench: Bench, ended: Exit) -> None:
    """SLURM and systemd signal all processes of a job one by one, and the script may be gone first."""
    loop = bench.build()
    bench.step()
    bench.end(ended=ended)
    assert bench.step() == pytest.approx(bench.now + SETTLING)
    assert bench.child not in loop._selector.get_map(), "an ended child keeps waking the loop"
    assert states(bench) == ["running"]
    bench.source.notice = Notice("SIGTERM")
    assert bench.step(SETTLING / 2) is None
    assert bench.child.signals == [signal.SIGTERM], "what is left of its group is told, too"
    assert (states(bench), bench.record().reason) == (["preempted"], "notice: SIGTERM")


def test_without_marks_no_notice_is_waited_for(bench: Bench) -> None:
    bench.build(marks=False, count=1)
    bench.step()
    bench.end(ended=Exit(None, 15))
    assert bench.step() is None
    assert states(bench) == ["crashed"]


@pytest.mark.parametrize(
    ("ended", "state"),
    [(Exit(0, None), "finished"), (Exit(3, None), "preempted"), (Exit(None, 15), "preempted")],
)
def test_after_a_notice_only_exit_0_finishes_a_run(bench: Bench, ended: Exit, state: str) -> None:
    bench.build()
    bench.step()
    bench.source.notice = Notice("spot")
    bench.step(1.0)
    assert bench.child.signals == [signal.SIGTERM]
    assert bench.record().state is RunState.PREEMPTING
    bench.end(ended=ended)
    assert bench.step(1.0) is None
    assert states(bench) == [state]
    assert bench.loop._verdict.result() is ExitCode.PREEMPTED


def test_a_child_that_ignores_the_notice_is_killed_after_the_grace(bench: Bench) -> None:
    bench.build()
    bench.step()
    bench.source.notice = Notice("spot")
    assert bench.step() == pytest.approx(bench.now + 5.0)
    bench.step(29.9)
    assert signal.SIGKILL not in bench.child.signals
    bench.step(0.1)
    assert signal.SIGKILL in bench.child.signals
    assert bench.step() is None
    assert states(bench) == ["preempted"]


def test_a_deadline_of_the_machine_shortens_the_grace(bench: Bench) -> None:
    bench.build()
    bench.step()
    bench.source.notice = Notice("spot", deadline=bench.now + 3.0)
    assert bench.step() == pytest.approx(bench.now + 2.7), "a tenth is left for the report"
    bench.step(2.7)
    assert signal.SIGKILL in bench.child.signals


@pytest.mark.parametrize(("lead", "killed_after"), [(5.0, 10.0 + 4.5), (120.0, 30.0), (None, 30.0)])
def test_a_later_notice_can_only_shorten_the_grace(bench: Bench, lead: float | None, killed_after: float) -> None:
    """On GCP a signal comes first, and then that the machine goes in 30 s, whatever the grace is."""
    loop = bench.build()
    bench.step()
    noticed = bench.now
    bench.signals._on_notice(signal.SIGTERM, None)
    bench.step()
    bench.step(10.0)
    bench.source.notice = Notice("gcp", None if lead is None else bench.now + lead, "preempted")
    for _ in range(2):
        bench.step()
    assert loop._attempts()[0].kill_at == pytest.approx(noticed + killed_after)
    assert loop._report_until == pytest.approx(noticed + killed_after + REPORT_PATIENCE)
    assert bench.child.signals == [signal.SIGTERM], "it is told once"
    bench.end(ended=Exit(None, 15))
    assert bench.step() is None
    assert bench.record().reason == "notice: SIGTERM"
    noted = [event.data["source"] for event in bench.store.events(SWEEP) if event.kind in ("preempting", "notice")]
    assert noted == ["SIGTERM", "SIGTERM", *(["gcp"] if lead is not None else [])]
    check_promises(bench.store, SWEEP, complete=False)


@pytest.mark.parametrize(("lead", "killed_after"), [(120.0, 30.0), (31.0, 29.0), (20.0, 18.0), (0.0, 0.0), (-5.0, 0.0)])
def test_the_children_are_gone_before_the_machine_is(lead: float, killed_after: float) -> None:
    notice = Notice("aws", deadline=1000.0 + lead)
    assert time_to_kill(notice, 30.0, 1000.0) == pytest.approx(1000.0 + killed_after)


def test_a_notice_is_an_event_with_its_source_and_how_long_the_machine_is_there(bench: Bench) -> None:
    bench.build()
    bench.step()
    bench.source.notice = Notice("aws", deadline=bench.now + 120.0, detail="spot terminate")
    bench.step()
    bench.step(1.0)
    marked, noted = [event for event in bench.store.events(SWEEP) if event.kind in ("preempting", "notice")]
    assert marked.data == {"reason": "notice: aws spot terminate", "source": "aws", "lead_ms": 120_000}
    assert (noted.run_id, noted.agent, noted.attempt) == (None, "me", None)
    assert noted.data == {"source": "aws", "detail": "spot terminate", "lead_ms": 120_000}
    bench.end(ended=Exit(None, 15))
    bench.step()
    assert bench.record().reason == "notice: aws spot terminate"
    check_promises(bench.store, SWEEP, complete=False)


def test_an_agent_without_a_run_tells_of_its_notice_too(bench: Bench) -> None:
    bench.build(count=1)
    bench.store.command_sweep(SWEEP, SweepCommand.PAUSE)
    bench.step()
    bench.source.notice = Notice("SIGTERM")
    assert bench.step() is None
    assert [event.data for event in bench.store.events(SWEEP) if event.kind == "notice"] == [{"source": "SIGTERM"}]


def test_a_hint_is_an_event_and_nothing_else(bench: Bench) -> None:
    bench.build(values=2)
    bench.step()
    bench.source.notice = Notice("aws", detail="rebalance recommendation", hint=True)
    bench.step()
    bench.step(1.0)
    assert bench.child.signals == []
    assert bench.record().state is RunState.RUNNING
    bench.end()
    bench.step(1.0)
    assert len(bench.launcher.launched) == 2, "the agent goes on"
    hints = [event.data for event in bench.store.events(SWEEP) if event.kind == "notice"]
    assert hints == [{"source": "aws", "detail": "rebalance recommendation", "hint": True}]

    bench.source.notice = Notice("aws", detail="spot terminate")
    bench.step(1.0)
    assert bench.child.signals == [signal.SIGTERM]
    assert [event.data["detail"] for event in bench.store.events(SWEEP) if event.kind == "notice"] == [
        "rebalance recommendation",
        "spot terminate",
    ]


@pytest.mark.parametrize("later", [False, True], ids=["the run that is running", "the run that comes next"])
@pytest.mark.parametrize(("policy", "state"), [(None, "preempted"), (False, "crashed")])
def test_on_a_spot_machine_a_run_whose_agent_vanishes_is_preempted(
    bench: Bench, policy: bool | None, state: str, later: bool
) -> None:
    """Unless somebody said how it should be."""
    loop = bench.build(values=2, preemptible=policy)
    bench.step()
    bench.source.preemptible = True
    bench.step()
    if later:
        bench.end()
        bench.step(1.0)
        token = bench.launcher.launched[-1][0].token
        bench.store.heartbeat(SWEEP, agent="me", token=token, lease_ms=60_000)  # its child is launched
    else:
        loop._parts.heart.hurry()
        loop._parts.heart.step(bench.now)
    Agent(bench.store, "me", session="newer")  # its host was started again
    assert bench.record().state.value == state


def test_without_marks_a_notice_ends_the_run_and_does_not_requeue_it(bench: Bench) -> None:
    bench.build(marks=False)
    bench.step()
    bench.source.notice = Notice("spot")
    bench.step()
    assert bench.record().state is RunState.RUNNING
    bench.end(ended=Exit(None, 15))
    assert bench.step() is None
    assert states(bench) == ["crashed"]


def test_after_a_notice_nothing_is_claimed(bench: Bench) -> None:
    bench.build()
    bench.source.notice = Notice("spot")
    assert bench.step() is None
    assert bench.launcher.launched == []


def test_one_ctrl_c_lets_the_run_finish(bench: Bench) -> None:
    loop = bench.build()
    bench.step()
    bench.signals._on_interrupt(signal.SIGINT, None)
    bench.step()
    assert bench.child.signals == []
    bench.end()
    assert bench.step() is None
    assert loop._verdict.result() is ExitCode.OK
    assert len(bench.launcher.launched) == 1


def test_a_second_ctrl_c_gives_the_run_back(bench: Bench) -> None:
    loop = bench.build()
    bench.step()
    for _ in range(2):
        bench.signals._on_interrupt(signal.SIGINT, None)
        bench.step()
    assert bench.child.signals == [signal.SIGTERM]
    bench.end(ended=Exit(None, 15))
    assert bench.step() is None
    assert (states(bench), loop._verdict.result()) == (["preempted"], ExitCode.PREEMPTED)


def test_a_run_that_a_person_stops_gets_a_grace_and_is_killed_in_the_record(bench: Bench) -> None:
    bench.build(count=1)
    bench.step()
    run_id = bench.record().run_id
    bench.store.stop_run(run_id, reason="enough")
    bench.loop._parts.heart.step(bench.now)
    bench.step()
    assert bench.child.signals == [signal.SIGTERM]
    bench.end(ended=Exit(0, None))
    bench.step()
    assert (bench.record().state, bench.record().reason) == (RunState.KILLED, "enough")


@pytest.mark.parametrize("hold", [Hold.STALE, Hold.GONE])
def test_a_child_that_lost_its_run_is_killed_and_not_reported(bench: Bench, hold: Hold) -> None:
    bench.build(count=1)
    bench.step()
    bench.inbox.post(Beat(bench.launcher.launched[0][0].token, hold, ""))
    with mock.patch.object(bench.store, "end_attempt") as end_attempt:
        bench.step()
        assert bench.child.signals == [signal.SIGKILL]
        assert bench.step() is None
    assert end_attempt.call_count == 0


def test_a_child_that_ends_while_redis_is_away_is_reported_when_it_is_back(bench: Bench) -> None:
    bench.build(count=1)
    bench.step()
    bench.end()
    with mock.patch.object(bench.store, "end_attempt", side_effect=AWAY):
        bench.step(1.0)
        assert bench.link.down_since == bench.now
        for _ in range(10):
            bench.step(2.0)
    assert states(bench) == ["running"]
    assert bench.step(2.0) is None
    assert states(bench) == ["finished"]
    assert bench.link.down_since is None


def test_a_lost_reply_to_a_claim_loses_no_run(bench: Bench) -> None:
    bench.build(values=2)
    real = bench.store.claim

    def lost(*args: object) -> object:
        real(*args)  # type: ignore[arg-type]
        raise AWAY

    with mock.patch.object(bench.store, "claim", side_effect=lost):
        bench.step()  # the registration is asked for, the claim that follows is lost
        bench.step(3.0)
        bench.step(3.0)
    assert bench.launcher.launched == []
    bench.step(3.0)
    assert [(run.params["a"], run.token.attempt) for run, _ in bench.launcher.launched] == [(0, 1)]


def test_a_report_that_cannot_be_delivered_after_a_notice_ends_the_agent(bench: Bench) -> None:
    bench.build()
    bench.step()
    bench.source.notice = Notice("spot")
    bench.step()
    bench.end(ended=Exit(None, 15))
    with mock.patch.object(bench.store, "end_attempt", side_effect=AWAY):
        bench.step(1.0)
        with pytest.raises(AgentError, match="in time") as caught:
            bench.step(30.0 + REPORT_PATIENCE)
    assert caught.value.exit_code is ExitCode.REDIS_LOST


def test_an_agent_without_work_ends_when_redis_stays_away(bench: Bench) -> None:
    loop = bench.build()
    with mock.patch.object(bench.store, "claim", side_effect=AWAY):
        bench.step()
        assert bench.step(IDLE_PATIENCE - 1) is not None
        assert bench.step(1.0) is None
    with pytest.raises(AgentError, match="Redis did not answer") as caught:
        loop._verdict.result()
    assert caught.value.exit_code is ExitCode.REDIS_LOST


def test_a_refusal_ends_an_agent_that_holds_nothing(bench: Bench) -> None:
    bench.build()
    refused = StoreRefusedError("refuses the password")
    with mock.patch.object(bench.store, "claim", side_effect=refused), pytest.raises(StoreRefusedError):
        bench.step()


def test_a_refusal_stops_no_run(bench: Bench) -> None:
    bench.build(count=1)
    bench.step()
    bench.end()
    with mock.patch.object(bench.store, "end_attempt", side_effect=StoreRefusedError("out of memory")):
        bench.step()
    assert bench.step(3.0) is None
    assert states(bench) == ["finished"]


def test_a_command_that_does_not_exist_ends_the_agent_and_tells_the_run(bench: Bench) -> None:
    loop = bench.build()
    bench.launcher.error = AgentError("'nix' is not found; install it", ExitCode.COMMAND_NOT_FOUND)
    assert bench.step() is not None
    assert bench.step() is None
    run = bench.store.runs(SWEEP)[0]
    assert (run.state, run.exit_code, run.reason) == (RunState.FAILED, 127, "'nix' is not found; install it")
    with pytest.raises(AgentError, match="install it"):
        loop._verdict.result()


def test_a_machine_that_cannot_start_processes_gives_the_run_back(bench: Bench) -> None:
    bench.build()
    bench.launcher.error = AgentError("cannot start: no memory", ExitCode.UNEXPECTED)
    bench.step()
    with mock.patch.object(bench.store, "end_attempt", wraps=bench.store.end_attempt) as end_attempt:
        assert bench.step() is None
    assert states(bench) == ["preempted"]
    assert not end_attempt.call_args.args[0].launched, "the run is not to blame"


def test_a_run_that_can_be_started_nowhere_fails_and_the_other_runs_go_on(bench: Bench) -> None:
    loop = bench.build(slots=2, values=3)
    bench.launcher.unfit = 1
    bench.step()
    bench.step()
    assert [run.params["a"] for run, _ in bench.launcher.launched] == [0, 2]
    failed = bench.store.runs(SWEEP)[1]
    assert (failed.state, failed.exit_code, failed.reason) == (RunState.FAILED, 126, "embedded null byte")
    assert (bench.launcher.children[0].signals, loop._verdict.ending) == ([], None)


def test_failures_in_a_row_end_the_agent_and_the_last_claim_is_not_made(bench: Bench) -> None:
    loop = bench.build()
    for _ in range(2):
        bench.step(1.0)
        bench.end(ended=Exit(1, None))
        bench.step(1.0)
    assert bench.step(1.0) is None
    assert states(bench) == ["failed", "failed"]
    with pytest.raises(AgentError, match=r"2 runs in a row failed .*`resweep logs") as caught:
        loop._verdict.result()
    assert caught.value.exit_code is ExitCode.FLAPPING


def test_an_agent_waits_while_others_run_and_takes_what_they_give_back(bench: Bench) -> None:
    bench.build(values=1)
    other = Agent(bench.store, "other")
    bench.loop._parts.asker.prepare()
    other.take(bench.loop._parts.asker.offer)
    assert bench.step() is not None
    assert bench.launcher.launched == []
    other.end(1, preempted=True)
    bench.step(1.1)
    assert [run.token.attempt for run, _ in bench.launcher.launched] == [2]


def test_an_agent_waits_no_longer_than_it_may(bench: Bench) -> None:
    loop = bench.build(max_wait=10.0)
    bench.store.command_sweep(SWEEP, SweepCommand.PAUSE)
    bench.step()
    assert bench.step(9.9) is not None
    assert bench.step(0.2) is None
    assert loop._verdict.result() is ExitCode.OK


def test_an_agent_that_may_wait_no_longer_for_redis_does_not_say_that_there_is_no_work(bench: Bench) -> None:
    loop = bench.build(max_wait=10.0)
    with mock.patch.object(bench.store, "claim", side_effect=AWAY):
        bench.step()
        assert bench.step(10.1) is None
    with pytest.raises(AgentError, match=r"Redis has not answered for 10 s \(--max-wait 10\)") as caught:
        loop._verdict.result()
    assert caught.value.exit_code is ExitCode.REDIS_LOST


def test_a_sweep_that_is_removed_ends_the_agent(bench: Bench) -> None:
    loop = bench.build()
    bench.store.client.flushall()
    assert bench.step() is None
    with pytest.raises(AgentError) as caught:
        loop._verdict.result()
    assert caught.value.exit_code is ExitCode.UNKNOWN_SWEEP


def test_an_agent_whose_name_was_taken_ends(bench: Bench) -> None:
    loop = bench.build(count=2)
    bench.step()
    bench.end()
    Agent(bench.store, "me", session="newer")
    bench.step(1.0)
    assert bench.step(1.0) is None
    with pytest.raises(AgentError) as caught:
        loop._verdict.result()
    assert caught.value.exit_code is ExitCode.ILLEGAL_STATE


def test_a_run_that_finished_while_redis_was_rolled_back_is_finished(bench: Bench) -> None:
    bench.build()
    bench.step()
    run_id = bench.record().run_id
    key = bench.store.keys.run(run_id)
    # As an older snapshot has it: suggested and given to nobody, and not the next one.
    bench.store.client.hset(key, mapping={"state": "pending", "attempt": "0", "nonce": ""})
    bench.end()
    bench.step(1.0)
    assert bench.store.run(run_id).state is RunState.FINISHED
    assert len(bench.launcher.launched) == 2


def test_an_agent_that_breaks_gives_its_runs_back(bench: Bench) -> None:
    loop = bench.build()
    bench.step()
    with (
        mock.patch.object(loop, "step", side_effect=RuntimeError("a fault of ours")),
        pytest.raises(RuntimeError, match="a fault of ours"),
    ):
        loop.run()
    assert states(bench) == ["preempted"]
    assert bench.child.signals == [signal.SIGKILL]


def test_a_claim_without_an_answer_is_given_back_at_the_end(bench: Bench) -> None:
    loop = bench.build()
    bench.step()
    bench.end()
    real = bench.store.end_and_claim

    def lost(*args: object) -> object:
        real(*args)  # type: ignore[arg-type]
        raise AWAY

    with mock.patch.object(bench.store, "end_and_claim", side_effect=lost):
        bench.step()
    bench.source.notice = Notice("spot")
    bench.now += 3.0
    with mock.patch.object(bench.store, "end_attempt", wraps=bench.store.end_attempt) as end_attempt:
        assert loop.run() is ExitCode.PREEMPTED
    assert states(bench) == ["finished", "preempted"]
    assert not end_attempt.call_args.args[0].launched


# A search that learns.


def test_a_search_that_learns_is_asked_beside_the_loop_once_for_all_slots(bench: Bench) -> None:
    loop = bench.build(slots=3, learns=True)
    loop.step(bench.now)
    assert loop._parts.asker.busy
    wait_until(lambda: bench.store.runs(SWEEP), timeout=20, description="suggestions")
    wait_until(lambda: loop._selector.select(0), timeout=20, description="a wake-up of the loop")
    bench.step()
    assert not loop._parts.asker.busy
    assert [run.index for run in bench.store.runs(SWEEP)] == [0, 1, 2]
    assert len(bench.launcher.children) == 3


def test_no_more_is_asked_for_than_count_allows(bench: Bench) -> None:
    loop = bench.build(slots=3, count=2, learns=True)
    loop.step(bench.now)
    wait_until(lambda: bench.store.runs(SWEEP), timeout=20, description="suggestions")
    assert len(bench.store.runs(SWEEP)) == 2


def test_a_notice_is_taken_while_a_search_computes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr("resweep_scheduler.search.suggester.Suggester.compute", lambda *_, **__: goes_on.wait(20))
    loop = bench.build(learns=True)
    loop.step(bench.now)
    bench.source.notice = Notice("spot")
    assert loop.step(bench.now) is None
    goes_on.set()


def test_a_search_that_fails_ends_the_agent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise SearchError("there is nothing to propose")

    monkeypatch.setattr("resweep_scheduler.search.suggester.Suggester.compute", fail)
    loop = bench.build(learns=True)
    loop.step(bench.now)
    wait_until(lambda: loop._selector.select(0), timeout=20, description="a wake-up of the loop")
    with pytest.raises(AgentError, match="nothing to propose"):
        loop.run()
