"""A gateway for W&B's client on this machine, for the children of one agent.

The agent holds the socket: a gateway that dies is started again on the same address, and requests wait meanwhile.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import subprocess
import sys
import threading

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.logs import event

_log = logging.getLogger(__name__)

RESTART_PAUSE = 1.0
"""Seconds before a gateway that has ended is started again."""


class LocalGateway:
    """A gateway on a free port of the loopback interface, which ends with this process.

    Args:
        url: The address of the store, with its password.
    """

    def __init__(self, url: str) -> None:
        if missing := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
            raise AgentError(
                f"--wandb needs {' and '.join(missing)}: pip install 'resweep[gateway]'", ExitCode.COMMAND_NOT_FOUND
            )
        self._environment = {**os.environ, "RESWEEP_URL": url}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._lifeline, self._held = os.pipe()
        self._closing = threading.Event()
        self._process = self._spawn()
        threading.Thread(target=self._keep, name="resweep-gateway", daemon=True).start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """End it."""
        self._closing.set()
        os.close(self._held)
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._lifeline)
        self._listener.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        listener = self._listener.fileno()
        return subprocess.Popen(
            [sys.executable, "-m", "resweep_scheduler.gateway", str(listener), str(self._lifeline)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(listener, self._lifeline),
            process_group=0,
        )

    def _keep(self) -> None:
        while not self._closing.is_set():
            status = self._process.wait()
            if self._closing.wait(RESTART_PAUSE):
                return
            event(_log, logging.WARNING, "gateway-ended", status=status, next="it is started again")
            self._process = self._spawn()
