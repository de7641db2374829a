"""A gateway of a test's own, and the folder of a user who works with the real `wandb` client against it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from support.desk import Done
from support.servers import free_port
from support.waiting import wait_until
from support.wandb_sdks import Sdk

NO_KEY = "a" * 40
"""What the client takes for a key where the gateway asks for none."""
LIMIT = 120.0
"""Seconds that no command of these tests may take."""


class Gateway:
    """`resweep serve` on an address that outlives the process.

    Attributes:
        url: Of the gateway.
        redis_url: Of the store.
    """

    def __init__(self, folder: Path, redis_url: str, *options: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_url = redis_url
        self.log = folder / f"gateway-{self.port}.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = Path(sys.executable).with_name("resweep")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), "serve", "--port", str(self.port), *self._options],
                env={**os.environ, "RESWEEP_URL": self.redis_url},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, timeout=30, interval=0.05, description=f"the gateway: {self.printed()}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the gateway ended at its start: {self.printed()}"
        with suppress(OSError):  # refused, or too busy to answer in time
            urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()
            return True
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; nothing of it is left, for it keeps nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)

    def printed(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@contextmanager
def gateway_to(redis_url: str, folder: Path, *options: str) -> Iterator[Gateway]:
    """A gateway that is gone at the end of the block."""
    gateway = Gateway(folder, redis_url, *options)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()


class Workplace:
    """A folder on some machine where somebody runs scripts and commands of W&B's client.

    Attributes:
        folder: Where everything runs; another workplace plays another machine.
        environment: Set for every command.
    """

    def __init__(self, folder: Path, sdk: Sdk, url: str, *, key: str = NO_KEY) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.sdk = sdk
        self.environment = {
            **os.environ,
            "PATH": f"{sdk.programs}:{os.environ.get('PATH', '')}",
            "HOME": str(folder),
            "WANDB_BASE_URL": url,
            "WANDB_API_KEY": key,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL": "1",
        }
        self._started: list[Started] = []

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return path

    def call(self, *words: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
        """Run a command to its end; `code` is what it must end with, None for anything."""
        ended = subprocess.run(
            words, cwd=self.folder, env={**self.environment, **(env or {})}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT, check=False,
        )  # fmt: skip
        done = Done(ended.returncode, ended.stdout, ended.stderr)
        assert code is None or done.code == code, f"{words} ended with {done.code}, not {code}:\n{done.out}\n{done.err}"
        return done

    def python(self, script: str, *words: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
        return self.call(self.sdk.python, script, *words, env=env, code=code)

    def wandb(self, *words: str, env: Mapping[str, str] | None = None, code: int | None = 0) -> Done:
        """Run the `wandb` command to its end."""
        return self.call(self.sdk.wandb, *words, env=env, code=code)

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> Started:
        """Start a command, and go on."""
        log = self.folder / f"started-{len(self._started)}.log"
        started = Started(words, log, self.folder, {**self.environment, **(env or {})})
        self._started.append(started)
        return started

    def end(self) -> None:
        """Kill what was started and is left, with everything below it."""
        for started in self._started:
            started.kill()


class Started:
    """A command that runs, the leader of a process group; what it prints goes to a file."""

    def __init__(self, words: tuple[str, ...], log: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                words, cwd=folder, env=dict(environment), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the whole session, as when a machine is gone."""
        from support import processes

        tree, below = [self.pid], processes.descendants()
        for pid in tree:
            tree += [child.pid for child in below.values() if child.parent == pid and child.pid not in tree]
        for pid in tree:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(60)

    def wait(self, timeout: float = LIMIT) -> int:
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended in {timeout:g} s; it printed:\n{self.printed()}") from None

    def printed(self) -> str:
        return self.log.read_text(errors="replace")


@contextmanager
def workplace(folder: Path, sdk: Sdk, url: str, *, key: str = NO_KEY) -> Iterator[Workplace]:
    """A workplace that is left tidy."""
    place = Workplace(folder, sdk, url, key=key)
    try:
        yield place
    finally:
        place.end()
