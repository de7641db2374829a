"""How long a run waits when a cloud says that its machine goes, and what asking the cloud costs.

Each cloud's metadata service is played by this process, at its real address in a network namespace in which an agent
with the default options executes the run; a second agent elsewhere waits for work. Measured are

* the time from the moment at which the service begins to say it (a random one between two questions of the agent) until
  the run is on the run queue, and until the first line of the script runs again under the other agent, against SIGTERM
  to the agent in place of a notice;
* what asking costs: the bytes on the namespace's loopback interface, with the headers of all layers, and the CPU time
  that an idle agent takes more than one that does not ask.

Making a namespace needs root; without it nothing is measured.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import harness
from harness import Figure, Report, Server, Spread
from preemption import Trial, warned

from resweep_scheduler.store import SweepCommand

# The services that the tests play, too.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.metadata import FakeAlibaba, FakeAws, FakeAzure, FakeCloud, FakeGcp, serving_inside

CLOUDS: dict[str, tuple[type[FakeCloud], float, float]] = {
    "aws": (FakeAws, 120.0, 5.0),
    "gcp": (FakeGcp, 30.0, 1.0),
    "azure": (FakeAzure, 30.0, 1.0),
    "alibaba": (FakeAlibaba, 300.0, 10.0),
}
"""By name: who plays it, the seconds that a notice leaves, and those between two questions."""
SETTLED = 3.0  # seconds until an agent has found out where it is


@contextmanager
def machine_of(cloud: FakeCloud) -> Iterator[list[str]]:
    """A machine of the cloud; gives what stands before a command that is run on it."""
    name = f"rsb-{os.urandom(3).hex()}"
    with ExitStack() as stack:
        _ip("netns", "add", name)
        stack.callback(_ip, "netns", "del", name)
        _ip("-n", name, "link", "set", "lo", "up")
        stack.enter_context(serving_inside(cloud, name))
        yield ["ip", "netns", "exec", name]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def noticed(server: Server, name: str) -> tuple[float, float]:
    """Milliseconds from the notice to the queue, and to the script's start under the other agent."""
    kind, lead, interval = CLOUDS[name]
    cloud = kind()
    with ExitStack() as stack:
        prefix = stack.enter_context(machine_of(cloud))
        trial = Trial(server, stack)
        trial.create(lease=60, heartbeat=10)
        trial.pair((), prefix=prefix)
        trial.wait(lambda: len(cloud.asked) > 2, "the agent to find out where it is")
        time.sleep(random.uniform(0, interval))
        told = time.time_ns()
        cloud.raise_notice(lead)
        trial.wait(lambda: len(trial.starts_ns()) == 2, "the run to start elsewhere")
        return trial.queued_ms() - told / 1e6, (trial.starts_ns()[1] - told) / 1e6


def cost(server: Server, name: str, seconds: float) -> tuple[float, float]:
    """Bytes, and seconds of CPU, that asking takes in an hour, by what it takes in so many seconds."""
    cloud = CLOUDS[name][0]()
    with ExitStack() as stack:
        prefix = stack.enter_context(machine_of(cloud))
        trial = Trial(server, stack)
        trial.create(lease=60, heartbeat=10)
        trial.store.command_sweep(trial.sweep_id, SweepCommand.PAUSE)
        # `ip netns exec` becomes the command that it runs.
        agents = [trial.agent("asks", (), prefix=prefix), trial.agent("quiet", ("--notice", "none"), prefix=prefix)]
        for agent in ("asks", "quiet"):
            trial.wait_until_idle(agent)
        time.sleep(SETTLED)
        bytes_before, cpu_before = loopback_bytes(agents[0].pid), [cpu_ns(agent.pid) for agent in agents]
        time.sleep(seconds)
        sent = loopback_bytes(agents[0].pid) - bytes_before
        used = [cpu_ns(agent.pid) - before for agent, before in zip(agents, cpu_before, strict=True)]
        return sent * 3600 / seconds, (used[0] - used[1]) / 1e9 * 3600 / seconds


def loopback_bytes(pid: int) -> int:
    """What was sent over the loopback interface of the process's namespace, by both sides."""
    for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
        name, _, values = line.partition(":")
        if name.strip() == "lo":
            return int(values.split()[8])
    raise RuntimeError(f"process {pid} has no loopback interface")


def cpu_ns(pid: int) -> int:
    """CPU time of the living threads of a process."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def measure(quick: bool) -> Report:
    """Trials in turn."""
    title = "Notices: from a cloud's word to the run elsewhere, and what asking costs"
    if os.geteuid() != 0:
        return Report(title, remarks=["not measured: network namespaces need root"])
    rounds, seconds = (1, 5.0) if quick else (8, 45.0)
    queued: dict[str, list[float]] = {name: [] for name in CLOUDS}
    started: dict[str, list[float]] = {name: [] for name in CLOUDS}
    signals, figures = [], []
    with harness.private_server("always") as server:
        for number in range(rounds):
            harness.say(f"notices: round {number + 1} of {rounds}")
            signals.append(warned(server))
            for name in CLOUDS:
                to_queue, to_start = noticed(server, name)
                queued[name].append(to_queue)
                started[name].append(to_start)
        for what, ours, theirs in (
            ("run-on-the-queue", queued, [to_queue for to_queue, _ in signals]),
            ("started-elsewhere", started, [to_start for _, to_start in signals]),
        ):
            baseline = Spread.of(theirs)
            for name, values in ours.items():
                spread = Spread.of(values)
                above = spread.median - baseline.median
                figures.append(
                    Figure(f"{name} to {what}", "ms", spread, "SIGTERM to the agent", baseline, f"{above:+,.0f} ms")
                )
        for name in CLOUDS:
            harness.say(f"notices: what asking {name} costs")
            sent, used = cost(server, name, seconds)
            figures.append(Figure(f"asking {name}, traffic", "KB/h", Spread.of([sent / 1000])))
            figures.append(Figure(f"asking {name}, CPU", "s/h", Spread.of([used])))
    intervals = ", ".join(f"{name} {interval:g} s" for name, (_, _, interval) in CLOUDS.items() if name != "gcp")
    return Report(
        title,
        figures,
        [
            f"questions are asked every: {intervals}; GCP's server answers a question when there is something to say",
            f"asking: measured over {seconds:g} s and scaled to an hour; CPU: of one that asks, less one that does not",
        ],
    )


if __name__ == "__main__":
    harness.main(measure, __doc__)
