"""What a training script does with its run: the table of resuming, rows, summaries, config, checkpoints."""

from __future__ import annotations

import json

import pytest
from support.checks import check_promises
from support.stores import HYPERBAND, LEASE, SWEEP, Agent, Clock, dump, make_offer, make_sweep, pass_time

from resweep_scheduler.store import (
    ClaimToken,
    HistoryRow,
    Hold,
    InitAnswer,
    InitOutcome,
    LatestValue,
    Objective,
    RunMeta,
    RunState,
    Store,
    UnknownRunError,
)

ALONE = "alone"


def init(store: Store, resume: str, nonce: str, **more: object) -> InitAnswer:
    """A script outside any sweep begins."""
    return store.init_run(run_id=ALONE, resume=resume, nonce=nonce, **more)  # type: ignore[arg-type]


def token_of(answer: InitAnswer) -> ClaimToken:
    assert answer.token is not None
    return answer.token


def script_in(store: Store, agent: Agent, resume: str = "allow", **more: object) -> InitAnswer:
    """The script of the agent's attempt begins."""
    token = agent.run.token
    return store.init_run(
        run_id=token.run_id,
        resume=resume,
        nonce=token.nonce,
        attempt=token.attempt,
        **more,  # type: ignore[arg-type]
    )


def write(store: Store, token: ClaimToken, *steps: int, first_seq: int = 1) -> int:
    rows = [(step, json.dumps({"loss": step, "attempt": token.attempt})) for step in steps]
    return store.log(token, first_seq=first_seq, rows=rows).accepted


def attempts_by_step(rows: list[HistoryRow]) -> dict[int, int]:
    return {row.step: row.attempt for row in rows}


# The table of resuming.

TABLE = {
    ("must", True): InitOutcome.RESUMED,
    ("must", False): InitOutcome.MUST_EXIST,
    ("allow", True): InitOutcome.RESUMED,
    ("allow", False): InitOutcome.NEW,
    ("auto", True): InitOutcome.RESUMED,
    ("auto", False): InitOutcome.NEW,
    ("never", True): InitOutcome.MUST_NOT_EXIST,
    ("never", False): InitOutcome.NEW,
    ("", True): InitOutcome.OVERWRITTEN,
    ("", False): InitOutcome.NEW,
}
REFUSALS = (InitOutcome.MUST_EXIST, InitOutcome.MUST_NOT_EXIST)


@pytest.mark.parametrize(("resume", "exists"), TABLE)
def test_table_of_resuming_outside_a_sweep(store: Store, resume: str, exists: bool) -> None:
    """Each `resume` on a run that exists and on one that does not; a refusal changes nothing."""
    if exists:
        write(store, token_of(init(store, "", "script.1")), 0, 1, 2)
    before = dump(store)
    answer = init(store, resume, "script.2")
    assert answer.outcome is TABLE[resume, exists]
    if answer.outcome in REFUSALS:
        assert (answer.run, answer.token) == (None, None)
        assert dump(store) == before
        return
    assert answer.run is not None
    assert token_of(answer).attempt == (2 if exists else 1)
    assert answer.starting_step == (3 if answer.outcome is InitOutcome.RESUMED else 0)
    assert (answer.run.state, answer.next_seq) == (RunState.RUNNING, 1)


@pytest.mark.parametrize(("resume", "exists"), TABLE)
def test_table_of_resuming_inside_a_sweep(store: Store, resume: str, exists: bool) -> None:
    """A run of a sweep exists once a script has begun it, not when the sweep suggested it or an agent took it."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    if exists:
        write(store, token_of(script_in(store, agent)), 0, 1)
        agent.end(1, preempted=True)
        agent.take()
    before = dump(store)
    answer = script_in(store, agent, resume)
    assert answer.outcome is TABLE[resume, exists]
    if answer.outcome in REFUSALS:
        assert dump(store) == before
        return
    assert token_of(answer) == agent.run.token
    assert answer.starting_step == (2 if answer.outcome is InitOutcome.RESUMED else 0)
    check_promises(store, SWEEP, complete=False)


def test_run_whose_first_script_never_began_does_not_exist(store: Store) -> None:
    """Preempted before `init`: the second attempt is the first that makes it exist."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    agent.end(1, preempted=True)
    agent.take()
    assert script_in(store, agent, "never").outcome is InitOutcome.NEW


@pytest.mark.parametrize("resume", ["allow", "never", "", "must"])
def test_second_process_of_an_attempt_gets_the_same_answer(store: Store, resume: str) -> None:
    """Another rank, or the script once more after exec: the same outcome, and the row numbers go on."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    if resume == "must":
        script_in(store, agent)
        agent.end(1, preempted=True)
        agent.take()
    first = script_in(store, agent, resume)
    assert write(store, token_of(first), 0, 1) == 2
    again = script_in(store, agent, resume)
    assert (again.outcome, again.token, first.next_seq, again.next_seq) == (first.outcome, first.token, 1, 3)
    assert write(store, token_of(again), 2, first_seq=again.next_seq) == 1


def test_script_outside_fences_the_one_before(store: Store) -> None:
    """Two processes with one id: the later one owns the run, the earlier one is told so."""
    first = token_of(init(store, "allow", "script.1"))
    second = token_of(init(store, "allow", "script.2"))
    assert store.log(first, first_seq=1, rows=[(0, "{}")]).hold is Hold.STALE
    assert store.finish_run(first, exit_code=0).hold is Hold.STALE
    assert store.log(second, first_seq=1, rows=[(0, "{}")]).hold is Hold.OWNER
    answer = store.finish_run(second, exit_code=3)
    assert (answer.hold, answer.state) == (Hold.OWNER, RunState.FAILED)
    assert store.run(ALONE).exit_code == 3


def test_run_outside_a_sweep(store: Store, clock: Clock) -> None:
    """It is listed by its project, finished by its script, and resumed later with its record."""
    token = token_of(init(store, "", "script.1", config={"lr": 0.1}, meta=RunMeta(name="one")))
    assert [run.run_id for run in store.project_runs()] == [ALONE]
    assert store.run(ALONE).sweep_id is None
    assert store.mark_preempting(token, reason="script").hold is Hold.OWNER
    clock.advance(7)
    assert store.finish_run(token, exit_code=0).state is RunState.FINISHED
    assert store.finish_run(token, exit_code=1).state is RunState.FINISHED
    run = store.run(ALONE)
    assert (run.state, run.exit_code, run.seconds, run.name) == (RunState.FINISHED, 0, 7.0, "one")
    again = init(store, "must", "script.2")
    assert again.run is not None
    assert (again.run.state, again.run.exit_code, again.run.config) == (RunState.RUNNING, None, {"lr": 0.1})
    assert again.objective == Objective()


def test_run_of_a_sweep_is_not_begun_outside_while_it_is_owned(store: Store) -> None:
    """An agent owns it: whoever names its id outside the sweep is refused."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    before = dump(store)
    answer = store.init_run(run_id="run0", resume="allow", nonce="script.1")
    assert (answer.outcome, answer.token) == (InitOutcome.HELD, None)
    assert dump(store) == before
    assert agent.heartbeat().hold is Hold.OWNER


def test_ended_run_of_a_sweep_can_be_logged_to_outside(store: Store) -> None:
    """An evaluation afterwards: rows are added, and for the sweep the run stays what it is."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1, exhausted=True))
    script_in(store, agent)
    write(store, agent.run.token, 0, 1)
    agent.end(0)
    answer = store.init_run(run_id="run0", resume="must", nonce="script.1")
    assert (answer.outcome, answer.starting_step) == (InitOutcome.RESUMED, 2)
    assert write(store, token_of(answer), 2) == 1
    assert store.finish_run(token_of(answer), exit_code=1).hold is Hold.ENDED
    assert store.run("run0").state is RunState.FINISHED
    assert attempts_by_step(store.history("run0")) == {0: 1, 1: 1, 2: 2}


def test_lapsed_run_of_a_sweep_can_be_logged_to_outside(store: Store, clock: Clock) -> None:
    """A run that crashed when its lease ran out: the script outside gets through, the former owner is stale."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    script_in(store, agent)
    pass_time(store, clock, LEASE)
    assert store.run("run0").state is RunState.CRASHED
    answer = store.init_run(run_id="run0", resume="must", nonce="script.1")
    assert write(store, token_of(answer), 0) == 1
    assert agent.adopt().hold is Hold.STALE
    assert store.run("run0").state is RunState.CRASHED


def test_queued_run_that_was_logged_to_outside_goes_on_in_its_sweep(store: Store) -> None:
    """The next claim has the higher attempt number, and fences the script outside."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    script_in(store, agent)
    agent.end(1, preempted=True)
    outside = token_of(store.init_run(run_id="run0", resume="allow", nonce="script.1"))
    assert agent.take().token.attempt == outside.attempt + 1 == 3
    assert store.log(outside, first_seq=1, rows=[(0, "{}")]).hold is Hold.STALE
    check_promises(store, SWEEP, complete=False)


# Config and what a script says of its run.


def test_config_of_the_sweep_wins_over_that_of_the_script(store: Store) -> None:
    """New init wins per top-level key over the old one, old keys stay, the sweep's parameters are above all."""
    make_sweep(store)
    agent = Agent(store)
    agent.take(make_offer(1))
    script_in(store, agent, config={"x": 99, "a": {"b": 1}, "kept": 1})
    agent.end(1, preempted=True)
    agent.take()
    answer = script_in(store, agent, config={"a": {"c": 2}, "new": None})
    assert answer.run is not None
    assert answer.run.config == {"x": 0, "a": {"c": 2}, "kept": 1, "new": None}
    assert answer.run.params == {"x": 0}
    store.update_config(agent.run.token, config={"kept": 2})
    assert store.run("run0").config["kept"] == 2


def test_overwriting_forgets_config_meta_and_summary_and_keeps_rows(store: Store) -> None:
    """Without `resume` an existing run begins again: metadata anew, steps from 0, new rows after the old ones."""
    first = token_of(init(store, "", "script.1", config={"a": 1}, meta=RunMeta(name="old", tags=("t",))))
    write(store, first, 0, 1, 2)
    store.log(first, first_seq=4, rows=[], summary='{"loss": 1}')
    answer = init(store, "", "script.2", config={"b": 2})
    assert answer.run is not None
    assert (answer.run.config, answer.run.name, answer.run.tags, answer.run.summary) == ({"b": 2}, "", (), {})
    assert answer.starting_step == 0
    write(store, token_of(answer), 0)
    assert attempts_by_step(store.history(ALONE)) == {0: 2, 1: 1, 2: 1}


def test_overwriting_forgets_checkpoint_and_last_step(store: Store) -> None:
    """Whoever goes on later goes on with the new run: from its checkpoint and its last step, not from the old ones."""
    first = token_of(init(store, "", "script.1"))
    write(store, first, *range(100))
    store.commit_checkpoint(first, path="/tmp/old", step=99)
    answer = init(store, "", "script.2")
    assert answer.run is not None
    assert (answer.run.checkpoint, answer.run.step) == (None, None)
    again = init(store, "allow", "script.3")
    assert (again.outcome, again.starting_step) == (InitOutcome.RESUMED, 0)
    write(store, token_of(again), *range(10))
    assert init(store, "allow", "script.4").starting_step == 10
    assert len(store.history(ALONE)) == 100


def test_overwriting_forgets_what_the_sweep_knows_of_the_run(store: Store) -> None:
    """The values that its search is told, and the curve by which others are judged."""
    make_sweep(store, metric_name="loss", metric_goal="minimize", stopping=HYPERBAND)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    script_in(store, agent)
    rows = [(0, "{}", 3.0), (1, "{}", 1.0)]
    store.log(token, first_seq=1, rows=rows, metric=1.0, latest=[LatestValue(2, 1.0)])
    assert (store.run("run0").metric, store.run("run0").values, len(store.curve("run0"))) == (1.0, (1.0,), 2)
    agent.end(0)
    answer = store.init_run(run_id="run0", resume="", nonce="script.1")
    assert answer.outcome is InitOutcome.OVERWRITTEN
    assert (store.run("run0").metric, store.run("run0").values, store.curve("run0")) == (None, (), [])
    assert not [key for key in store.client.scan_iter() if "level" in str(key) or "curve" in str(key)]
    store.log(token_of(answer), first_seq=1, rows=[(0, "{}", 2.0)], metric=2.0, latest=[LatestValue(1, 2.0)])
    assert (store.run("run0").metric, store.run("run0").values, store.run("run0").step) == (2.0, (2.0,), 0)
    assert [point.value for point in store.curve("run0")] == [2.0]


def test_meta_that_is_not_given_stays(store: Store) -> None:
    """Name, group, notes and tags: what the new init lacks is kept, what it has replaces."""
    init(store, "", "script.1", meta=RunMeta(name="n", group="g", notes="x", tags=("a", "b")))
    answer = init(store, "allow", "script.2", meta=RunMeta(notes="y", tags=()))
    assert answer.run is not None
    assert (answer.run.name, answer.run.group, answer.run.notes, answer.run.tags) == ("n", "g", "y", ())


def test_init_tells_the_metric_of_the_sweep(store: Store) -> None:
    """The script sends the best value of the metric along, so it must know its name and goal."""
    make_sweep(store, metric_name="loss", metric_goal="maximize")
    agent = Agent(store)
    agent.take(make_offer(1))
    assert script_in(store, agent).objective == Objective((("loss", "maximize"),))


# Rows.


def test_rows_are_stored_once_by_their_numbers(store: Store) -> None:
    """Batches that overlap, come twice or come late leave each row once, in order."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    assert write(store, token, 0, 1, 2) == 3
    assert write(store, token, 0, 1, 2) == 0
    assert write(store, token, 1, 2, 3, 4, first_seq=2) == 2
    assert write(store, token, 0) == 0
    assert store.run("run0").step == 4
    check_promises(store, SWEEP, complete=False, steps=range(5))
    assert [row.step for row in store.history("run0")] == [0, 1, 2, 3, 4]


def test_rows_of_one_step_are_merged(store: Store) -> None:
    """Two logs of one step in one attempt are one row, as in W&B; the later value of a key wins."""
    token = token_of(init(store, "", "script.1"))
    store.log(token, first_seq=1, rows=[(0, '{"a": 1, "b": 1}'), (0, '{"b": 2}')])
    assert [(row.step, row.values) for row in store.history(ALONE)] == [(0, {"a": 1, "b": 2})]


def test_row_of_the_later_attempt_wins(store: Store) -> None:
    """A script that starts again from an earlier checkpoint logs steps again: none is dropped, none is doubled."""
    make_sweep(store)
    agent = Agent(store)
    write(store, agent.take(make_offer(1, exhausted=True)).token, 0, 1, 2, 3)
    agent.end(1, preempted=True)
    assert agent.take().step == 3
    write(store, agent.run.token, 2, 3, 4)
    agent.end(0)
    assert attempts_by_step(store.history("run0")) == {0: 1, 1: 1, 2: 2, 3: 2, 4: 2}
    assert store.history("run0")[3].values == {"loss": 3, "attempt": 2}
    check_promises(store, SWEEP, steps=range(5))


def test_late_rows_of_an_ended_attempt_are_taken_until_another_follows(store: Store) -> None:
    """The agent reports the end, the script's last batch arrives after it."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    write(store, token, 0)
    agent.end(1, preempted=True)
    answer = store.log(token, first_seq=2, rows=[(1, "{}")], summary='{"loss": 1}')
    assert (answer.hold, answer.accepted) == (Hold.ENDED, 1)
    assert agent.take().step == 1
    assert store.log(token, first_seq=3, rows=[(2, "{}")]).hold is Hold.STALE
    assert [row.step for row in store.history("run0")] == [0, 1]


def test_ended_attempt_commits_no_checkpoint(store: Store) -> None:
    """Whoever claims the run next was told where to go on: that does not change behind its back."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    store.commit_checkpoint(token, path="/tmp/c1", step=1)
    agent.end(1, preempted=True)
    before = dump(store)
    assert store.commit_checkpoint(token, path="/tmp/c2", step=2).hold is Hold.ENDED
    assert dump(store) == before


def test_script_in_a_sweep_does_not_end_its_run(store: Store) -> None:
    """The exit status decides, and the agent reports it: `finish` of the script changes nothing."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    before = dump(store)
    answer = store.finish_run(token, exit_code=0)
    assert (answer.hold, answer.state) == (Hold.OWNER, RunState.RUNNING)
    assert dump(store) == before


def test_rows_of_a_lapsed_attempt_are_kept_by_the_script(store: Store, clock: Clock) -> None:
    """Nobody knows yet whether the attempt goes on: the rows are refused with LAPSED, and taken after the adoption."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    pass_time(store, clock, LEASE)
    before = dump(store)
    assert store.log(token, first_seq=1, rows=[(0, "{}")], summary="{}").hold is Hold.LAPSED
    assert store.commit_checkpoint(token, path="/tmp/c", step=0).hold is Hold.LAPSED
    assert store.mark_preempting(token, reason="script").hold is Hold.LAPSED
    assert store.update_config(token, config={"a": 1}).hold is Hold.LAPSED
    assert dump(store) == before
    agent.adopt()
    assert write(store, token, 0) == 1
    assert store.mark_preempting(token, reason="script").hold is Hold.OWNER


def test_long_history_is_read_whole(store: Store) -> None:
    """Reading goes on page by page."""
    token = token_of(init(store, "", "script.1"))
    write(store, token, *range(1234))
    assert [row.step for row in store.history(ALONE)] == list(range(1234))


def test_output_is_a_tail(store: Store) -> None:
    """The last pieces are kept; reading goes on where it ended; late pieces of an ended attempt are taken."""
    make_sweep(store)
    agent = Agent(store)
    token = agent.take(make_offer(1)).token
    for piece in range(100):
        store.append_output(token, f"line {piece}\n", piece=piece)
    chunks = store.output("run0")
    assert [chunk.text for chunk in chunks] == [f"line {piece}\n" for piece in range(36, 100)]
    assert store.output("run0", after=chunks[-1].chunk_id) == []
    agent.end(0)
    assert store.append_output(token, "last\n", piece=100).hold is Hold.ENDED
    assert [chunk.text for chunk in store.output("run0", after=chunks[-1].chunk_id)] == ["last\n"]


def test_unknown_run(store: Store) -> None:
    """Reading a run that does not exist is an error that names it."""
    with pytest.raises(UnknownRunError, match="'nope'"):
        store.run("nope")
    assert store.history("nope") == []
