"""Bad input: each is one line that says what and what to do, ends with a named code, and loses nothing."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.servers import Server, free_port, private_server
from support.sweeps import GRID, Story

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.main import run

LineOf = Callable[..., str]


@pytest.fixture
def line_of(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LineOf:
    """Runs a command line that must end with a code, and returns its one line on stderr."""
    (tmp_path / "sweep.yaml").write_text(GRID)
    (tmp_path / "train.py").write_text("")
    monkeypatch.chdir(tmp_path)

    def call(code: ExitCode, *words: str) -> str:
        capsys.readouterr()
        assert run(words) == code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1, captured.err
        assert captured.err.startswith("error: ")
        return captured.err.strip()

    return call


@pytest.fixture
def story(shared_server: Server, monkeypatch: pytest.MonkeyPatch) -> Story:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    return Story(shared_server.url)


ON_A_SWEEP = ("show", "runs", "best", "missing", "watch", "pause", "resume", "stop", "cancel", "export", "start")


@pytest.mark.parametrize("command", ON_A_SWEEP)
def test_unknown_sweep(story: Story, line_of: LineOf, command: str) -> None:
    line = line_of(ExitCode.UNKNOWN, command, "nosuchid")
    assert "'nosuchid'" in line
    assert "`resweep ls`" in line


@pytest.mark.parametrize("command", ["run", "logs", "history"])
def test_unknown_run(story: Story, line_of: LineOf, command: str) -> None:
    line = line_of(ExitCode.UNKNOWN, command, "nosuchid")
    assert "'nosuchid'" in line
    assert "`resweep runs SWEEP`" in line


@pytest.mark.parametrize("words", [["other/{}"], ["lab/other/{}"], ["{}", "--project", "other"]])
def test_wrong_project_names_the_right_one(story: Story, line_of: LineOf, words: list[str]) -> None:
    line = line_of(ExitCode.UNKNOWN, "show", *(word.format(story.sweep_id) for word in words))
    assert f"local/uncategorized/{story.sweep_id}" in line


@pytest.mark.parametrize("path", ["a/b/c/d", "/x", "x/"])
def test_a_path_that_is_none(story: Story, line_of: LineOf, path: str) -> None:
    assert "ENTITY/PROJECT/SWEEP" in line_of(ExitCode.USAGE, "show", path)
    assert "ENTITY/PROJECT/RUN" in line_of(ExitCode.USAGE, "run", path)


@pytest.mark.parametrize("run_id", ["a:b", "x?", "{}"])
def test_a_run_id_that_cannot_be_one(story: Story, line_of: LineOf, run_id: str) -> None:
    assert "Run ID cannot contain" in line_of(ExitCode.USAGE, "run", run_id)


@pytest.mark.parametrize("state", ["paused", "canceled", "stopped"])
def test_start_of_a_sweep_that_does_not_run(story: Story, line_of: LineOf, state: str) -> None:
    run([{"paused": "pause", "canceled": "cancel", "stopped": "stop"}[state], story.sweep_id])
    line = line_of(ExitCode.ILLEGAL_STATE, "start", story.sweep_id)
    assert f"is {state}" in line
    assert f"resweep resume {story.sweep_id}" in line


@pytest.mark.parametrize("command", ["create", "start", "validate"])
def test_bad_yaml_tells_all_faults_and_makes_no_sweep(
    shared_server: Server,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    file = tmp_path / "sweep.yaml"
    file.write_text("program: train.py\nmethod: gird\nparameters:\n  lr: {min: 2, max: 1}\n")
    assert run([command, str(file)]) == ExitCode.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ", 2)[1] for line in lines] == [f"{file}:2:9", f"{file}:4:13"]
    with shared_server.client() as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("command", ["create", "start", "validate"])
def test_no_such_file(line_of: LineOf, command: str, tmp_path: Path) -> None:
    line = line_of(ExitCode.USAGE, command, "absent.yaml")
    assert "absent.yaml" in line
    assert str(tmp_path) in line


def test_missing_program_stops_start_before_a_sweep_is_made(
    shared_server: Server, line_of: LineOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESWEEP_URL", shared_server.url)
    (tmp_path / "train.py").unlink()
    line = line_of(ExitCode.COMMAND_NOT_FOUND, "start", "sweep.yaml")
    assert "'train.py'" in line
    assert str(tmp_path) in line
    with shared_server.client() as client:
        assert client.dbsize() == 0


def test_missing_program_that_lies_beside_the_config(
    line_of: LineOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert f"cd {tmp_path} first" in line_of(ExitCode.COMMAND_NOT_FOUND, "start", "../sweep.yaml")


COMMANDS = (
    ["ls"],
    ["show", "abc"],
    ["run", "abc"],
    ["create", "sweep.yaml"],
    ["start", "sweep.yaml"],
    ["pause", "abc"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_unreachable_redis(line_of: LineOf, words: list[str]) -> None:
    port = free_port()
    line = line_of(ExitCode.REDIS_UNAVAILABLE, "--url", f"redis://:secret@127.0.0.1:{port}", *words)
    assert f"127.0.0.1:{port} cannot be reached" in line
    assert "secret" not in line


@pytest.fixture
def guarded_server(tmp_path: Path) -> Iterator[Server]:
    with private_server(tmp_path, extra=["--requirepass", "sesame"]) as server:
        yield server


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_password_protected_redis(guarded_server: Server, line_of: LineOf, words: list[str]) -> None:
    assert "password" in line_of(ExitCode.REDIS_REFUSED, "--url", guarded_server.url, *words)
    wrong = guarded_server.url.replace("redis://", "redis://:hunter2@")
    line = line_of(ExitCode.REDIS_REFUSED, "--url", wrong, *words)
    assert "password" in line
    assert "hunter2" not in line


def test_redis_without_lua_rights(server: Server, line_of: LineOf) -> None:
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "plain", "on", ">pw", "~*", "&*", "+@all", "-@scripting")
    url = server.url.replace("redis://", "redis://plain:pw@")
    assert "+@scripting" in line_of(ExitCode.REDIS_REFUSED, "--url", url, "create", "sweep.yaml")


def test_redis_out_of_memory(server: Server, line_of: LineOf) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1")
        client.config_set("maxmemory-policy", "noeviction")
    assert "maxmemory" in line_of(ExitCode.REDIS_REFUSED, "--url", server.url, "create", "sweep.yaml")


def test_read_only_replica(tmp_path: Path, server: Server, line_of: LineOf) -> None:
    with private_server(tmp_path, extra=["--replicaof", "127.0.0.1", str(server.port)]) as replica:
        line = line_of(ExitCode.REDIS_REFUSED, "--url", replica.url, "create", "sweep.yaml")
    assert "read-only replica" in line


def test_redis_that_is_too_old(line_of: LineOf) -> None:
    """A server that knows no Lua, as Redis before 2.6 and many that only speak its protocol."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=_know_nothing, args=(listener,), daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        line = line_of(ExitCode.REDIS_REFUSED, "--url", url, "create", "sweep.yaml")
    assert "Redis 6.2 or later" in line


def _know_nothing(listener: socket.socket) -> None:
    """Answer each request of each connection, one after the other, with `unknown command`."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # the listener is closed: the test is over
            return
        with connection:
            while connection.recv(65536):
                connection.sendall(b"-ERR unknown command 'HSETNX'\r\n")


@pytest.mark.parametrize("url", ["http://localhost", "redis://host:port", "localhost:6379"])
def test_a_url_that_is_none(line_of: LineOf, url: str) -> None:
    assert "is no address of a server" in line_of(ExitCode.USAGE, "--url", url, "ls")


def test_a_command_that_is_none(line_of: LineOf) -> None:
    assert "did you mean 'show'" in line_of(ExitCode.USAGE, "shwo")


def test_names_that_cannot_be_keys(shared_server: Server, line_of: LineOf) -> None:
    line = line_of(ExitCode.USAGE, "--url", shared_server.url, "create", "sweep.yaml", "--project", "a{b}")
    assert "'a{b}'" in line
    line = line_of(ExitCode.USAGE, "--url", shared_server.url, "create", "sweep.yaml", "--id", "no/id")
    assert "'no/id'" in line


def test_embedded_server_that_cannot_run(line_of: LineOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RESWEEP_HOME", str(tmp_path / "train.py"))
    assert "RESWEEP_HOME" in line_of(ExitCode.REDIS_UNAVAILABLE, "ls")


def test_a_reader_that_goes_away_is_no_error(story: Story) -> None:
    """`resweep schema | head -1` ends in silence."""
    command = f"{sys.executable} -c 'from resweep_scheduler.cli.main import main; main()' schema | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{", "")
