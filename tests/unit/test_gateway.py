"""The gateway by its protocol, on the fake store: who may write, what agents are told, keys and limits."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from support.checks import check_promises
from support.stores import Clock, fake_store
from support.wire import Wire, WireError, asgi_sender

from resweep_scheduler.cli.serve import serve_command
from resweep_scheduler.gateway import app, histories, listings
from resweep_scheduler.gateway.access import Desk
from resweep_scheduler.gateway.agents import START_PATIENCE, STARTS
from resweep_scheduler.gateway.app import MAX_BODY, app_of
from resweep_scheduler.gateway.stream import LONGEST_OUTPUT
from resweep_scheduler.store import (
    ClaimToken,
    EndRequest,
    HistoryRow,
    Run,
    RunState,
    Scope,
    Store,
    StoreUnavailableError,
)
from resweep_scheduler.store.credentials import Credentials, Rights, attempt_key
from resweep_scheduler.store.gateway import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from starlette.responses import Response
    from starlette.types import Message, Receive, Send
    from starlette.types import Scope as Scope_

GRID = {"method": "grid", "program": "train.py", "parameters": {"x": {"values": [1, 2]}}}


@pytest.fixture
def base(clock: Clock) -> Store:
    """The clock of the test, a store in the project `p`."""
    return Store(fake_store().client, Scope("local", "p"))


def desk_of(store: Store, *, no_auth: bool = True) -> Desk:
    return Desk(store.client, "", no_auth, Credentials(store.client).secret())


def wire_to(store: Store, key: str = "", *, no_auth: bool = True, **words: str) -> Wire:
    return Wire(asgi_sender(app_of(desk_of(store, no_auth=no_auth))), key, **words)


def values(store: Store, run: str) -> list[Any]:
    return [(row.step, row.attempt, row.values.get("v")) for row in store.history(run)]


# Runs outside sweeps.


def test_rows_are_stored_once_however_often_they_are_sent(base: Store) -> None:
    """A client that got no answer sends the same lines with the same offset, alone or with more."""
    run = wire_to(base).begin("a", config={"lr": 0.1, "_wandb": {"t": 1}})
    body = run.rows({"v": 0}, {"v": 1})
    for _ in range(3):
        assert run.send(body, packed=True) == {}
    run.log({"v": 2})
    assert values(base, "a") == [(0, 1, 0), (1, 1, 1), (2, 1, 2)]
    assert base.client.xlen(base.keys.run("a", "history")) == 3
    assert run.finish(0) == {}
    found = base.run("a")
    assert (found.state, found.exit_code, found.config) == (RunState.FINISHED, 0, {"lr": 0.1})


def test_beginning_that_is_sent_again_is_one_attempt(base: Store) -> None:
    """The answer to UpsertBucket was lost."""
    first, second = (wire_to(base).begin("a", config={"lr": 0.1}) for _ in range(2))
    assert (base.run("a").attempt, first.bucket["historyLineCount"]) == (1, second.bucket["historyLineCount"])
    second.log({"v": 0})
    assert wire_to(base).begin("a", config={"lr": 0.1}).bucket["id"] != first.bucket["id"]
    assert base.run("a").attempt == 2


def test_last_beginning_alone_may_write(base: Store) -> None:
    """Two processes with one id: the older one is told to stop, and nothing of it is taken."""
    old = wire_to(base).begin("a")
    old.log({"v": "old"})
    new = wire_to(base).resume("a")
    assert new.step == 1
    new.log({"v": "new"})
    assert old.log({"v": "late"}) == {"stopped": True}
    assert old.finish(255, lines=["Traceback"]) == {"stopped": True}
    assert values(base, "a") == [(0, 1, "old"), (1, 2, "new")]
    assert base.run("a").state is RunState.RUNNING


def test_beginning_without_a_host(base: Store) -> None:
    """`x_disable_machine_info` keeps the host back, and does not make a beginning a change."""
    wire = wire_to(base)
    begun = wire.upsert("a", host=None, program="train.py", config={"lr": 1})
    assert base.run("a").config == {"lr": 1}
    wire.upsert("a", id=begun["id"], program="train.py", config={"lr": 2})
    assert (base.run("a").config, base.run("a").attempt) == ({"lr": 2}, 1)
    known = wire.resume_status("a")
    assert known is not None
    assert wire.upsert("a", id=known["id"], host=None)["id"] != begun["id"]
    assert base.run("a").attempt == 2


def test_stale_end_does_not_last(base: Store, clock: Clock) -> None:
    """It does not say whose it is: what the last client sends afterwards undoes it, and its own end is final."""
    old = wire_to(base).begin("a")
    old.log({"v": "old"})
    new = wire_to(base).resume("a")
    new.log({"v": "new"})
    clock.advance(5)
    old.finish(0)
    clock.advance(5)
    body = new.rows({"v": "newer"})
    new.send(body)
    found = base.run("a")
    assert (found.state, found.exit_code, found.seconds) == (RunState.RUNNING, None, 0)
    old.finish(0)
    new.send(body)  # nothing new: the answer was lost
    assert base.run("a").state is RunState.FINISHED
    clock.advance(5)
    for client, lines in ((new, ["Traceback"]), (old, [])):
        client.finish(0 if client is old else 3, lines=lines)
        found = base.run("a")
        assert (found.state, found.exit_code, found.seconds) == (RunState.FAILED, 3, 15)
    wire_to(base).resume("a").finish(0)
    assert base.run("a").state is RunState.FINISHED


def test_end_with_nothing_left_to_send(base: Store, clock: Clock) -> None:
    """A resumed run has sent all its rows before: its end counts, and a later one of an older client does not."""
    old = wire_to(base).begin("a")
    new = wire_to(base).resume("a")
    new.log({"v": 1})
    for client, code in ((new, 3), (old, 0)):
        assert client.finish(code) == {}
        assert (base.run("a").state, base.run("a").exit_code) == (RunState.FAILED, 3)


def test_stale_summary_does_not_last(base: Store) -> None:
    """Nor does it say whose it is; the last client sends its own with its next rows, and none counts after the end."""

    def summary(name: str) -> dict[str, Any]:
        return {"files": {"wandb-summary.json": {"offset": 0, "content": [json.dumps({"v": name})]}}}

    old = wire_to(base).begin("a")
    new = wire_to(base).resume("a")
    new.send(summary("alone"))
    assert base.run("a").summary == {"v": "alone"}
    old.send(summary("old"))
    body = new.rows({"v": "new"})
    body["files"] |= summary("new")["files"]
    new.send(body)
    assert base.run("a").summary == {"v": "new"}
    new.finish(0, lines=["done"])
    old.send(summary("old"))
    assert base.run("a").summary == {"v": "new"}


def test_two_beginnings_at_the_same_moment(base: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One begins wholly between the two steps of the other, which is refused, so that their rows do not mix."""
    open_writer, later = Store.open_writer, []

    def interrupted(store: Store, token: ClaimToken, *, init: str) -> Writer:
        monkeypatch.undo()
        later.append(wire_to(base).begin("a", config={"who": "later"}))
        return open_writer(store, token, init=init)

    monkeypatch.setattr(Store, "open_writer", interrupted)
    with pytest.raises(WireError, match="taken over by another attempt") as raised:
        wire_to(base).begin("a", config={"who": "earlier"})
    assert raised.value.status == 403
    assert later[0].log({"v": "later"}) == {}
    assert values(base, "a") == [(0, 2, "later")]


def test_summary_has_no_names_of_the_client(base: Store) -> None:
    """And NaN is taken as the client sends it."""
    run = wire_to(base).begin("a")
    line = '{"loss": NaN, "best": 2, "_wandb": {"runtime": 1}, "_step": 4, "_runtime": 3, "_timestamp": 1.5}'
    run.send({"files": {"wandb-summary.json": {"offset": 0, "content": [line]}}})
    assert set(base.run("a").summary) == {"loss", "best"}


def test_output_without_stamps(base: Store) -> None:
    """Lines of output.log begin with their time."""
    run = wire_to(base).begin("a")
    lines = ["2026-11-22T20:39:28.612669 hello", "ERROR 2026-11-22T20:39:28.612669 world"]
    body = {"files": {"output.log": {"offset": run.bucket["logLineCount"], "content": lines}}}
    run.send(body)
    run.send(body)
    assert [chunk.text for chunk in base.output("a")] == ["hello\nworld\n"]


def test_of_much_output_the_end_is_kept(base: Store) -> None:
    """A script that prints without end must not fill Redis."""
    run = wire_to(base).begin("a")
    lines = [f"{number:099}" for number in range(10_000)]
    run.send({"files": {"output.log": {"offset": run.bucket["logLineCount"], "content": lines}}})
    (chunk,) = base.output("a")
    assert len(chunk.text) == LONGEST_OUTPUT
    assert chunk.text.endswith("9999\n")


# Attempts that `sweep-agent` launched.


def test_key_of_an_attempt_is_void_with_the_next(base: Store) -> None:
    """Rows and exit of a stale attempt are dropped, and it is told to stop; the agent reports ends, not the script."""
    wire = wire_to(base)
    sweep = wire.create_sweep(GRID)
    agent = wire.create_agent(sweep)
    run_id = wire.heartbeat(agent)[0]["run_id"]

    def child() -> Wire:
        seat = base.seat(run_id)
        assert seat is not None
        key = attempt_key(desk_of(base).secret, base.scope, seat.token)
        assert len(key.split("-", 1)[1]) == 40  # what 0.19 insists on
        return wire_to(base, key, no_auth=False)

    first = child()
    old = first.begin(run_id, sweep=sweep)
    old.log({"v": "old"})
    assert old.finish(0) == {}
    assert base.run(run_id).state is RunState.RUNNING
    seat = base.seat(run_id)
    assert seat is not None
    base.end_attempt(EndRequest(seat.token, None, preempted=True))
    assert wire.heartbeat(agent)[0] == {
        "type": "resume", "run_id": run_id, "program": "train.py", "args": {"x": {"value": 1}},
    }  # fmt: skip
    second = child()
    assert old.log({"v": "late"}) == {"stopped": True}
    with pytest.raises(WireError, match="another attempt has the run"):
        first.begin(run_id, sweep=sweep)
    assert second.resume(run_id, sweep=sweep).step == 1
    with pytest.raises(WireError, match="cannot create or change sweeps"):
        second.create_sweep(GRID)
    with pytest.raises(WireError, match="403"):
        first.graphql("Runs", entity="local", project="p")
    assert second.graphql("Runs", entity="local", project="p")["project"]["runCount"] == 1
    assert values(base, run_id) == [(0, 1, "old")]


# Agents.


def test_lost_answers_lose_no_command(base: Store, clock: Clock) -> None:
    """The same heartbeat again gets the same run, until the agent says that it runs."""
    wire = wire_to(base)
    sweep = wire.create_sweep(GRID)
    agent = wire.create_agent(sweep)
    told = [wire.heartbeat(agent) for _ in range(4)]
    assert all(commands == told[0] for commands in told)
    (command,) = told[0]
    assert wire.heartbeat(agent, command["run_id"]) == []
    run = wire.begin(command["run_id"], sweep=sweep)
    run.log({"v": 1})
    run.finish(0, lines=["2026-11-22T20:39:28.612669 done"])
    assert base.run(command["run_id"]).state is RunState.FINISHED
    assert wire.heartbeat(agent, command["run_id"]) == []  # it ends something else
    (second,) = wire.heartbeat(agent)
    assert second["run_id"] != command["run_id"]
    wire.heartbeat(agent, second["run_id"])
    wire.begin(second["run_id"], sweep=sweep).finish(3)
    assert (base.run(second["run_id"]).state, base.run(second["run_id"]).exit_code) == (RunState.FAILED, 3)
    assert wire.heartbeat(agent) == [{"type": "exit"}]
    assert wire.heartbeat(agent) == [{"type": "exit"}]  # the answer was lost
    check_promises(base, sweep)


def test_claim_that_was_not_told(base: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway dies after the claim: what was said of the run before is not taken for word of the new one."""
    wire = wire_to(base)
    sweep = wire.create_sweep(GRID)
    agent = wire.create_agent(sweep)
    first = wire.heartbeat(agent)[0]["run_id"]
    wire.heartbeat(agent, first)
    wire.begin(first, sweep=sweep).finish(0)

    def fail(*_: object) -> None:
        raise StoreUnavailableError("timed out")

    with monkeypatch.context() as away:
        away.setattr(Store, "tell", fail)
        with pytest.raises(WireError, match="503"):
            wire.heartbeat(agent)
    for _ in range(2):
        (command,) = wire.heartbeat(agent)
        assert (command["type"], command["run_id"] == first) == ("run", False)
        clock.advance(5)
    wire.heartbeat(agent, command["run_id"])
    assert wire.heartbeat(agent) == []  # it was seen, so it is missing now
    clock.advance(5)
    assert wire.heartbeat(agent) == [{"type": "exit"}]
    assert base.run(command["run_id"]).state is RunState.CRASHED
    check_promises(base, sweep, complete=False)


def test_process_that_is_gone_without_a_word(base: Store, clock: Clock) -> None:
    """Two heartbeats apart, so that one that was held up in the network is not believed; marked runs are requeued."""
    wire = wire_to(base)
    sweep = wire.create_sweep(GRID)
    agent = wire.create_agent(sweep)
    run_id = wire.heartbeat(agent)[0]["run_id"]
    wire.heartbeat(agent, run_id)
    run = wire.begin(run_id, sweep=sweep)
    run.send({"preempting": True})
    assert wire.heartbeat(agent) == []
    assert wire.heartbeat(agent, run_id) == []
    assert base.run(run_id).state is RunState.PREEMPTING
    assert wire.heartbeat(agent) == []
    clock.advance(5)
    (again,) = wire.heartbeat(agent)
    assert (again["type"], again["run_id"]) == ("resume", run_id)
    assert run.log({"v": "late"}) == {"stopped": True}
    assert base.run(run_id).attempt == 2
    check_promises(base, sweep, complete=False)


def test_script_that_never_starts_is_given_up(base: Store, clock: Clock) -> None:
    """Told often enough and for long enough; three such attempts fail the run."""
    wire = wire_to(base)
    sweep = wire.create_sweep({**GRID, "run_cap": 1})
    agent = wire.create_agent(sweep)
    for _ in range(4 * STARTS):
        commands = wire.heartbeat(agent)
        clock.advance(START_PATIENCE / 1000 / 2)
        if commands == [{"type": "exit"}]:
            break
    (run,) = base.runs(sweep)
    assert (run.state, run.attempt) == (RunState.FAILED, 3)
    assert "without a new step" in run.reason
    check_promises(base, sweep)


def test_agent_that_is_gone_and_one_that_comes_back(base: Store, clock: Clock) -> None:
    """A lease that ran out gives the run to the next; the first agent is told to stop it."""
    wire = wire_to(base)
    sweep = wire.create_sweep({**GRID, "run_cap": 1, "preemption": {"auto": True}, "lease": {"duration": 15}})
    first, second = wire.create_agent(sweep, "one"), wire.create_agent(sweep, "two")
    run_id = wire.heartbeat(first)[0]["run_id"]
    wire.heartbeat(first, run_id)
    old = wire.begin(run_id, sweep=sweep)
    old.log({"v": "old"})
    for _ in range(10):
        clock.advance(5)
        if commands := wire.heartbeat(second):
            break
    assert commands[0]["run_id"] == run_id
    assert wire.heartbeat(first, run_id) == [{"type": "stop", "run_id": run_id}]
    assert old.log({"v": "late"}) == {"stopped": True}  # the second has not even begun
    wire.heartbeat(second, run_id)
    wire.resume(run_id, sweep=sweep).log({"v": "new"})
    assert old.finish(255) == {}  # it does not say whose end it is …
    assert wire.heartbeat(second, run_id) == []
    assert base.run(run_id).state is RunState.RUNNING  # … so nothing comes of it while the process lives
    assert values(base, run_id) == [(0, 1, "old"), (1, 2, "new")]


@pytest.mark.parametrize("code", [0, 7])
def test_end_that_anybody_may_have_sent(base: Store, clock: Clock, code: int) -> None:
    """A later client says the code alone: its agent's word that the process is gone confirms it. Agents that took all
    runs that they were to take say nothing more: then 0 is believed when the lease runs out, and nothing else is.
    """
    wire = wire_to(base)
    sweep = wire.create_sweep({**GRID, "lease": {"duration": 15}, "preemption": {"auto": True}})
    agents = [wire.create_agent(sweep), wire.create_agent(sweep)]
    held = []
    for agent in agents:
        run_id = wire.heartbeat(agent)[0]["run_id"]
        wire.heartbeat(agent, run_id)
        wire.begin(run_id, sweep=sweep).log({"v": 0})
        wire.resume(run_id, sweep=sweep).finish(code)
        assert base.run(run_id).state is RunState.RUNNING
        held.append(run_id)
    assert wire.heartbeat(agents[0]) == []
    assert base.run(held[0]).state is (RunState.FINISHED if code == 0 else RunState.FAILED)
    for _ in range(5):
        clock.advance(5)
        wire.heartbeat(agents[0])
    assert base.run(held[1]).state is (RunState.FINISHED if code == 0 else RunState.RUNNING)
    assert base.run(held[1]).attempt == (1 if code == 0 else 2)
    check_promises(base, sweep, complete=code == 0)


def test_script_without_its_agent_keeps_its_run(base: Store, clock: Clock) -> None:
    """`wandb agent` was killed, and its child goes on: it is heard, and its end is taken."""
    wire = wire_to(base)
    sweep = wire.create_sweep({**GRID, "run_cap": 1, "lease": {"duration": 15}})
    agent = wire.create_agent(sweep)
    run_id = wire.heartbeat(agent)[0]["run_id"]
    wire.heartbeat(agent, run_id)
    run = wire.begin(run_id, sweep=sweep)
    for number in range(10):
        clock.advance(10)
        assert run.log({"v": number}) == {}
    run.finish(0)
    assert base.run(run_id).state is RunState.FINISHED
    check_promises(base, sweep)


def test_commands_of_people_reach_the_agent(base: Store) -> None:
    """Pause, resume and cancel as `wandb sweep` sends them."""
    wire = wire_to(base)
    sweep = wire.create_sweep(GRID)
    agent = wire.create_agent(sweep)

    def command(state: str) -> None:
        wire.graphql("UpsertSweep", kind="mutation", id=sweep, state=state)

    command("PAUSED")
    assert wire.heartbeat(agent) == []
    command("RUNNING")
    run_id = wire.heartbeat(agent)[0]["run_id"]
    wire.heartbeat(agent, run_id)
    run = wire.begin(run_id, sweep=sweep)
    command("CANCELED")
    assert wire.heartbeat(agent, run_id) == [{"type": "stop", "run_id": run_id}]
    assert run.log({"v": 0}) == {"stopped": True}
    run.finish(255, lines=["x"])
    assert wire.heartbeat(agent) == [{"type": "exit"}]
    assert base.run(run_id).state is RunState.KILLED
    with pytest.raises(WireError, match="a sweep's config stays as it was created"):
        wire.graphql("UpsertSweep", kind="mutation", id=sweep, config="{}")


def test_sweep_with_faults_is_not_created(base: Store) -> None:
    """The client shows what the config's check says."""
    with pytest.raises(WireError, match="randm"):
        wire_to(base).create_sweep({**GRID, "method": "randm"})
    with pytest.raises(WireError) as raised:
        wire_to(base).heartbeat("gone/wandb:host-1/s")
    assert raised.value.status == 404  # which ends the client's agent


def test_run_of_a_sweep_begins_in_its_agents_hands_only(base: Store) -> None:
    """Neither by hand while an agent has it, nor by an agent's child that is late."""
    wire = wire_to(base)
    sweep = wire.create_sweep(GRID)
    run_id = wire.heartbeat(wire.create_agent(sweep))[0]["run_id"]
    with pytest.raises(WireError, match="an agent runs it now"):
        wire.begin(run_id)
    with pytest.raises(WireError, match="has no such run"):
        wire.begin("other", sweep=sweep)
    waiting = next(run.run_id for run in base.runs(sweep) if run.run_id != run_id) if len(base.runs(sweep)) > 1 else ""
    if waiting:
        with pytest.raises(WireError, match="in no agent's hands"):
            wire.begin(waiting, sweep=sweep)


# Keys.


def test_keys_open_their_entity_as_far_as_they_say(base: Store) -> None:
    """A key is for one entity, to read or to write; what is stored is its hash."""
    credentials = Credentials(base.client)
    record, write = credentials.create_key(entity="local", rights=Rights.WRITE)
    _, read = credentials.create_key(entity="local", rights=Rights.READ, name="dashboard")
    _, foreign = credentials.create_key(entity="other", rights=Rights.WRITE)
    assert write not in str(base.client.hgetall("resweep:keys"))
    wire_to(base, write, no_auth=False).begin("a").log({"v": 1})
    reader = wire_to(base, read, no_auth=False)
    assert reader.graphql("Run", entity="local", project="p", name="a")["project"]["run"]["state"] == "running"
    with pytest.raises(WireError, match="allows to read in local, not to write"):
        reader.begin("b")
    with pytest.raises(WireError, match="not to read in local"):
        wire_to(base, foreign, no_auth=False).graphql("Run", entity="local", project="p", name="a")
    for bad in ("", "a" * 40, write[:-1] + ("a" if write[-1] != "a" else "b")):
        with pytest.raises(WireError) as raised:
            wire_to(base, bad, no_auth=False).graphql("Viewer")
        assert raised.value.status == 401
        assert "resweep key create" in raised.value.message
    assert credentials.remove_key(record.key_id)
    with pytest.raises(WireError, match="unknown here"):
        wire_to(base, write, no_auth=False).begin("a")
    assert [key.name for key in credentials.keys_list()] == ["dashboard", ""]


def test_web_pages_are_refused_where_no_key_is_asked_for(base: Store) -> None:
    """A page in a browser reaches the loopback interface, too."""
    wire = wire_to(base)
    for headers in ({"origin": "http://evil.example"}, {"host": "evil.example"}):
        with pytest.raises(WireError, match="only programs of this machine"):
            wire.request("POST", "/graphql", b'{"query": "query Viewer { x }"}', headers)


# Limits.


def test_unknown_operations_are_named_and_logged_once(base: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A newer client fails with a reason, and does not wait."""
    wire = wire_to(base)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with pytest.raises(WireError, match="does not know the operation 'CreateArtifact'") as raised:
                wire.graphql("CreateArtifact", kind="mutation")
            assert raised.value.status == 400
    assert len([record for record in caplog.records if "CreateArtifact" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    "filters",
    [
        "no json", "[]", "7", "[" * 100_000, '{"state": {"$in": 5}}', '{"$or": 5}', '{"$and": ["x"]}', '{"$not": 1}',
        *(
            json.dumps({"display_name": {"$regex": pattern}})
            for pattern in (
                "(", 5, ["a"], "(a+)+$", "(a|aa)+$", "(?:a{0,9}){9}", "(a)\\1", "(a*)(?=b+)c*", "a*a*a*$", "x" * 201,
                "a{99999999999}", "(){9999}", "(a|a)" * 30,
            )
        ),
    ],
)  # fmt: skip
def test_filters_that_are_refused(base: Store, filters: str) -> None:
    """Those that have no sense, and patterns that would hold up everybody for hours."""
    wire = wire_to(base)
    wire.begin("a", displayName="a" * 100 + "!")
    with pytest.raises(WireError) as raised:
        wire.graphql("Runs", entity="local", project="p", filters=filters)
    assert raised.value.status == 400


@pytest.mark.parametrize("pattern", ["^run.*lr=0\\.1", "a|b(c|d)?", "x[0-9]+", "(?i)RUN", "\\bv\\d{1,3}$", "^(?!test)"])
def test_patterns_that_are_taken(base: Store, pattern: str) -> None:
    """What people look for names with."""
    wire = wire_to(base)
    wire.begin("a", displayName="run a x1 lr=0.1 v12")
    filters = json.dumps({"display_name": {"$regex": pattern}})
    assert wire.graphql("Runs", entity="local", project="p", filters=filters)["project"]["runCount"] == 1


def test_unknown_names_take_little_memory(base: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from whoever has a key, and may be as long as a body."""
    monkeypatch.setattr(app, "MOST_UNKNOWN", 2)
    gateway = app.Gateway(desk_of(base))
    for name in ("x" * 100_000, "b", "c", "d"):
        assert len(str(gateway._unknown_operation(name))) < 300
    assert gateway._unknown == {"x" * app.LONGEST_NAME, "b"}


def test_body_of_a_stranger_is_not_read(base: Store) -> None:
    """The key is looked at first, for files the address; a forged key of an attempt is none."""

    async def unread() -> Message:
        raise AssertionError("it was read")

    gateway = app.app_of(desk_of(base, no_auth=False))

    async def watched(scope: Scope_, _: Receive, send: Send) -> None:
        await gateway(scope, unread, send)

    other = attempt_key(b"other", base.scope, ClaimToken("a", 1, "n"))
    for key in ("", "b" * 40, "rsa_me-" + "0" * 40, "rsa_me_é-" + "é" * 40, other):
        for path in ("/graphql", "/files/local/p/a/file_stream"):
            with pytest.raises(WireError) as raised:
                Wire(asgi_sender(watched), key).post(path, b"{}")
            assert raised.value.status == 401
    with pytest.raises(WireError, match="not given out by this server"):
        Wire(asgi_sender(watched)).request("PUT", "/storage/local/p/a/name?by=1.1&signature=0", b"x")


def test_key_of_an_attempt_with_a_foreign_letter(base: Store) -> None:
    """It is wrong like any other."""
    wire_to(base).begin("a")
    seat = base.seat("a")
    assert seat is not None
    key = attempt_key(desk_of(base).secret, base.scope, seat.token)
    with pytest.raises(WireError, match="another attempt has the run"):
        wire_to(base, key[:-1] + "é", no_auth=False).resume_status("a")


def test_body_that_does_not_arrive(base: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept for a client that stalls; it may come again."""
    monkeypatch.setattr(app, "PATIENCE", 0.05)
    gateway = app.app_of(desk_of(base))

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("it was waited for")

    async def stalled(scope: Scope_, _: Receive, send: Send) -> None:
        await gateway(scope, never, send)

    with pytest.raises(WireError, match="has not arrived") as raised:
        Wire(asgi_sender(stalled)).post("/graphql", b"{}")
    assert raised.value.status == 503


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (gzip.compress(b" " * (MAX_BODY + 1), mtime=0), {"content-encoding": "gzip"}, 413),
        (b"x" * (MAX_BODY + 1), {}, 413),
        (b"no gzip", {"content-encoding": "gzip"}, 400),
        (gzip.compress(b"{}", mtime=0)[:-4], {"content-encoding": "gzip"}, 400),
        (b"{}", {"content-encoding": "br"}, 415),
        (b"[]", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"files": {"wandb-history.jsonl": {"offset": "1", "content": []}}}', {}, 400),
        (b'{"files": {"wandb-history.jsonl": {"offset": 0, "content": ["no json"]}}}', {}, 400),
        (b'{"files": 7}', {}, 400),
    ],
)
def test_bodies_that_are_refused(base: Store, body: bytes, headers: dict[str, str], status: int) -> None:
    """A few KB of gzip unpack to gigabytes, so no more is unpacked than is allowed."""
    run = wire_to(base).begin("a")
    with pytest.raises(WireError) as raised:
        run.wire.post(run.path, body, headers)
    assert raised.value.status == status


def test_files_are_kept_at_signed_addresses(base: Store) -> None:
    """The client sends no key with a file; a stale one cannot save, and large ones are refused."""
    wire = wire_to(base)
    run = wire.begin("a")
    names = ["media/a b.txt", "wandb-summary.json", "large"]
    answer = wire.graphql(
        "CreateRunFiles", kind="mutation", entity="local", project="p", run="a", files=names
    )["createRunFiles"]["files"]  # fmt: skip
    paths = {file["name"]: file["uploadUrl"].removeprefix("http://127.0.0.1") for file in answer}
    wire.request("PUT", paths["media/a b.txt"], b"\x00hello")
    wire.request("PUT", paths["wandb-summary.json"], b"{}")
    with pytest.raises(WireError) as raised:
        wire.request("PUT", paths["large"], b"x" * (4 * 1024 * 1024 + 1))
    assert raised.value.status == 413
    for bad in ("../up", "/root", "a/../../b", "", "x" * 501):
        with pytest.raises(WireError, match="a file of a run has a relative name"):
            wire.graphql("CreateRunFiles", kind="mutation", entity="local", project="p", run="a", files=[bad])
    with pytest.raises(WireError, match="not given out by this server"):
        wire.request("PUT", paths["large"].replace("large", "other"), b"x")
    found = wire.graphql("RunFiles", entity="local", project="p", name="a")["project"]["run"]["files"]["edges"]
    assert [(edge["node"]["name"], edge["node"]["sizeBytes"]) for edge in found] == [("media/a b.txt", 6)]
    path = found[0]["node"]["directUrl"].removeprefix("http://127.0.0.1")
    assert wire.request("GET", path) == b"\x00hello"
    wire.resume("a")
    with pytest.raises(WireError, match="another attempt"):
        wire.request("PUT", paths["media/a b.txt"], b"late")
    assert run.line >= 0
    assert base.remove_runs(["a"]) == 1
    assert not base.client.exists(base.keys.run("a", "files"))


def test_history_is_read_once_for_all_its_pages(base: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as nothing is added; and never more is kept than is allowed."""
    read: list[str] = []
    history = Store.history

    def counted(store: Store, run_id: str) -> list[HistoryRow]:
        read.append(run_id)
        return history(store, run_id)

    monkeypatch.setattr(Store, "history", counted)
    monkeypatch.setattr(histories, "MOST_ROWS", 15)
    wire = wire_to(base)

    def scan(run: str) -> list[int]:
        found: list[int] = []
        for low in range(0, 20, 5):
            page = wire.graphql(
                "HistoryPage", entity="local", project="p", run=run, minStep=low, maxStep=low + 5, samples=5
            )
            found += [json.loads(row)["v"] for row in page["project"]["run"]["history"]]
        return found

    run = wire.begin("a")
    run.log(*({"v": step} for step in range(10)))
    assert (scan("a"), read) == (list(range(10)), ["a"])
    run.log({"v": 10})
    assert (scan("a"), read) == (list(range(11)), ["a", "a"])
    wire.begin("b").log(*({"v": step} for step in range(10)))
    scan("b")
    scan("a")  # had to go for b
    assert read == ["a", "a", "b", "a"]
    run.log(*({"v": step} for step in range(11, 20)))
    assert (scan("a"), len(read)) == (list(range(20)), 8)  # too long


def begin_runs(wire: Wire, clock: Clock, *names: str) -> list[str]:
    """Begin runs one after the other; returns the names of the newest first."""
    for name in names:
        clock.advance(1)
        wire.begin(name)
    return list(reversed(names))


def pages_of(wire: Wire, size: int, between: Callable[[int], None] = lambda page: None) -> list[str]:
    """The runs of all pages, the newest first, as a client goes through them; something happens before each page."""
    names: list[str] = []
    cursor, more, page = None, True, 0
    while more:
        between(page)
        answer = wire.graphql("Runs", entity="local", project="p", perPage=size, cursor=cursor)
        runs = answer["project"]["runs"]
        names += [edge["node"]["name"] for edge in runs["edges"]]
        more, page = runs["pageInfo"]["hasNextPage"], page + 1
        cursor = runs["edges"][-1]["cursor"] if runs["edges"] else None
    return names


def test_pages_of_runs_are_those_of_one_moment(base: Store, clock: Clock) -> None:
    """A run that begins meanwhile would move all others, so that each page repeated the last one of the page before."""
    wire = wire_to(base)
    expected = begin_runs(wire, clock, *"abcde")

    def begin_another(page: int) -> None:
        begin_runs(wire, clock, f"new-{page}")

    assert pages_of(wire, 2, begin_another) == ["new-0", *expected]
    assert pages_of(wire, 2)[:3] == ["new-2", "new-1", "new-0"]


def test_a_later_page_reads_its_own_runs_only(base: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = wire_to(base)
    begin_runs(wire, clock, *"abcde")
    read: list[int] = []
    load = Store._load_runs

    def noting(store: Store, run_ids: Sequence[str]) -> list[Run]:
        read.append(len(run_ids))
        return load(store, run_ids)

    monkeypatch.setattr(Store, "_load_runs", noting)
    assert len(pages_of(wire, 2)) == 5
    assert read == [5, 2, 1]


def test_runs_that_were_removed_are_missing_in_later_pages(base: Store, clock: Clock) -> None:
    """Also where a whole page is gone."""
    wire = wire_to(base)
    for name in "abcdefg":
        clock.advance(1)
        wire.begin(name).finish(0)

    def remove(page: int) -> None:
        if page == 1:
            assert base.remove_runs(["b", "d", "e"]) == 3

    assert pages_of(wire, 2, remove) == ["g", "f", "c", "a"]


def test_pages_go_on_where_the_listing_is_not_known(base: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another gateway, and where others have taken its place: the runs are chosen and ordered again."""
    wire = wire_to(base)
    expected = begin_runs(wire, clock, *"abcde")
    first = wire.graphql("Runs", entity="local", project="p", perPage=2)["project"]["runs"]["pageInfo"]
    other = wire_to(base).graphql("Runs", entity="local", project="p", perPage=2, cursor=first["endCursor"])
    assert [edge["node"]["name"] for edge in other["project"]["runs"]["edges"]] == expected[2:4]
    monkeypatch.setattr(listings, "MOST_IDS", 4)
    assert pages_of(wire, 2) == expected


@pytest.mark.parametrize(("cursor", "size"), [("x", 2), ("-2-ab", 2), ("2-ab", -1), ("", "many")])
def test_pages_that_are_none(base: Store, cursor: str, size: object) -> None:
    with pytest.raises(WireError, match="start with the first page again") as raised:
        wire_to(base).graphql("Runs", entity="local", project="p", perPage=size, cursor=cursor)
    assert raised.value.status == 400


def test_answers_are_encoded_in_the_threads(base: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history must not hold up the others' requests."""
    threads: list[threading.Thread] = []
    encoded = app._encoded

    def watched(result: Any) -> Response:
        threads.append(threading.current_thread())
        return encoded(result)

    monkeypatch.setattr(app, "_encoded", watched)
    wire_to(base).graphql("Viewer")
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


def test_files_go_where_clients_reach_the_gateway(base: Store) -> None:
    """A proxy on another machine is not believed when it says that it was asked by https; the command line is."""
    desk = replace(desk_of(base), public_url="https://wandb.example.org/")
    wire = Wire(asgi_sender(app_of(desk)))
    wire.begin("a")
    variables = {"entity": "local", "project": "p", "run": "a", "files": ["x"]}
    (file,) = wire.graphql("CreateRunFiles", kind="mutation", **variables)["createRunFiles"]["files"]
    assert file["uploadUrl"].startswith("https://wandb.example.org/storage/local/p/a/x?")


@pytest.mark.parametrize(
    "url", ["wandb.example.org", "ftp://head", "https://", "https://h:x", "https://me@h", "http://h?a"]
)
def test_public_url_that_is_none(url: str) -> None:
    """Said at once, not when the first file is saved."""
    answer = CliRunner().invoke(serve_command, ["--public-url", url])
    assert answer.exit_code == 2
    assert "give it as https://HOST" in answer.output


def test_history_of_another_form_of_client(base: Store) -> None:
    """`wandb.Api()`: rows with their steps, pages, samples, keys; runs chosen and ordered."""
    wire = wire_to(base)
    for number, name in enumerate(("a", "b", "c")):
        run = wire.begin(name, config={"lr": number}, tags=[name], displayName=f"run {name}")
        run.log(*({"loss": number + step} for step in range(10)))
        summary = json.dumps({"loss": 10 - number})
        run.send({"files": {"wandb-summary.json": {"offset": 0, "content": [summary]}}})
    found = wire.graphql("RunFullHistory", entity="local", project="p", name="a", samples=5)["project"]["run"]
    assert [json.loads(row)["_step"] for row in found["history"]] == [0, 2, 4, 7, 9]
    page = wire.graphql("HistoryPage", entity="local", project="p", run="b", minStep=2, maxStep=4, samples=100)
    assert [json.loads(row)["loss"] for row in page["project"]["run"]["history"]] == [3, 4]
    wire.begin("odd").send({"files": {"wandb-history.jsonl": {"offset": 0, "content": ['{"_step": 0, "loss": NaN}']}}})
    odd = wire.graphql("RunParquetHistory", entity="local", project="p", runName="odd", liveKeys=["loss"])
    assert odd["project"]["run"]["parquetHistory"]["liveData"][0]["loss"] == "NaN"
    assert base.remove_runs(["odd"]) == 1
    spec = json.dumps({"keys": ["_step", "loss"], "samples": 2})
    sampled = wire.graphql("RunSampledHistory", entity="local", project="p", name="c", specs=[spec])
    assert sampled["project"]["run"]["sampledHistory"] == [[{"_step": 0, "loss": 2}, {"_step": 9, "loss": 11}]]

    def names(order: str, filters: dict[str, Any], per_page: int = 50) -> list[str]:
        answer = wire.graphql(
            "Runs", entity="local", project="p", order=order, filters=json.dumps(filters), perPage=per_page
        )
        return [edge["node"]["name"] for edge in answer["project"]["runs"]["edges"]]

    assert names("+summary_metrics.loss", {}) == ["c", "b", "a"]
    assert names("-config.lr", {}, 2) == ["c", "b"]
    assert names("+config.lr", {"$or": [{"tags": {"$in": ["a"]}}, {"config.lr.value": {"$gte": 2}}]}) == ["a", "c"]
    assert names("+config.lr", {"display_name": {"$regex": "b$"}, "state": "running"}) == ["b"]
    with pytest.raises(WireError, match="cannot be chosen or ordered by 'jobType'"):
        names("+created_at", {"jobType": "x"})
