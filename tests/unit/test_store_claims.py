"""Who gets which run: the order of claims, and offers of the search."""

from __future__ import annotations

import pytest
from support.checks import check_promises
from support.stores import LEASE, SWEEP, Agent, Clock, dump, make_offer, make_sweep, pass_time

from resweep_scheduler.store import (
    ClaimOutcome,
    NewRun,
    Offer,
    Scope,
    Store,
    SweepCommand,
    SweepState,
    UnknownRunError,
    UnknownSweepError,
)
from resweep_scheduler.store.records import ClaimAnswer


def outcome_of(answer: ClaimAnswer) -> tuple[ClaimOutcome, str]:
    return answer.outcome, answer.run.token.run_id if answer.run else answer.reason


# Which run comes next.


def test_queue_comes_before_ready_runs_and_those_before_the_offer(store: Store) -> None:
    """A preempted run is handed out before suggested ones, and the search is asked last."""
    make_sweep(store)
    agent = Agent(store)
    store.add_runs(SWEEP, make_offer(2))
    agent.take()
    agent.mark()
    agent.end(1)
    offer = make_offer(1, first=2)
    taken = [agent.take(offer).token for _ in range(3)]
    assert [(token.run_id, token.attempt) for token in taken] == [("run0", 2), ("run1", 1), ("run2", 1)]


def test_queue_is_first_in_first_out(store: Store) -> None:
    """Preempted runs come back in the order in which they were preempted, not in that of their claims."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(4))
    agents = [Agent(store, name) for name in "abcd"]
    for agent in agents:
        agent.take()
        agent.mark()
    order = [agents[2], agents[0], agents[3], agents[1]]
    for agent in order:
        agent.end(1)
    assert store.sweep(SWEEP).queue == ("run2", "run0", "run3", "run1")
    assert [agents[0].take().token.run_id for _ in range(4)] == ["run2", "run0", "run3", "run1"]


def test_attempt_that_never_began_is_first_on_the_queue(store: Store, clock: Clock) -> None:
    """A run whose claim was never answered by a launch waits in nobody's line: it keeps its turn."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2))
    Agent(store, "lost").take_unconfirmed()
    other = Agent(store, "other")
    other.take()
    other.mark()
    other.end(1)
    pass_time(store, clock, LEASE)
    assert store.sweep(SWEEP).queue == ("run0", "run1")
    assert store.run("run0").reason == "the attempt never began"


def test_claim_answers_what_the_run_needs(store: Store) -> None:
    """A resumed run comes with its id, index, parameters, last step and checkpoint."""
    make_sweep(store)
    first, second = Agent(store, "a"), Agent(store, "b")
    run = first.take(make_offer(1))
    assert (run.index, run.params, run.resumed, run.step, run.checkpoint) == (0, {"x": 0}, False, None, None)
    first.log(0, 1, 2)
    store.commit_checkpoint(run.token, path="/tmp/c2", step=2, metadata={"epoch": 1})
    first.end(1, preempted=True)
    again = second.take()
    assert (again.index, again.params, again.resumed, again.step) == (0, {"x": 0}, True, 2)
    assert again.checkpoint is not None
    assert (again.checkpoint.path, again.checkpoint.step, again.checkpoint.attempt) == ("/tmp/c2", 2, 1)
    assert again.checkpoint.metadata == {"epoch": 1}
    assert again.claimed_at == store.redis_time() == store.run("run0").started_at


def test_two_agents_never_get_the_same_run(store: Store) -> None:
    """Ten agents share ten runs, one each; the eleventh is told to ask."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(10))
    agents = [Agent(store, f"agent{number}") for number in range(10)]
    assert sorted(agent.take().index for agent in agents) == list(range(10))
    assert Agent(store, "late").claim().outcome is ClaimOutcome.ASK
    check_promises(store, SWEEP, complete=False)


# Ask, wait, done.


def test_empty_sweep_asks_the_search(store: Store) -> None:
    """With nothing queued and nothing ready the answer is ask, with the index where the search goes on."""
    make_sweep(store)
    agent = Agent(store)
    assert agent.claim().outcome is ClaimOutcome.ASK
    store.add_runs(SWEEP, make_offer(3))
    for _ in range(3):
        agent.take()
        agent.end()
    answer = agent.claim()
    assert (answer.outcome, answer.next_index) == (ClaimOutcome.ASK, 3)


def test_idle_agent_waits_while_others_run_because_their_runs_may_come_back(store: Store) -> None:
    """When the search is exhausted an idle agent stays for the run of another, and goes home when that has ended."""
    make_sweep(store)
    busy, idle = Agent(store, "busy"), Agent(store, "idle")
    busy.take(make_offer(1, exhausted=True))
    assert outcome_of(idle.claim()) == (ClaimOutcome.WAIT, "others run")
    busy.end(1, preempted=True)
    assert idle.take().token.run_id == "run0"
    assert outcome_of(busy.claim()) == (ClaimOutcome.WAIT, "others run")
    idle.end(0)
    assert outcome_of(busy.claim()) == (ClaimOutcome.DONE, "exhausted")
    assert outcome_of(idle.claim()) == (ClaimOutcome.DONE, "exhausted")
    check_promises(store, SWEEP)


def test_paused_sweep_makes_agents_wait(store: Store) -> None:
    """While a sweep is paused neither queue nor ready runs nor offers are used."""
    make_sweep(store)
    agent = Agent(store)
    store.add_runs(SWEEP, make_offer(1))
    store.command_sweep(SWEEP, SweepCommand.PAUSE)
    assert outcome_of(agent.claim(make_offer(1, first=1))) == (ClaimOutcome.WAIT, "paused")
    assert store.sweep(SWEEP).next_index == 1
    store.command_sweep(SWEEP, SweepCommand.RESUME)
    assert agent.take().token.run_id == "run0"


def test_first_claim_sets_the_sweep_running(store: Store) -> None:
    """A sweep is pending until a run of it was claimed."""
    make_sweep(store)
    agent = Agent(store)
    agent.claim()
    store.add_runs(SWEEP, make_offer(1))
    assert store.sweep(SWEEP).state is SweepState.PENDING
    agent.take()
    assert store.sweep(SWEEP).state is SweepState.RUNNING


def test_search_without_any_run_finishes_the_sweep(store: Store) -> None:
    """A search that has nothing to give ends the sweep at once."""
    make_sweep(store)
    agent = Agent(store)
    assert outcome_of(agent.claim(Offer(0, (), exhausted=True))) == (ClaimOutcome.DONE, "exhausted")
    check_promises(store, SWEEP)


def test_unknown_sweep(store: Store) -> None:
    """Nobody can register with, claim from, command or fill a sweep that does not exist."""
    agent = Agent(store, register=False, sweep_id="nope")
    for call in (
        agent.register,
        agent.claim,
        lambda: store.command_sweep("nope", SweepCommand.STOP),
        lambda: store.add_runs("nope", make_offer(1)),
        lambda: store.retry_runs("nope", ["run0"]),
        lambda: store.sweep("nope"),
        lambda: store.remove_sweep("nope"),
    ):
        with pytest.raises(UnknownSweepError):
            call()
    assert dump(store) == {}


# Offers.


def test_offer_at_another_index_is_not_used(store: Store) -> None:
    """Of two agents that computed the same suggestions ahead, the second takes from what the first brought."""
    make_sweep(store)
    first, second = Agent(store, "a"), Agent(store, "b")
    first.take(make_offer(1, prefix="mine"))
    answer = second.claim(make_offer(1, prefix="yours"))
    assert (answer.outcome, answer.next_index) == (ClaimOutcome.ASK, 1)
    assert [run.run_id for run in store.runs(SWEEP)] == ["mine0"]
    assert second.claim(make_offer(1, first=2, prefix="ahead")).outcome is ClaimOutcome.ASK
    assert second.take(make_offer(2, first=1)).index == 1
    assert first.claim(make_offer(2, first=1, prefix="again")).run is not None
    assert [run.run_id for run in store.runs(SWEEP)] == ["mine0", "run1", "run2"]


def test_run_cap_cuts_offers_and_closes_the_search(store: Store) -> None:
    """No more runs than run_cap come to be, whatever is offered, and the sweep is finished when they have ended."""
    make_sweep(store, run_cap=3)
    agent = Agent(store)
    assert store.add_runs(SWEEP, make_offer(2)) == 2
    assert store.add_runs(SWEEP, make_offer(5, first=2)) == 3
    assert store.add_runs(SWEEP, make_offer(5, first=3)) == 3
    for _ in range(3):
        agent.take(make_offer(1, first=3))
        agent.end()
    assert outcome_of(agent.claim(make_offer(1, first=3))) == (ClaimOutcome.DONE, "run_cap")
    assert len(store.runs(SWEEP)) == 3
    check_promises(store, SWEEP)


def test_requeued_runs_do_not_count_against_the_run_cap(store: Store) -> None:
    """The cap counts runs, not attempts."""
    make_sweep(store, run_cap=1, max_attempts_without_progress=0)
    agent = Agent(store)
    agent.take(make_offer(1))
    for attempt in range(2, 6):
        agent.end(1, preempted=True)
        assert agent.take().token.attempt == attempt
    agent.end()
    assert agent.claim().outcome is ClaimOutcome.DONE


def test_exhausted_is_believed_only_at_the_end_of_the_search(store: Store) -> None:
    """A stale offer that says exhausted does not close a search that went on elsewhere."""
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(2))
    store.add_runs(SWEEP, make_offer(1, first=1, exhausted=True))
    assert store.sweep(SWEEP).reason == ""
    store.add_runs(SWEEP, make_offer(1, first=2, exhausted=True))
    assert store.sweep(SWEEP).reason == "exhausted"
    assert store.add_runs(SWEEP, make_offer(1, first=3)) == 3


def test_offer_with_the_id_of_another_run_is_refused(store: Store) -> None:
    """Run ids are unique in a project: the claim names the id, and the sweep is as it was."""
    make_sweep(store)
    store.init_run(run_id="mine", resume="", nonce="script.1")
    agent = Agent(store)
    before = dump(store)
    answer = agent.claim(Offer(0, (NewRun("mine", 0, {"x": 0}),)))
    assert outcome_of(answer) == (ClaimOutcome.TAKEN, "mine")
    with pytest.raises(UnknownRunError, match="mine exists"):
        store.add_runs(SWEEP, Offer(0, (NewRun("mine", 0, {"x": 0}),)))
    assert dump(store) == before
    assert agent.claim(make_offer(1)).outcome is ClaimOutcome.RUN


def test_same_run_id_in_two_projects(store: Store) -> None:
    """Another project may have a run of the same id."""
    other = Store(store.client, Scope("local", "other"))
    make_sweep(store)
    make_sweep(other, "sweep2")
    Agent(store).take(make_offer(1))
    Agent(other, sweep_id="sweep2").take(make_offer(1))
    assert (store.run("run0").sweep_id, other.run("run0").sweep_id) == (SWEEP, "sweep2")
