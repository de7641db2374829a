"""The guard: a tiny process that outlives its agent by a moment and ends what the agent left behind.

It is started as a file, with nothing but the standard library (`python -I -S guard_process.py`), in a session of its
own, deaf to signals, and reads lines from standard input:

    + RUN CLAIM      an attempt is about to be launched
    = CLAIM PGID     its child leads this process group
    - CLAIM          it ended: end what is left of it, soon

At the end of input the agent is gone, even if by SIGKILL: every group that is known is killed, and (on Linux) every
process whose environment carries the claim of an attempt, so that grandchildren which left the group die too.
"""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False  # typing is not imported: it would cost start-up time and memory
if TYPE_CHECKING:
    from collections.abc import Iterator

COALESCE = 1.0
"""Seconds between the end of an attempt and the search for its leftovers, so that short runs share one search."""
SHARE = 20.0
"""A search is followed by a pause of this many times its length: at most 5 % of one core."""
PATIENCE = 3.0
"""Seconds after which a last search that still finds processes gives up."""
QUIET_SEARCHES = 3
"""A last search is over when this many in a row found nothing: a child between fork and exec still looks like us."""


def process_environments() -> Iterator[tuple[int, bytes]]:
    """Yield (pid, environment) of every process that we may look at; nothing where there is no /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    yield int(name), file.read()
            except OSError:
                continue


def marked_processes(claims: dict[bytes, bytes]) -> Iterator[int]:
    """The processes that carry one of `claims` ({claim: run id}); those that have ended carry nothing."""
    marks = [(b"\0RESWEEP_CLAIM=%s\0" % claim, b"\0WANDB_RUN_ID=%s\0" % run) for claim, run in claims.items()]
    for pid, environment in process_environments():
        if b"RESWEEP_CLAIM=" not in environment or pid == os.getpid():
            continue
        text = b"\0" + environment + b"\0"
        if any(claim in text and run in text for claim, run in marks):
            yield pid


def kill_marked(claims: dict[bytes, bytes]) -> int:
    """Kill the processes that carry one of `claims` ({claim: run id}); return how many there were."""
    killed = 0
    for pid in marked_processes(claims):
        try:
            os.kill(pid, signal.SIGKILL)
            killed += 1
        except OSError:
            continue
    return killed


class Guard:
    """What the guard knows: the attempts that run, and those whose leftovers it still has to look for."""

    def __init__(self) -> None:
        self.runs: dict[bytes, bytes] = {}
        self.groups: dict[bytes, int] = {}
        self.ended: dict[bytes, bytes] = {}
        self.due: float | None = None

    def hear(self, line: bytes, now: float) -> None:
        """Take in one line of the agent."""
        words = line.split()
        if words[:1] == [b"+"] and len(words) == 3:
            self.runs[words[2]] = words[1]
        elif words[:1] == [b"="] and len(words) == 3 and words[1] in self.runs:
            self.groups[words[1]] = int(words[2])
        elif words[:1] == [b"-"] and len(words) == 2:
            self.groups.pop(words[1], None)
            run = self.runs.pop(words[1], None)
            if run is not None:
                self.ended[words[1]] = run
                self.due = now + COALESCE if self.due is None else self.due

    def sweep(self, now: float) -> float | None:
        """End the leftovers of attempts that ended, when it is time; return the time of the next search or None."""
        if self.due is None or now < self.due:
            return self.due
        found = kill_marked(self.ended)
        took = time.monotonic() - now
        if found:
            self.due = now + took + max(COALESCE, SHARE * took)
        else:
            self.ended.clear()
            self.due = None
        return self.due

    def end_all(self) -> None:
        """The agent is gone: end everything."""
        for group in self.groups.values():
            try:
                os.killpg(group, signal.SIGKILL)
            except OSError:
                continue
        claims = {**self.runs, **self.ended}
        # Nothing is between fork and exec when no attempt runs: one search that finds nothing is enough then.
        enough = QUIET_SEARCHES if self.runs else 1
        deadline = time.monotonic() + PATIENCE
        quiet = 0 if claims else enough
        while quiet < enough and time.monotonic() < deadline:
            quiet = 0 if kill_marked(claims) else quiet + 1
            if quiet < enough:
                time.sleep(0.05)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    guard = Guard()
    pending = b""
    while True:
        now = time.monotonic()
        due = guard.sweep(now)
        ready, _, _ = select.select([0], [], [], None if due is None else max(0.0, due - now))
        if not ready:
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            guard.hear(line, time.monotonic())
    guard.end_all()


if __name__ == "__main__":
    main()
