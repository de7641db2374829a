"""Early termination in Redis: W&B's hyperband, median and percentile, decided with every value that a run logs."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checks import check_promises
from support.stopping import agents_of, hyperband, log_against_model, stopped
from support.stores import HYPERBAND, MEDIAN, SWEEP, Agent, Clock, fake_store, lose_lease, make_offer, make_sweep

from resweep_scheduler.store import EndRequest, Hold, LatestValue, RunState, Store

# Hyperband: which runs stay.


@pytest.mark.parametrize(("number", "survivors"), [(9, 4), (27, 10), (3, 2), (2, 1), (1, 1)])
@pytest.mark.parametrize("strict", [True, False])
def test_of_n_distinct_values_the_best_third_and_one_more_survive(
    store: Store, number: int, survivors: int, strict: bool
) -> None:
    """The figures of W&B, which looks when all are at the band: here every run is looked at again with a heartbeat."""
    agents = agents_of(store, number, hyperband(1, eta=3, strict=strict))
    for value, agent in reversed(list(enumerate(agents))):
        agent.log_values(float(value))
    assert stopped(store) == []  # each was the best when it came
    for agent in agents:
        agent.heartbeat()
    assert sorted(stopped(store)) == sorted(f"run{index}" for index in range(survivors, number))
    check_promises(store, SWEEP, complete=False)


def test_ties_survive(store: Store) -> None:
    """Only what is worse than the threshold is stopped."""
    agents = agents_of(store, 9, hyperband(1, eta=3))
    for agent in agents:
        agent.log_values(0.5)
    for agent in agents:
        agent.heartbeat()
    assert stopped(store) == []


def test_first_run_at_a_band_goes_on(store: Store) -> None:
    """With nobody to be compared with, a run is its own threshold."""
    first, second = agents_of(store, 2, HYPERBAND)
    assert first.log_values(100.0, 100.0, 100.0).stop == ""
    assert second.log_values(200.0).stop != ""


def test_maximize(store: Store) -> None:
    first, second, third = agents_of(store, 3, hyperband(1, sign=-1))
    first.log_values(0.8)
    assert second.log_values(0.9).stop == ""
    assert third.log_values(0.1).stop == (
        "early_terminate: hyperband, 0.1 is worse than 0.8, the threshold of 3 runs at iteration 1"
    )


def test_strict_compares_what_a_run_had_at_the_band(store: Store) -> None:
    """Between the bands, too: what came after the band does not help."""
    first, second = agents_of(store, 2, hyperband(2, strict=True))
    first.log_values(5.0, 1.0, 1.0)
    second.log_values(0.5, 2.0)
    assert stopped(store) == ["run1"]


def test_without_strict_the_best_value_so_far_counts(store: Store) -> None:
    first, second = agents_of(store, 2, hyperband(2, strict=False))
    first.log_values(5.0, 1.0, 1.0)
    second.log_values(0.5, 2.0)
    assert stopped(store) == []


def test_runs_are_judged_by_their_largest_band(store: Store) -> None:
    """Who was slow at first and is good now goes on."""
    first, second = agents_of(store, 2, hyperband(1, 3, strict=True))
    first.log_values(9.0, 9.0, 0.1)
    assert second.log_values(1.0, 1.0).stop == ""
    assert second.log_values(1.0, first_step=2, first_seq=3).stop != ""
    assert first.heartbeat().stop == ""


def test_runs_in_all_states_count(store: Store) -> None:
    """Finished, failed, killed, preempted and crashed runs are what others are measured by."""
    *others, last = agents_of(store, 6, hyperband(1, eta=6))
    ends: list[dict[str, Any]] = [
        {"exit_code": 0},
        {"exit_code": 1},
        {"exit_code": None, "killed": True},
        {"exit_code": 1, "preempted": True},
        {"exit_code": None, "signal": 9},
    ]
    for value, (agent, end) in enumerate(zip(others, ends, strict=True)):
        agent.log_values(5.0 - value)
        agent.end(**end)
    last.log_values(3.0)
    [event] = [event for event in store.events(SWEEP) if event.kind == "stop"]
    assert (event.run_id, event.data["runs"], event.data["threshold"]) == ("run5", 6, 2)
    check_promises(store, SWEEP, complete=False)


def test_removed_runs_leave_the_bands(store: Store) -> None:
    """No key of theirs is left, and others are not compared with them any more."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1, 0.1)
    first.end(0)
    store.remove_runs(["run0"])
    assert not [key for key in store.client.scan_iter() if "level" in str(key) or "curve" in str(key)]
    assert second.log_values(0.9).stop == ""
    second.end(0)
    store.remove_sweep(SWEEP)
    assert list(store.client.scan_iter()) == []


def test_preempting_runs_are_never_stopped(store: Store) -> None:
    """But their values count; and when such a run goes on elsewhere it is judged again, with the first heartbeat."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    second.mark()
    assert second.log_values(0.9).stop == ""
    assert second.heartbeat().stop == ""
    second.end(1)
    assert second.take_unconfirmed().token.run_id == "run1"
    assert second.heartbeat().stop.startswith("early_terminate: hyperband, 0.9 is worse than 0.1")


def test_rows_without_the_metric_are_no_iterations(store: Store) -> None:
    """The iteration is the place in the list of finite values, neither the step nor the row."""
    first, second = agents_of(store, 2, hyperband(2))
    first.log_values(None, 0.1, None, None, 0.1)
    assert second.log_values(0.9, None, None, None).stop == ""
    assert second.log_values(0.9, first_step=4, first_seq=5).stop != ""


# What people are told.


def test_decision_is_an_event_with_its_numbers(store: Store) -> None:
    """So that everybody can see why."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.25, 0.2)
    second.log_values(0.5, 0.4, 0.3)
    [event] = [event for event in store.events(SWEEP) if event.kind == "stop"]
    assert (event.run_id, event.attempt, event.agent, event.before, event.after) == (
        "run1",
        1,
        "a1",
        "running",
        "running",
    )
    assert (
        event.data
        == {
            "reason": "early_terminate: hyperband, 0.5 is worse than 0.25, the threshold of 2 runs at iteration 1",
            "rule": "hyperband",
            "iteration": 1,
            "band": 1,
            "value": 0.5,
            "threshold": 0.25,
            "runs": 2,
        }
        or event.data["threshold"] == 0.5
    )


def test_stopped_run_is_killed_and_keeps_its_values_for_the_search(store: Store) -> None:
    make_sweep(store, stopping=HYPERBAND, metric_name="loss", metric_goal="minimize")
    store.add_runs(SWEEP, make_offer(2, exhausted=True))
    first, second = Agent(store, "a"), Agent(store, "b")
    first.take()
    second.take()
    first.log_values(0.1)
    rows = [(0, '{"loss":0.9}', 0.9), (1, '{"loss":0.95}', 0.95)]
    answer = store.log(second.run.token, first_seq=1, rows=rows, metric=0.9, latest=[LatestValue(2, 0.95)])
    assert answer.accepted == 2  # what a run logs until its end is kept
    assert store.wait_for_poke(SWEEP, session=second.session, timeout=0.01)
    assert second.heartbeat().stop == answer.stop
    end = second.end(0, killed=True, reason=answer.stop)
    assert (end.state, end.reason) == (RunState.KILLED, answer.stop)
    record = store.search_runs(SWEEP)[1]
    assert (record.state, record.stopped, record.metric, record.last) == (RunState.KILLED, True, 0.9, 0.95)
    first.end(0)
    check_promises(store, SWEEP)


# How a run that was told to end does end.


def test_script_that_was_through_before_the_stop_came_is_finished(store: Store) -> None:
    """Exit code 0 without the agent's signal: all of it was done, and for the search it is no stopped run."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    assert second.log_values(0.9).stop
    assert second.end(0).state is RunState.FINISHED
    assert not store.search_runs(SWEEP)[1].stopped
    check_promises(store, SWEEP, complete=False)


def test_last_rows_of_a_script_that_is_over_stop_nothing(store: Store) -> None:
    """What is sent by finish() comes too late to save anything; it counts for the others."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    assert store.log(second.run.token, first_seq=1, rows=[(0, "{}", 0.9)], final=True).stop == ""
    assert second.heartbeat().stop == ""
    assert store.prune_run(second.run.token, iteration=1, reason="weak").stop == ""
    check_promises(store, SWEEP, complete=False)


def test_script_that_begins_again_in_its_attempt_is_judged_again(store: Store) -> None:
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    token = second.run.token
    store.log(token, first_seq=1, rows=[(0, "{}", 0.9)], final=True)
    store.init_run(run_id=token.run_id, resume="allow", nonce=token.nonce, attempt=token.attempt)
    assert second.heartbeat().stop != ""


@pytest.mark.parametrize("preempting", [True, False])
def test_stop_survives_an_agent_that_dies_before_it_acts(store: Store, clock: Clock, preempting: bool) -> None:
    """The lease runs out: the run is killed, and nobody takes it again."""
    make_sweep(store, stopping=HYPERBAND)
    store.add_runs(SWEEP, make_offer(2, exhausted=True))
    first, second = Agent(store, "a"), Agent(store, "b", preemptible=True)
    second.take()
    first.take()
    first.log_values(0.1)
    reason = second.log_values(0.9).stop
    if preempting:
        second.mark()
    lose_lease(store, clock)
    run = store.run(second.run.token.run_id)
    assert (run.state, run.reason, run.stopped) == (RunState.KILLED, reason, True)
    assert store.sweep(SWEEP).queue == ()
    assert second.adopt().hold is Hold.STALE
    assert store.search_runs(SWEEP)[run.index or 0].stopped


@pytest.mark.parametrize("exit_code", [1, 143, None])
def test_run_that_is_preempted_before_the_stop_came_is_killed(store: Store, exit_code: int | None) -> None:
    """It is not requeued: nobody wants it any more."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    reason = second.log_values(0.9).stop
    second.mark()
    end = second.end(exit_code, preempted=True, reason="notice: SIGTERM")
    assert (end.state, end.reason) == (RunState.KILLED, reason)
    assert store.search_runs(SWEEP)[1].stopped


def test_person_who_retries_a_stopped_run_has_it_whole(store: Store) -> None:
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    second.log_values(0.9)
    second.end(None, signal=15, killed=True)
    assert store.retry_runs(SWEEP, ["run1"]) == {"run1": RunState.KILLED}
    second.take()
    assert second.log_values(0.9, 0.8, 0.7).stop == ""
    assert second.heartbeat().stop == ""
    assert not store.run("run1").stopped
    check_promises(store, SWEEP, complete=False)


# Rows that come twice, late, or again.


def test_repeated_and_late_calls_count_once(store: Store) -> None:
    """A batch that was sent again, in parts, or after a newer one."""
    agent, _ = agents_of(store, 2, HYPERBAND)
    token = agent.run.token
    agent.log_values(5.0, 4.0)
    agent.log_values(5.0, 4.0)
    agent.log_values(4.0, 3.0, first_step=1, first_seq=2)
    agent.log_values(5.0)
    assert [(point.step, point.value) for point in store.curve("run0")] == [(0, 5.0), (1, 4.0), (2, 3.0)]
    agent.end(1, preempted=True)
    agent.take()
    assert store.log(token, first_seq=4, rows=[(3, "{}", 0.0)]).hold is Hold.STALE
    assert len(store.curve("run0")) == 3
    check_promises(store, SWEEP, complete=False)


def test_steps_that_are_logged_again_replace_what_was_there(store: Store) -> None:
    """Runs are compared at the same step: the second attempt begins at step 1 again, and draws the curve anew."""
    agent, other = agents_of(store, 2, hyperband(1, 2, 3, 4))
    agent.log_values(5.0, 4.0, 3.0, 2.0)
    agent.end(1, preempted=True)
    agent.take()
    agent.log_values(9.0, first_step=1)
    assert [point.value for point in store.curve("run0")] == [5.0, 9.0]
    assert other.log_values(5.0, 9.0, 100.0).stop == ""  # nobody else is at iteration 3 any more
    check_promises(store, SWEEP, complete=False)


def test_row_without_the_metric_takes_later_values_back_too(store: Store) -> None:
    """The attempt is at that step now, and the values behind it are not its own."""
    agent, _ = agents_of(store, 2, HYPERBAND)
    agent.log_values(5.0, 4.0, 3.0)
    agent.end(1, preempted=True)
    agent.take()
    agent.log_values(None, first_step=1)
    assert [point.value for point in store.curve("run0")] == [5.0]


def test_step_that_is_logged_in_parts_has_one_value(store: Store) -> None:
    """A row that was seen open is sent again when it grew; one that adds other names leaves the value alone."""
    agent, _ = agents_of(store, 2, HYPERBAND)
    token = agent.run.token
    store.log(token, first_seq=1, rows=[(3, '{"loss":2}', 2.0)])
    store.log(token, first_seq=2, rows=[(3, '{"acc":1}')])
    assert [point.value for point in store.curve("run0")] == [2.0]
    store.log(token, first_seq=3, rows=[(3, '{"loss":1}', 1.0)])
    assert [(point.step, point.value) for point in store.curve("run0")] == [(3, 1.0)]


def test_late_rows_of_an_attempt_that_ended_count(store: Store) -> None:
    """`resweep sync` brings them; the run is over, and is not judged."""
    first, second = agents_of(store, 2, HYPERBAND)
    first.log_values(0.1)
    second.end(1)
    assert second.log_values(0.9, 0.9).stop == ""
    assert stopped(store) == []
    check_promises(store, SWEEP, complete=False)


def test_values_are_kept_exactly(store: Store) -> None:
    """Neither Lua's JSON nor a score rounds them."""
    values = [0.1 + 0.2, 1e-300, -1.7976931348623157e308, 123456789.123456789]
    agent, _ = agents_of(store, 2, hyperband(1, 2, 3, 4))
    agent.log_values(*values)
    assert [point.value for point in store.curve("run0")] == values
    check_promises(store, SWEEP, complete=False)


def test_sweep_without_a_rule_keeps_no_curves(store: Store) -> None:
    make_sweep(store)
    store.add_runs(SWEEP, make_offer(1))
    agent = Agent(store)
    agent.take()
    agent.log_values(1.0)
    assert store.curve("run0") == []


# Median and percentile.


def finish_runs(agents: list[Agent], *curves: list[float]) -> None:
    for agent, values in zip(agents, curves, strict=True):
        agent.log_values(*values)
        agent.end(0)


def test_median_of_the_finished_runs(store: Store) -> None:
    """The best value so far against the median of what they had at the same iteration."""
    *others, own = agents_of(store, 4, MEDIAN | {"n_startup_runs": 3})
    finish_runs(others, [3.0, 3.0], [4.0, 2.0], [5.0, 1.0])
    assert own.log_values(4.0).stop == ""
    assert own.log_values(4.0, first_step=1, first_seq=2).stop == (
        "early_terminate: median, 4 is worse than 2, the threshold of 3 runs at iteration 2"
    )
    check_promises(store, SWEEP, complete=False)


def test_median_needs_runs_that_finished(store: Store) -> None:
    """Runs that run, failed or were stopped are no measure."""
    *others, own = agents_of(store, 4, MEDIAN | {"n_startup_runs": 2})
    finish_runs(others[:1], [1.0])
    others[1].log_values(1.0)
    others[2].log_values(1.0)
    others[2].end(1)
    assert own.log_values(9.0, 9.0).stop == ""
    check_promises(store, SWEEP, complete=False)


def test_median_waits_for_min_iter_and_looks_at_every_interval(store: Store) -> None:
    first, own = agents_of(store, 2, MEDIAN | {"min_iter": 2, "interval": 3})
    finish_runs([first], [1.0] * 9)
    for iteration in range(1, 9):
        stop = own.log_values(9.0 if iteration < 5 else 1.0, first_step=iteration, first_seq=iteration).stop
        assert bool(stop) == (iteration >= 2), iteration
        if stop:
            break
    assert [event.data["iteration"] for event in store.events(SWEEP) if event.kind == "stop"] == [2]
    assert sorted(key.rpartition(":")[2] for key in map(str, store.client.scan_iter()) if "level" in key) == list("258")


@pytest.mark.parametrize(("percentile", "threshold"), [(0.0, 1.0), (25.0, 1.75), (50.0, 2.5), (100.0, 4.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_percentiles_are_interpolated(store: Store, percentile: float, threshold: float, sign: int) -> None:
    """As numpy's and Optuna's; the best is at 0 in both directions."""
    rule = MEDIAN | {"type": "percentile", "percentile": percentile, "sign": sign, "n_startup_runs": 4}
    *others, own = agents_of(store, 5, rule)
    finish_runs(others, *[[sign * value] for value in (4.0, 2.0, 1.0, 3.0)])
    own.log_values(sign * 9.0)
    [event] = [event for event in store.events(SWEEP) if event.kind == "stop"]
    assert event.data["threshold"] == sign * threshold


def test_late_rows_of_a_finished_run_count_for_the_median(store: Store) -> None:
    first, own = agents_of(store, 2, MEDIAN)
    first.log_values(1.0)
    first.end(0)
    first.log_values(1.0, first_step=1, first_seq=2)
    assert own.log_values(0.5, first_step=0).stop == ""
    check_promises(store, SWEEP, complete=False)


def test_long_curve_enters_its_levels_in_pages(store: Store) -> None:
    agent, other = agents_of(store, 2, MEDIAN | {"interval": 7})
    values = [float(value) for value in range(2500)]
    agent.log_values(*values)
    agent.end(0)
    other.log_values(0.5)
    check_promises(store, SWEEP, complete=False)


# Against the models.

RULES = st.one_of(
    st.builds(
        lambda bands, eta, strict, sign: hyperband(*sorted(bands), eta=eta, strict=strict, sign=sign),
        st.sets(st.integers(1, 7), min_size=1, max_size=4),
        st.sampled_from([1.5, 2.0, 3.0, 4.0]),
        st.booleans(),
        st.sampled_from([1, -1]),
    ),
    st.builds(
        lambda percentile, startup, first, interval, sign: {
            "type": "percentile", "percentile": percentile, "n_startup_runs": startup, "min_iter": first,
            "interval": interval, "sign": sign,
        },
        st.sampled_from([0.0, 10.0, 50.0, 75.0]), st.integers(0, 3), st.integers(1, 3), st.integers(1, 3),
        st.sampled_from([1, -1]),
    ),
)  # fmt: skip


@settings(max_examples=40)
@given(rule=RULES, seed=st.integers(0, 10**6), few=st.booleans())
def test_runs_are_stopped_as_by_the_model(rule: dict[str, Any], seed: int, few: bool) -> None:
    """The same on a real server: tests/integration/test_stopping.py."""
    store = fake_store()
    log_against_model(store, agents_of(store, 8, rule), rule, random.Random(seed), few=few)
    check_promises(store, SWEEP)


def test_end_that_is_reported_twice_enters_no_level_twice(store: Store) -> None:
    first, _ = agents_of(store, 2, MEDIAN)
    first.log_values(1.0, 2.0)
    request = EndRequest(first.run.token, 0)
    assert store.end_attempt(request).hold is Hold.OWNER
    assert store.end_attempt(request).hold is Hold.ENDED
    check_promises(store, SWEEP, complete=False)


# The last values, for the search.


def test_last_values_of_several_metrics(store: Store) -> None:
    """In the order of the metrics; late and repeated calls bring no older ones back."""
    (agent,) = agents_of(store, 1, HYPERBAND)
    token = agent.run.token

    def log(first_seq: int, *latest: LatestValue | None, rows: int = 2) -> None:
        texts = [(first_seq + number, "{}") for number in range(rows)]
        store.log(token, first_seq=first_seq, rows=texts, latest=latest)

    def values() -> tuple[float | None, ...]:
        return store.search_runs(SWEEP)[0].values

    log(1, LatestValue(1, 0.5), None, LatestValue(2, 0.1 + 0.2))
    assert values() == (0.5, None, 0.1 + 0.2)
    log(3, LatestValue(1, 0.4), LatestValue(2, -7.0), None)
    log(1, LatestValue(1, 0.5), None, LatestValue(2, 0.9))
    log(2, LatestValue(1, 0.6), LatestValue(3, -8.0), None, rows=4)
    assert values() == (0.4, -7.0, 0.1 + 0.2)
    assert store.search_runs(SWEEP)[0].last is None


def test_summary_counts_where_rows_never_said_anything(store: Store) -> None:
    """A script may set `run.summary["loss"]` alone, and more than once."""
    (agent,) = agents_of(store, 1, HYPERBAND)
    token = agent.run.token

    def last() -> float | None:
        return store.search_runs(SWEEP)[0].last

    store.log(token, first_seq=1, rows=[], latest=[LatestValue(0, 3.0)])
    store.log(token, first_seq=1, rows=[], latest=[LatestValue(0, 2.0)])
    assert last() == 2.0
    store.log(token, first_seq=1, rows=[(0, "{}")], latest=[LatestValue(1, 5.0)])
    store.log(token, first_seq=1, rows=[], latest=[LatestValue(0, 1.0)])
    assert last() == 5.0
