"""The issue's "Bad input", at the agent and at scripts: one line, a named exit code, nothing lost."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import Desk, Done, desk_in
from support.servers import Server, free_port, private_server, require
from support.waiting import wait_until

GRID = {"program": "t.py", "method": "grid", "parameters": {"a": {"values": [1, 2]}}}
USAGE, UNKNOWN, UNAVAILABLE, REFUSED, ILLEGAL, NOT_FOUND, FLAPPING = 2, 3, 4, 5, 6, 7, 8


@pytest.fixture
def desk(tmp_path: Path, server: Server) -> Iterator[Desk]:
    with desk_in(tmp_path / "desk", server.url) as desk:
        desk.write("t.py", "")
        yield desk


def error_line(done: Done) -> str:
    """The line that says what went wrong, the last one; log lines may stand before it."""
    line = done.err.strip().splitlines()[-1]
    assert line.startswith("error: "), done
    assert done.err.count("error: ") == 1, done
    return line


def untouched(desk: Desk, sweep: str) -> None:
    """The sweep is as it was created, and still works."""
    shown = desk.show(sweep)
    assert (shown["state"], sum(shown["counts"].values())) == ("pending", 0)
    desk.agent(sweep)
    assert desk.show(sweep)["counts"]["finished"] == 2


def test_unknown_sweep_wrong_project_and_no_path(desk: Desk) -> None:
    sweep = desk.create(GRID, "--project", "vision")
    assert "'nosuchid'" in error_line(desk.agent("nosuchid", code=UNKNOWN))
    for words in ([f"audio/{sweep}"], [f"lab/vision/{sweep}"], [sweep, "--project", "audio"]):
        assert f"local/vision/{sweep}" in error_line(desk.agent(*words, code=UNKNOWN)), words
    error_line(desk.agent("a/b/c/d", code=USAGE))
    error_line(desk.agent("x y", code=UNKNOWN))
    untouched(desk, sweep)


def test_a_project_in_the_environment_does_not_overrule_a_sweep(desk: Desk) -> None:
    """`sweep-agent $(resweep create -q sweep.yaml)` with a WANDB_PROJECT left over, and a project in the YAML."""
    desk.write("sweep.yaml", json.dumps({**GRID, "project": "vision"}))
    left_over = {"WANDB_PROJECT": "audio", "WANDB_ENTITY": "someone"}
    sweep = desk.resweep("create", "-q", "sweep.yaml", "--entity", "lab", env=left_over).out.strip()
    for path in (sweep, f"lab/vision/{sweep}"):
        desk.agent(path, "--count", "1", env=left_over)
    assert desk.show(sweep)["counts"]["finished"] == 2
    assert (desk.show(sweep)["entity"], desk.show(sweep)["project"]) == ("lab", "vision")


def test_sweeps_that_are_over(desk: Desk) -> None:
    """An agent of a finished sweep has nothing to do, and says so; that is no error."""
    sweep = desk.create(GRID)
    desk.agent(sweep)
    done = desk.agent(sweep)
    assert "finished" in done.err
    assert desk.show(sweep)["counts"]["finished"] == 2
    for command, word in (("stop", "stopped"), ("cancel", "canceled")):
        other = desk.create(GRID)
        desk.resweep(command, other)
        assert word in desk.agent(other).err
        assert desk.runs(other) == []
        desk.resweep("resume", other)
        desk.agent(other)
        assert desk.show(other)["counts"]["finished"] == 2


def test_removed_sweep_under_a_waiting_agent(desk: Desk) -> None:
    """A sweep with running runs is not removed; an agent that waits for a removed one ends and says so."""
    desk.write("t.py", "import time\nopen('ready', 'w').close()\ntime.sleep(60)\n")
    sweep = desk.create(GRID)
    agent = desk.start_agent(sweep, "--grace", "1")
    wait_until((desk.folder / "ready").exists, description="a child")
    assert f"resweep cancel {sweep}" in desk.resweep("rm", "-y", sweep, code=ILLEGAL).line()
    agent.send(signal.SIGTERM)
    assert agent.wait() == 75
    desk.resweep("pause", sweep)
    agent = desk.start_agent(sweep)
    wait_until(lambda: desk.show(sweep)["agents"], description="a waiting agent")
    desk.resweep("rm", "-y", sweep)
    assert agent.wait(20) == UNKNOWN
    assert sweep in agent.printed().splitlines()[-1]
    assert agent.printed().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"program": "absent.py"}, "absent.py"),
        ({"command": ["no-such-command", "${args}"]}, "no-such-command"),
        ({"command": ["./t.py", "${args}"]}, "t.py"),
    ],
)
def test_program_and_command_that_are_not_there(desk: Desk, change: dict[str, object], word: str) -> None:
    """No run is burnt: an agent on a machine that has the program does them all."""
    sweep = desk.create({**GRID, **change})
    line = error_line(desk.agent(sweep, code=NOT_FOUND))
    assert word in line
    counts = desk.show(sweep)["counts"]
    assert counts["failed"] == 0, counts
    desk.write(word, "#!/bin/sh\nexit 0\n").chmod(0o755)
    if word == "absent.py":
        desk.write("absent.py", "")
    desk.agent(sweep, env={"PATH": f"{desk.folder}:{desk.environment['PATH']}"})
    assert desk.show(sweep)["counts"]["finished"] == 2


def test_unreachable_redis(desk: Desk) -> None:
    port = free_port()
    line = error_line(desk.agent("abc", "--url", f"redis://u:hunter2@127.0.0.1:{port}", code=UNAVAILABLE))
    assert f"127.0.0.1:{port}" in line
    assert "hunter2" not in line


def test_password(desk: Desk, tmp_path: Path) -> None:
    with private_server(tmp_path, extra=["--requirepass", "sesame"]) as guarded:
        assert "password" in error_line(desk.agent("abc", "--url", guarded.url, code=REFUSED))
        wrong = guarded.url.replace("redis://", "redis://:hunter2@")
        line = error_line(desk.agent("abc", "--url", wrong, code=REFUSED))
        assert "password" in line
        assert "hunter2" not in line


def test_no_lua_rights(desk: Desk, server: Server) -> None:
    sweep = desk.create(GRID)
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-@scripting")
    url = server.url.replace("redis://", "redis://plain:pw@")
    assert "+@scripting" in error_line(desk.agent(sweep, "--url", url, code=REFUSED))
    untouched(desk, sweep)


def test_out_of_memory_before_and_in_the_middle(desk: Desk, server: Server) -> None:
    """What ran when memory ran out ends in a terminal state or on the queue once there is memory again."""
    sweep = desk.create(GRID)
    with server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        assert "maxmemory" in error_line(desk.agent(sweep, code=REFUSED))
        client.config_set("maxmemory", "0")
        assert sum(desk.show(sweep)["counts"].values()) == 0
        desk.write(
            "t.py",
            "import time\nfrom pathlib import Path\nPath('ready').touch()\n"
            "while not Path('go').exists(): time.sleep(0.02)\n",
        )
        agent = desk.start_agent(sweep)
        wait_until((desk.folder / "ready").exists, description="a child")
        client.config_set("maxmemory", "1")
        (desk.folder / "go").touch()
        wait_until(lambda: "maxmemory" in agent.printed() or not agent.running, description="a word about memory")
        client.config_set("maxmemory", "0")
        agent.wait()
    desk.agent(sweep)
    assert desk.show(sweep)["counts"]["finished"] == 2, desk.runs(sweep)


def test_read_only_replica(desk: Desk, server: Server, tmp_path: Path) -> None:
    sweep = desk.create(GRID)
    with server.client() as client:
        client.config_set("repl-diskless-sync-delay", "0")
    with private_server(tmp_path, extra=["--replicaof", "127.0.0.1", str(server.port)]) as replica:
        with replica.client() as client:
            wait_until(lambda: client.exists("resweep:sweeps"), description="the replica's copy")
        assert "replica" in error_line(desk.agent(sweep, "--url", replica.url, code=REFUSED))
    untouched(desk, sweep)


def test_redis_that_is_too_old(desk: Desk, server: Server, tmp_path: Path) -> None:
    """A copy of the sweep on a server that knows no scripts, as Redis before 2.6."""
    sweep = desk.create(GRID)
    with server.client() as client:
        client.config_set("repl-diskless-sync-delay", "0")
    no_scripts = ["--rename-command", "EVAL", "", "--rename-command", "EVALSHA", ""]
    copying = ["--replicaof", "127.0.0.1", str(server.port)]
    with private_server(tmp_path, extra=[*copying, *no_scripts]) as old:
        with old.client() as client:
            wait_until(lambda: client.exists("resweep:sweeps"), description="the copy of the sweep")
            client.execute_command("REPLICAOF", "NO", "ONE")
        assert "use Redis 6.2 or later" in error_line(desk.agent(sweep, "--url", old.url, code=REFUSED))
    untouched(desk, sweep)


def test_redis_of_debian_works_too(desk: Desk, tmp_path: Path) -> None:
    with private_server(tmp_path, binary=require("redis-server")) as redis_server:
        url = {"RESWEEP_URL": redis_server.url}
        sweep = desk.resweep("create", "-q", "-", env=url, text=json.dumps(GRID)).out.strip()
        desk.agent(sweep, env=url)
        assert desk.resweep("show", sweep, "--json", env=url).json()["counts"]["finished"] == 2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("program: t.py\nmethod: gird\n", ":2:9"),
        ("program: t.py\n  method: grid\n", ":2:"),
        ("[1, 2]", ""),
        ("", ""),
        ("program: t.py\nmethod: grid\nparameters:\n  a: {min: 0.0, max: 1.0}\n", ":4:"),
        ("program: t.py\nmethod: bayes\nparameters:\n  a: {min: 0.0, max: 1.0}\n", ""),
        ("program: t.py\nmethod: grid\nmethod: random\nparameters: {a: {value: 1}}\n", ":3:"),
    ],
)
def test_bad_yaml_makes_no_sweep(desk: Desk, text: str, place: str) -> None:
    desk.write("bad.yaml", text)
    done = desk.resweep("create", "bad.yaml", code=USAGE)
    assert done.out.strip() in {"", "Creating sweep from: bad.yaml"}
    assert done.err.startswith("error: bad.yaml"), done
    assert f"bad.yaml{place}" in done.err, done
    assert desk.resweep("ls", "--json").json() == []


def test_exit_codes_at_the_edge(desk: Desk) -> None:
    """255 is a failure; 256 is what the kernel makes of it: 0."""
    desk.write("t.py", "import os, sys\nos._exit(255 if sys.argv[1] == '--a=1' else 256)\n")
    sweep = desk.create(GRID)
    desk.agent(sweep)
    assert [(run["state"], run["exit_code"]) for run in desk.runs(sweep)] == [("failed", 255), ("finished", 0)]


def test_messages_of_scripts(desk: Desk) -> None:
    """The SDK's errors are of one family, and say rule, value and cure."""
    done = desk.call(sys.executable, "-c", "import resweep\nresweep.log({'a': 1})", code=1)
    assert "resweep.init()" in done.err
    done = desk.call(sys.executable, "-c", "import resweep\nresweep.sweep({'method': 'gird'})", code=1)
    assert "grid" in done.err.splitlines()[-1] + done.err
    done = desk.call(sys.executable, "-c", "import resweep\nresweep.agent('nosuchid', function=print)", code=1)
    assert "nosuchid" in done.err.splitlines()[-1]
