"""The batch script that makes agents of SLURM jobs.

The agent replaces the shell (`exec`): SLURM sends `--signal=B:…` to the process of the batch script and to nothing
else, and a bash that traps two signals within a millisecond may lose one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure
from resweep_scheduler.store.connect import redact

LEAD_BEYOND_GRACE = 60
"""Seconds of the lead time that are left when the grace is over: to report the runs and to requeue the job."""
EARLIEST = 60
"""Seconds by which SLURM may send a job's signal too early (sbatch(1), --signal)."""
LOOPBACK = re.compile(r"localhost|127\.[\d.]+|\[?::1\]?", re.IGNORECASE)

_TIME = re.compile(
    r"(?P<minutes>\d+)(:(?P<seconds>\d\d))?"
    r"|(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d)"
    r"|(?P<days>\d+)-(?P<dh>\d+)(:(?P<dm>\d\d)(:(?P<ds>\d\d))?)?"
)


@dataclass(frozen=True, slots=True)
class Batch:
    """An array of agents.

    Attributes:
        sweep: entity/project/sweep.
        url: Of Redis. With a password in it, it is not written down: the jobs find it in their environment.
        agent: The `sweep-agent` of the nodes.
        lead: Seconds before the time limit at which agents are told.
        resources: Options of sbatch and their values, as ("time", "4:00:00"); None for none.
        more: Whole options of sbatch, as "--constraint=a100".
        setup: Lines of shell before the agent.
        words: Options of sweep-agent.
    """

    sweep: str
    url: str
    agents: int
    agent: str
    lead: int
    resources: Sequence[tuple[str, str | int | None]] = ()
    more: Sequence[str] = ()
    setup: Sequence[str] = ()
    words: Sequence[str] = field(default=())

    def script(self) -> str:
        """The script, as sbatch takes it.

        Raises:
            Failure: A value cannot stand in a script.
        """
        options = [
            f"--array=1-{self.agents}",
            "--requeue",
            "--open-mode=append",
            f"--signal=B:USR1@{self.lead}",
            *(f"--{name}={quoted(name, str(value))}" for name, value in self.resources if value is not None),
            *(whole_option(option) for option in self.more),  # the last ones, because to sbatch the last one counts
        ]
        if has_password(self.url):
            address = (
                ': "${RESWEEP_URL:?is not set: its password is not written here; export it before sbatch,'
                ' and submit without --export=NONE}"'
            )
        else:
            address = f"export RESWEEP_URL={shlex.quote(self.url)}"
        lines = [
            "#!/bin/bash",
            f"# Agents of the sweep {self.sweep}",
            *(f"#SBATCH {option}" for option in options),
            "",
            *self.setup,
            address,
            "export RESWEEP_SLURM_REQUEUE=1",
            "# The agent takes the place of the shell, so that SLURM's signals reach it.",
            f"exec {shlex.join([self.agent, *self.words, self.sweep])}",
        ]
        return "\n".join(lines) + "\n"


def has_password(url: str) -> bool:
    """Whether `url` tells what messages must not."""
    return redact(url) != url


def reached_from_here_only(url: str) -> bool:
    """Whether other machines cannot reach the server: a socket of this machine, or its loopback interface."""
    parts = urlsplit(url)
    places = parts.netloc.rpartition("@")[2].split(",")
    hosts = [place if place.endswith("]") else re.sub(r":\d*$", "", place) for place in places]
    return parts.scheme == "unix" or any(not host or LOOPBACK.fullmatch(host) for host in hosts)


def quoted(name: str, value: str) -> str:
    """A value as a line of #SBATCH takes it.

    Raises:
        Failure: It is empty, or has quotes, backslashes or control characters, which sbatch reads in its own way.
    """
    if not value or not value.isprintable() or set(value) & set("\"'\\"):
        raise Failure(
            f"a value of sbatch has neither quotes, backslashes nor line breaks and is not empty, got --{name}"
            f" {value!r}; write it without them",
            ExitCode.USAGE,
        )
    return value if re.fullmatch(r"[\w./:,=%@+-]+", value, re.ASCII) else f'"{value}"'


def whole_option(option: str) -> str:
    """An option of sbatch as it was given.

    Raises:
        Failure: It is no option, or not one line.
    """
    if not option.startswith("-") or not option.isprintable():
        raise Failure(
            f"--sbatch takes one option of sbatch in one line, got {option!r}; write --sbatch='--constraint=a100'",
            ExitCode.USAGE,
        )
    return option


def lead_time(lead: int | None, grace: float, time: str | None) -> int:
    """Seconds before the time limit at which agents are told: `lead`, else the grace and a minute.

    Raises:
        Failure: It does not fit between the grace and the time limit.
    """
    seconds = lead if lead is not None else int(-(-grace // 1)) + LEAD_BEYOND_GRACE
    if seconds <= grace:
        raise Failure(
            f"the lead time is longer than the grace of the runs, got --lead {seconds} with a grace of {grace:g} s;"
            " give a longer --lead or a shorter --grace",
            ExitCode.USAGE,
        )
    if time is not None and (limit := _seconds(time)) <= seconds + EARLIEST:
        raise Failure(
            f"SLURM may give notice {EARLIEST} s before the lead time of {seconds} s, got --time {time} ({limit} s), so"
            " agents would be told to go as they start; give a longer --time or a shorter --lead",
            ExitCode.USAGE,
        )
    return seconds


def _seconds(time: str) -> int:
    found = _TIME.fullmatch(time)
    if found is None:
        raise Failure(
            f"a time limit is MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS, got --time {time!r}; write --time 4:00:00",
            ExitCode.USAGE,
        )
    part = {name: int(text) for name, text in found.groupdict(default="0").items()}
    hours = part["days"] * 24 + part["dh"] + part["h"]
    minutes = part["minutes"] + part["m"] + part["dm"]
    return hours * 3600 + minutes * 60 + part["seconds"] + part["s"] + part["ds"]
