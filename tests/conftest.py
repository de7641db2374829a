"""Fixtures of all tests: a clean environment, servers, and no process left behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support import processes
from support.servers import Server, private_server
from support.waiting import wait_until

from resweep_scheduler.service.server import default_home, server_status, stop_server

processes.adopt_orphans()

# Where the tests were started by nohup, or in the background of a script, these are ignored, and would be so in every
# process of theirs.
for _number, _usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# No test is a race against the clock, of a busy machine least of all. CI tries the same examples each time, so that a
# change is judged by what it changed; on a laptop there are new ones in every run.
settings.register_profile("resweep", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("resweep"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "resweep")


@pytest.fixture(autouse=True)
def no_process_left_behind() -> Iterator[None]:
    """A test that leaves a process behind, a daemon too, fails; the process is killed."""
    before = set(processes.descendants())

    def fresh() -> list[processes.Process]:
        return [process for pid, process in processes.descendants().items() if pid not in before]

    yield
    try:
        wait_until(lambda: not processes.living(fresh()), timeout=10, description="the end of all processes")
    except AssertionError:
        left = processes.living(fresh())
        names = "; ".join(f"{process.pid} {process.command[:150]}" for process in left)
        processes.kill(left)
        pytest.fail(f"left behind: {names}")
    finally:
        processes.reap(fresh())


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets (about 100 bytes), unlike `tmp_path`."""
    directory = Path(tempfile.mkdtemp(prefix="rs-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, short_tmp: Path, no_process_left_behind: None) -> Iterator[None]:
    """No setting of whoever runs the tests reaches them; the embedded server is the test's own, and ends with it.

    Agents ask no metadata service: what answers at its address is the machine's matter. Tests that are about notices
    say so.
    """
    for name in list(os.environ):
        if name.startswith(("RESWEEP_", "WANDB_", "SLURM_", "AWS_", "GCE_")) or name in ("REDIS_URL", "NO_GCE_CHECK"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RESWEEP_HOME", str(short_tmp / "home"))
    monkeypatch.setenv("RESWEEP_NOTICE", "none")
    home = default_home()
    yield
    if server_status(home).running:
        stop_server(home)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A Valkey on TCP of the test's own, with `appendfsync always`."""
    with private_server(tmp_path) as private:
        yield private


@pytest.fixture(scope="session")
def _session_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with private_server(tmp_path_factory.mktemp("shared"), appendfsync="") as private:
        yield private


@pytest.fixture
def shared_server(_session_server: Server) -> Server:
    """A Valkey of the whole session, empty: for tests that neither kill nor configure it."""
    with _session_server.client() as client:
        client.flushall()
        client.script_flush()
    return _session_server
