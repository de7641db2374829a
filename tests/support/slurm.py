"""A SLURM of a test's own: virtual nodes on this machine, a queue that may be preempted and one that preempts it.

Jobs of the partition `low` are requeued when a job of the partition `high` needs their nodes. SIGKILL follows SIGTERM
after `kill_wait` seconds. It needs the programs of Debian's slurmctld, slurmd, slurm-client and munge; neither root nor
systemd, cgroups or a database.
"""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import processes
from support.servers import free_port, require
from support.waiting import wait_until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
LIMIT = 20.0
"""Seconds that no command of SLURM may take."""
PATIENCE = 90.0
"""Seconds in which SLURM does what it is to do, on a busy machine too."""

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# A job that was requeued waits as long as its credential lives; 5 s is the least.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
TaskProlog={folder}/prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=10000,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait}
ReturnToService=2
MailProg=/bin/true
SlurmdParameters=config_overrides
{nodes}
PartitionName=low  Nodes=ALL Default=YES PriorityTier=1  PreemptMode=REQUEUE GraceTime={grace} MaxTime=INFINITE State=UP
PartitionName=high Nodes=ALL             PriorityTier=10 PreemptMode=OFF                       MaxTime=INFINITE State=UP
{warning}
"""

# Nodes have a file system of their own for temporary files; ours share this machine's.
PROLOG = """\
#!/bin/sh
mkdir -p {folder}/tmp-$SLURMD_NODENAME
echo export TMPDIR={folder}/tmp-$SLURMD_NODENAME
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, or a task of an array, as SLURM's queue shows it.

    Attributes:
        job: `7`, or `7_2` for a task of an array.
        state: "PENDING", "RUNNING", "COMPLETING", …
        node: Where it runs; empty while it waits.
        reason: Why it waits.
    """

    job: str
    state: str
    node: str
    reason: str


class Slurm:
    """A cluster that runs.

    Attributes:
        folder: Its files and logs.
        nodes: "n1", "n2", …; each has 2 cores.
        environment: What a command of SLURM needs to find it.
    """

    def __init__(self, folder: Path, nodes: int, *, kill_wait: int, grace: int) -> None:
        self.folder = folder
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._kill_wait = kill_wait
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._known = set(processes.descendants())
        self._programs = {program: require(program) for program in PROGRAMS}
        host = socket.gethostname().partition(".")[0]
        ports = [free_port() for _ in range(nodes + 1)]
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=1000 State=UNKNOWN"
            for name, port in zip(self.nodes, ports[1:], strict=True)
        ]
        config = CONFIG.format(
            host=host, user=getpass.getuser(), folder=folder, port=ports[0], kill_wait=kill_wait, grace=grace,
            nodes="\n".join(lines), warning=self._warning() if grace else "",
        )  # fmt: skip
        (folder / "slurm.conf").write_text(config)
        (folder / "prolog").write_text(PROLOG.format(folder=folder))
        (folder / "prolog").chmod(0o755)
        (folder / "state").mkdir()
        for name in self.nodes:
            (folder / f"spool-{name}").mkdir()

    # -- what a person does ------------------------------------------------------------------------------------------

    def call(self, *words: str, text: str = "", environment: Mapping[str, str] | None = None) -> str:
        """Run a command of SLURM and return what it prints."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment, **(environment or {})}, input=text, capture_output=True,
            text=True, timeout=LIMIT, check=False, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}"
        return done.stdout.strip()

    def submit(self, script: str, *options: str, environment: Mapping[str, str] | None = None) -> str:
        """Submit a batch script; returns the job's number."""
        return self.call("sbatch", "--parsable", *options, text=script, environment=environment)

    def occupy(self, *nodes: str) -> str:
        """A job of high priority that takes whole nodes from whoever has them; returns its number."""
        words = [f"--nodes={len(nodes)}", f"--nodelist={','.join(nodes)}", "--exclusive", "--output=/dev/null"]
        return self.submit("#!/bin/sh\nexec sleep 600\n", "--partition=high", "--no-requeue", *words)

    def cancel(self, job: str) -> None:
        self.call("scancel", job)

    def jobs(self, job: str = "") -> list[Job]:
        """The jobs that wait or run; of an array each task, with `job` that one's only."""
        lines = self.call("squeue", "--noheader", "--array", "--format=%i|%T|%N|%r").splitlines()
        found = [Job(*line.split("|")) for line in lines]
        return [one for one in found if not job or one.job == job or one.job.partition("_")[0] == job]

    def running(self, job: str) -> list[Job]:
        return [one for one in self.jobs(job) if one.state == "RUNNING"]

    def restarts(self, job: str) -> int:
        """How often a job that waits, runs or has just ended was requeued."""
        (word,) = [word for word in self.call("scontrol", "show", "job", job).split() if word.startswith("Restarts=")]
        return int(word.partition("=")[2])

    def wait_for_jobs(self, job: str, state: str, *, count: int = 1) -> list[Job]:
        """Until `count` tasks of a job are in a state."""

        def found() -> list[Job]:
            jobs = [one for one in self.jobs(job) if one.state == state]
            return jobs if len(jobs) >= count else []

        return wait_until(found, timeout=PATIENCE, interval=0.1, description=f"{count} of job {job} to be {state}")

    def wait_for_end(self, job: str) -> None:
        """Until a job has left the queue."""
        wait_until(lambda: not self.jobs(job), timeout=PATIENCE, interval=0.1, description=f"the end of job {job}")

    def limit(self, job: str, minutes: int) -> None:
        """Change the time limit of a job."""
        self.call("scontrol", "update", f"jobid={job}", f"timelimit={minutes}")

    def lose(self, node: str) -> None:
        """The node does not answer any more, and SLURM gives it up; its processes live on."""
        daemon = self._daemons[f"slurmd-{node}"]
        daemon.kill()
        daemon.wait(LIMIT)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")

    # -- its daemons -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemons, and wait until every node is idle."""
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        self._daemon(
            "munged", "--foreground", "--force", f"--socket={self.folder}/munge.sock", f"--key-file={key}",
            f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/munged.log",
            f"--seed-file={self.folder}/munge.seed", "--num-threads=2",
        )  # fmt: skip
        self._wait((self.folder / "munge.sock").is_socket, "munged to answer")
        self._daemon("slurmctld", "-D", "-c", "-f", self.environment["SLURM_CONF"])
        self._wait(lambda: "is UP" in self._answer("scontrol", "ping"), "slurmctld to answer")
        for name in self.nodes:
            self._daemon("slurmd", "-D", "-N", name, "-f", self.environment["SLURM_CONF"], name=f"slurmd-{name}")
        idle = ["idle"] * len(self.nodes)
        words = ("sinfo", "--noheader", "--Node", "--partition=low", "--format=%T")
        self._wait(lambda: self._answer(*words).split() == idle, "all nodes to be idle")

    def end(self) -> None:
        """End jobs and daemons, whatever state they are in."""
        if "slurmctld" in self._daemons:
            self._answer("scancel", "--full", f"--user={getpass.getuser()}")
            self._until(lambda: not self._answer("squeue", "--noheader"), self._kill_wait + 5)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(5)
        # What ran on a lost node has outlived it.
        self._until(self._no_job_lives, 5)

    def _no_job_lives(self) -> bool:
        left = processes.living(self._jobs_processes())
        processes.kill(left)
        return not left

    def _warning(self) -> str:
        """The line of slurm.conf that has jobs warned; it was renamed, and an unknown one stops every tool."""
        major = int(self.call(self._programs["slurmctld"], "-V").split()[-1].partition(".")[0])
        return f"{'PreemptParameters=' if major >= 23 else 'SlurmctldParameters=preempt_'}send_user_signal"

    def _jobs_processes(self) -> list[processes.Process]:
        """The processes that supervise jobs, and all below them."""
        below = {pid: one for pid, one in processes.descendants().items() if pid not in self._known}
        found = [one for one in below.values() if one.command.startswith("slurmstepd")]
        for one in found:
            found += [child for child in below.values() if child.parent == one.pid]
        return found

    def _daemon(self, program: str, *words: str, name: str = "") -> None:
        with (self.folder / f"{name or program}.out").open("ab") as log:
            self._daemons[name or program] = subprocess.Popen(
                [self._programs[program], *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, **self.environment},
            )  # fmt: skip

    def _wait(self, ready: Callable[[], object], what: str) -> None:
        try:
            wait_until(ready, timeout=PATIENCE, interval=0.05, description=what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    @staticmethod
    def _until(done: Callable[[], object], seconds: float) -> None:
        """Wait, and go on whatever came of it."""
        try:
            wait_until(done, timeout=seconds, interval=0.05, description="the end")
        except AssertionError:
            return

    def _answer(self, *words: str) -> str:
        """What a command prints; nothing when it fails."""
        try:
            return self.call(*words)
        except (AssertionError, subprocess.TimeoutExpired):
            return ""

    def logs(self) -> str:
        """The last lines of the daemons' logs."""
        lines = []
        for path in sorted([*self.folder.glob("*.log"), *self.folder.glob("*.out")]):
            lines += [f"-- {path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(lines)


@contextmanager
def slurm_cluster(folder: Path, *, nodes: int = 2, kill_wait: int = 5, grace: int = 0) -> Iterator[Slurm]:
    """A cluster that is up at the start of the block and gone at its end.

    Args:
        folder: An existing folder whose path is short, as of `short_tmp`.
        kill_wait: Seconds from SIGTERM to SIGKILL.
        grace: Seconds that a job to be preempted has before SIGTERM, warned by the signal of its `--signal`; SLURM
            looks at them every 30 s.
    """
    home = folder / "slurm"
    home.mkdir()
    cluster = Slurm(home, nodes, kill_wait=kill_wait, grace=grace)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
