"""`resweep start` and `create` as processes, with real agents and a real server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from support.servers import Server
from support.waiting import wait_until

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.store import RunState, Store, UnknownSweepError, open_sweep

RESWEEP = [sys.executable, "-c", "from resweep_scheduler.cli.main import main; main()"]

CONFIG = """\
program: train.py
method: grid
parameters:
  lr: {{values: {values}}}
preemption: {{grace: 5}}
lease: {{duration: 6, heartbeat: 1}}
"""

QUICK = "import sys\nprint('trained', sys.argv[1])\nsys.exit(3 if sys.argv[1] == '--lr=13' else 0)\n"

# Runs until the file `go` is there, then ends with 0.
PATIENT = """\
import pathlib, time
while not pathlib.Path('go').exists():
    time.sleep(0.01)
"""

STUBBORN = f"""\
import pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path('deaf').touch()
{PATIENT}"""


@pytest.fixture
def folder(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the server of the test in RESWEEP_URL."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("RESWEEP_URL", server.url)
    return directory


def write(folder: Path, script: str, values: Sequence[int] = (1, 2, 3)) -> None:
    (folder / "sweep.yaml").write_text(CONFIG.format(values=list(values)))
    (folder / "train.py").write_text(script)


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RESWEEP, *words], capture_output=True, text=True, timeout=240, check=False)


class Started:
    """A `resweep start` that goes on beside the test."""

    def __init__(self, server: Server, *words: str) -> None:
        self._server = server
        self.process = subprocess.Popen(
            [*RESWEEP, "start", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def running(self, number: int) -> tuple[Store, str]:
        """Wait until `number` runs are running; returns where they are."""

        def look() -> tuple[Store, str] | None:
            with self._server.client() as client:
                sweeps = list(client.hgetall("resweep:sweeps"))
            if not sweeps:
                return None
            store, sweep_id = open_sweep(self._server.url, sweeps[0])
            try:
                counts = store.sweep(sweep_id).counts
            except UnknownSweepError:  # its id is noted first
                return None
            return (store, sweep_id) if counts[RunState.RUNNING] == number else None

        found = wait_until(look, timeout=90, description=f"{number} running runs")
        assert found is not None
        return found

    def agents(self) -> list[int]:
        """Process ids of its agents."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def end(self) -> tuple[int, str]:
        """Wait for its end; returns exit code and output."""
        output, _ = self.process.communicate(timeout=120)
        return self.process.returncode, output


Start = Callable[..., Started]


@pytest.fixture
def start(server: Server, folder: Path) -> Iterator[Start]:
    """Starts `resweep start`; whatever is left at the end of the test is ended."""
    started: list[Started] = []

    def make(*words: str) -> Started:
        started.append(Started(server, *words))
        return started[-1]

    yield make
    for one in started:
        if one.process.poll() is None:
            with suppress(OSError):
                for agent in one.agents():
                    os.kill(agent, signal.SIGKILL)
            one.process.kill()
            one.process.communicate()


def test_create_prints_what_wandb_prints(folder: Path) -> None:
    write(folder, QUICK)
    done = call("create", "sweep.yaml", "--project", "digits", "--entity", "lab")
    assert done.returncode == 0
    first, second, third = done.stdout.splitlines()
    assert first == "Creating sweep from: sweep.yaml"
    found = re.fullmatch(r"Created sweep with ID: ([a-z0-9]{8})", second)
    assert found is not None
    assert third == f"Run agents with: sweep-agent lab/digits/{found[1]}"
    quiet = call("create", "-q", "sweep.yaml", "--name", "mine", "--id", "my-sweep")
    assert quiet.stdout == "my-sweep\n"
    shown = json.loads(call("show", "my-sweep", "--json").stdout)
    assert (shown["name"], shown["state"]) == ("mine", "pending")
    taken = call("create", "sweep.yaml", "--id", "my-sweep")
    assert taken.returncode == ExitCode.ILLEGAL_STATE
    assert "'my-sweep' exists" in taken.stderr


def test_create_with_a_program_and_from_standard_input(folder: Path) -> None:
    text = "method: grid\nparameters: {a: {values: [1]}}\n"
    done = subprocess.run(
        [*RESWEEP, "create", "-", "-q", "--program", "other.py"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "'other.py' is not in" in done.stderr
    shown = json.loads(call("show", done.stdout.strip(), "--json").stdout)
    assert shown["config"]["program"] == "other.py"


def test_create_names_the_url_but_no_password(folder: Path, server: Server) -> None:
    write(folder, QUICK)
    assert f"sweep-agent --url {server.url} local/" in call("create", "sweep.yaml", "--url", server.url).stdout
    with server.client() as client:
        client.config_set("requirepass", "sesame")
    url = server.url.replace("redis://", "redis://:sesame@")
    output = call("create", "sweep.yaml", "--url", url).stdout
    assert "sesame" not in output
    assert "RESWEEP_URL=" in output


def test_start_runs_a_sweep_to_its_end(folder: Path) -> None:
    write(folder, QUICK)
    done = call("start", "sweep.yaml")
    assert done.returncode == ExitCode.OK, done.stderr
    assert "3 finished" in done.stdout
    assert "finished   [3/3]" in done.stdout
    sweep_id = json.loads(call("ls", "--json").stdout)[0]["id"]
    assert f"resweep show {sweep_id}" in done.stderr
    runs = json.loads(call("runs", sweep_id, "--json").stdout)
    assert [(one["state"], one["attempt"]) for one in runs] == [("finished", 1)] * 3
    assert call("logs", runs[0]["id"]).stdout == "trained --lr=1\n"
    again = call("start", sweep_id)
    assert again.returncode == ExitCode.OK
    assert "3 finished" in again.stdout


def test_start_ends_with_9_when_runs_failed_and_says_how_to_retry(folder: Path) -> None:
    write(folder, QUICK, values=[1, 13])
    done = call("start", "sweep.yaml")
    assert done.returncode == ExitCode.RUNS_FAILED
    assert "1 run failed or crashed" in done.stderr
    sweep_id = json.loads(call("ls", "--json").stdout)[0]["id"]
    write(folder, PATIENT)
    (folder / "go").touch()
    assert call("retry", sweep_id, "--failed").returncode == 0
    assert call("start", sweep_id).returncode == ExitCode.OK


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.PREEMPTED)]
)
def test_a_signal_puts_the_runs_on_the_queue_and_start_goes_on(
    folder: Path, start: Start, number: int, code: ExitCode
) -> None:
    write(folder, PATIENT)
    started = start("sweep.yaml", "--agents", "2")
    store, sweep_id = started.running(2)
    started.process.send_signal(number)
    status, output = started.end()
    assert status == code
    assert f"resweep start {sweep_id}" in output
    queue = store.sweep(sweep_id).queue
    assert len(queue) == 2
    (folder / "go").touch()
    assert call("start", sweep_id).returncode == ExitCode.OK
    runs = {one.run_id: one for one in store.runs(sweep_id)}
    assert len(runs) == 3
    assert all(one.state is RunState.FINISHED for one in runs.values())
    assert [runs[run_id].attempt for run_id in queue] == [2, 2]


def test_a_second_ctrl_c_ends_everything_at_once(folder: Path, start: Start) -> None:
    write(folder, STUBBORN, values=[1])
    started = start("sweep.yaml", "--agents", "1")
    store, sweep_id = started.running(1)
    wait_until((folder / "deaf").exists, timeout=60, description="a script that ignores SIGTERM")
    started.process.send_signal(signal.SIGINT)
    wait_until(
        lambda: store.sweep(sweep_id).counts[RunState.PREEMPTING], timeout=60, description="the notice to be recorded"
    )
    started.process.send_signal(signal.SIGINT)
    status, output = started.end()
    assert status == ExitCode.INTERRUPTED
    assert "were killed" in output


def test_a_command_that_is_not_found(folder: Path) -> None:
    (folder / "sweep.yaml").write_text("command: [no-such-program]\nmethod: grid\nparameters: {a: {values: [1]}}\n")
    done = call("start", "sweep.yaml")
    assert done.returncode == ExitCode.COMMAND_NOT_FOUND
    assert "no-such-program" in done.stderr
    assert "go on with: resweep start" in done.stderr


def test_agents_that_were_killed(folder: Path, start: Start) -> None:
    write(folder, PATIENT, values=[1])
    started = start("sweep.yaml", "--agents", "1")
    _, sweep_id = started.running(1)
    for agent in started.agents():
        os.kill(agent, signal.SIGKILL)
    status, output = started.end()
    assert status == ExitCode.UNEXPECTED
    assert "was ended by SIGKILL" in output
    assert f"go on with: resweep start {sweep_id}" in output


def test_start_outlives_a_redis_that_goes_away(folder: Path, start: Start, server: Server) -> None:
    write(folder, PATIENT, values=[1, 2])
    started = start("sweep.yaml", "--agents", "2")
    store, sweep_id = started.running(2)
    server.kill()
    assert started.process.stdout is not None
    seen = ""
    while "Redis is away" not in seen:
        line = started.process.stdout.readline()
        assert line, seen
        seen += line
    server.start()
    (folder / "go").touch()
    status, output = started.end()
    assert status == ExitCode.OK, seen + output
    assert "Redis is back" in output
    assert [(one.state, one.attempt) for one in store.runs(sweep_id)] == [(RunState.FINISHED, 1)] * 2


def test_start_on_a_terminal_draws_and_leaves_the_result(folder: Path) -> None:
    write(folder, QUICK)
    terminal, inside = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONUTF8": "1"}
    process = subprocess.Popen([*RESWEEP, "start", "sweep.yaml"], stdout=inside, stderr=inside, env=environment)
    os.close(inside)
    shown = b""
    with suppress(OSError):  # Linux: EIO is the end of a terminal whose other side is closed
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert process.wait(60) == 0
    text = shown.decode()
    assert "\x1b[" in text, "there is colour"
    assert "3 of 3" in text, "the bar was drawn"
    assert "3 finished" in text.splitlines()[-4] + text.splitlines()[-3], "the picture is gone, the result stays"
