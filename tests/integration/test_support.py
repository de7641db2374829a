"""The tests' own tools: what waits, what starts servers, what finds processes left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import processes, servers
from support.agents import AgentProcess
from support.children import HELPERS
from support.servers import PORTS, Server, free_port, private_server, require
from support.waiting import wait_until

ROOT = Path(__file__).parents[1]


def test_wait_until_returns_what_it_waited_for() -> None:
    answers = iter([0, "", None, "here"])
    assert wait_until(lambda: next(answers), interval=0, description="an answer") == "here"


def test_wait_until_says_what_it_waited_for_in_vain() -> None:
    with pytest.raises(AssertionError, match=r"^waited 0 s for a miracle; the last answer was \[\]$"):
        wait_until(list, timeout=0, interval=0, description="a miracle")


def test_what_must_be_there_skips_on_a_laptop_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        require("no-such-program")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must have it"):
        require("no-such-program")
    assert Path(require("sh")).is_file()


def test_a_port_that_is_taken_is_not_offered(server: Server) -> None:
    assert server.port in PORTS
    assert server.port not in {free_port() for _ in range(200)}


def test_a_port_is_given_to_one_process_only_though_nothing_listens_there_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    few = range(11000, 11060)  # so few that another process that knew of nothing would meet some of ours
    monkeypatch.setattr(servers, "PORTS", few)
    ours = [free_port() for _ in range(20)]
    script = f"from support import servers; servers.PORTS = {few!r}; print(*(servers.free_port() for _ in range(20)))"
    command = [sys.executable, "-c", script]
    theirs = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    assert len({*ours, *map(int, theirs.stdout.split())}) == 40


def test_a_server_keeps_data_and_address_over_kill_stop_and_freeze(server: Server) -> None:
    first, url = server.pid, server.url
    with server.client() as client:
        client.set("a", "1")
    server.kill()
    assert not server.running
    assert not processes.alive(first)
    server.start()
    server.freeze()
    server.stop()
    assert not server.running
    server.start()
    assert (server.url, server.pid == first) == (url, False)
    with server.client() as client:
        assert client.get("a") == "1"


def test_a_server_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    start = private_server(tmp_path, extra=["--nonsense", "1"])
    with pytest.raises(AssertionError, match=r"(?s)the server ended at its start:.*nonsense"):
        start.__enter__()


def test_an_agent_answers_for_its_own_output_and_not_for_that_of_an_earlier_one_of_its_name(tmp_path: Path) -> None:
    printed = []
    for word in ("first", "second"):
        agent = AgentProcess(
            "a", ["echo", word], environment=os.environ, directory=tmp_path, log=tmp_path / "agent-a.log"
        )
        assert agent.wait() == 0
        printed.append(agent.printed())
    assert printed == ["first\n", "second\n"]


@pytest.mark.skipif(sys.platform != "linux", reason="zombies are told by /proc")
def test_a_zombie_does_not_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.alive(child.pid)
    child.wait()
    assert not processes.alive(child.pid)


LEAKY = """
import subprocess

def test_leaks():
    subprocess.run(["/bin/sh", "-c", "sleep 300 &"], check=True)

def test_leaks_nothing():
    assert True
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found by /proc")
def test_a_daemon_left_behind_fails_the_test_and_is_killed(tmp_path: Path) -> None:
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-o",
        f"pythonpath={ROOT}",
        "--rootdir",
        ".",
        ".",
    ]
    outcome = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "2 passed, 1 error" in outcome.stdout, outcome.stdout
    left = next(line for line in outcome.stdout.splitlines() if line.startswith("E ") and "left behind: " in line)
    pid = int(left.partition("left behind: ")[2].split()[0])
    assert "sleep 300" in left
    assert not processes.alive(pid)


def test_the_environment_of_tests_is_clean(short_tmp: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if name.startswith(("RESWEEP_", "WANDB_"))}
    assert settings == {"RESWEEP_HOME": str(short_tmp / "home"), "RESWEEP_NOTICE": "none"}
    assert "REDIS_URL" not in os.environ


TOLD_TWICE = (
    HELPERS
    + """
rename = Path.rename

def interrupted(self, target):
    Path.rename = rename
    trace("told", count=2)
    return rename(self, target)

Path.rename = interrupted
trace("told", count=1)
"""
)


def test_a_child_may_be_interrupted_by_a_signal_whose_handler_tells_the_same(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", TOLD_TWICE], cwd=tmp_path, check=True, timeout=30)
    assert json.loads((tmp_path / "told.json").read_text())["count"] == 1
