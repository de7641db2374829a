"""The store's own scripts on a real server, under a clock that the benchmark sets.

Nothing of a script is changed. Before it stands a `redis.call` that answers TIME with the time that came along with the
arguments, and gives new entries of streams this time in place of the server's.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from resweep_scheduler.store import Scope, Store
from resweep_scheduler.store.connect import Client
from resweep_scheduler.store.scripts import Script, decode_reply, encode_arguments, load_script

EXPECTED: dict[str, dict[str, Any]] = {
    "release": {"outcome": "ok"},
    **{name: {"hold": "owner"} for name in ("heartbeat", "log", "commit_checkpoint", "mark_preempting", "end_attempt")},
}
"""What an owner is answered, as far as the simulation must know it."""

LONGEST_FLIGHT = 200

_CLOCK = """
local server, ms = redis, string.match(ARGV[1], '"virtual_ms": ?(%d+)')
local redis = { call = function(name, key, id, ...)
  if name == 'TIME' then return { string.sub(ms, 1, -4), string.sub(ms, -3) .. '000' } end
  if name == 'XADD' and id == '*' then return server.call(name, key, ms .. '-*', ...) end
  if id == nil then return server.call(name, key) end
  return server.call(name, key, id, ...)
end }
"""


class VirtualClock:
    """Milliseconds since the epoch; it stands still unless it is moved."""

    def __init__(self, ms: int = 1_800_000_000_000) -> None:
        self.start = self.ms = ms

    @property
    def seconds(self) -> float:
        """Since the start."""
        return (self.ms - self.start) / 1000

    def move_to(self, seconds: float) -> None:
        """Never back: streams do not take older entries."""
        self.ms = max(self.ms, self.start + round(seconds * 1000))


@cache
def _with_clock(name: str) -> Script:
    text = _CLOCK + load_script(name).text
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class VirtualStore(Store):
    """A store whose scripts run at the time of a clock.

    Calls whose answer is known wait for the next one whose answer is not, and go with it in one flight, in their order
    and each at its own time.

    Attributes:
        calls: How many there were.
    """

    def __init__(self, client: Client, scope: Scope, clock: VirtualClock) -> None:
        super().__init__(client, scope)
        self.clock = clock
        self.calls = 0
        self._waiting: list[tuple[str, str, str]] = []

    def _run_script(self, name: str, key: str, **arguments: Any) -> dict[str, Any]:
        text = encode_arguments({"prefix": self.keys.prefix, "virtual_ms": self.clock.ms, **arguments})
        self.calls += 1
        self._waiting.append((name, key, text))
        if name in EXPECTED and len(self._waiting) < LONGEST_FLIGHT:
            return EXPECTED[name]
        return self.flush()[-1]

    def flush(self) -> list[dict[str, Any]]:
        """Sends what waits.

        Raises:
            RuntimeError: An answer is another one than was expected.
        """
        flight, self._waiting = self._waiting, []

        def fill(pipe: Any) -> None:
            for name, key, text in flight:
                pipe.evalsha(_with_clock(name).sha, 1, key, text)

        answers = [decode_reply(answer) for answer in self._read(fill)] if flight else []
        for (name, _, text), answer in zip(flight, answers, strict=True):
            if name in EXPECTED and answer.get("hold") in ("stale", "ended", "lapsed"):
                raise RuntimeError(f"the simulation is wrong: {name} of an owner was answered {answer}: {text}")
        return answers

    def load(self) -> None:
        """Brings all scripts to the server, for those who call them by their SHA1."""
        for path in (files("resweep_scheduler.store") / "lua").iterdir():
            if path.name.endswith(".lua"):
                self.client.script_load(_with_clock(path.name.removesuffix(".lua")).text)
