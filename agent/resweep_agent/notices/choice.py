"""Which sources of notices an agent has: `--notice`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from resweep_agent.exitcodes import AgentError, ExitCode
from resweep_agent.identity import agents_folder
from resweep_agent.notices.alibaba import Alibaba
from resweep_agent.notices.aws import Aws
from resweep_agent.notices.azure import Azure
from resweep_agent.notices.gcp import Gcp
from resweep_agent.notices.polling import PolledSource, Provider
from resweep_agent.notices.slurm import Slurm

VARIABLE = "RESWEEP_NOTICE"
AUTO = "auto"
NONE = "none"
REBALANCE = "aws-rebalance"
NAMES = ("slurm", "aws", REBALANCE, "gcp", "azure", "alibaba")
CLOUDS = ("aws", "gcp", "azure", "alibaba")


@dataclass(frozen=True, slots=True)
class NoticeChoice:
    """The sources besides signals, which are always there.

    Attributes:
        auto: SLURM inside a job, and whichever cloud this machine is in.
        named: Sources that were asked for by name.
    """

    auto: bool
    named: frozenset[str]

    @classmethod
    def parse(cls, text: str | None, environ: Mapping[str, str]) -> NoticeChoice:
        """Read `auto`, `none` or names with commas between them; without any, `RESWEEP_NOTICE` decides, else `auto`.

        Raises:
            AgentError: There is no source of that name.
        """
        origin = VARIABLE if text is None else "--notice"
        given = text if text is not None else environ.get(VARIABLE) or AUTO
        words = [word.strip() for word in given.split(",")]
        if words == [NONE]:
            return cls(auto=False, named=frozenset())
        for word in words:
            if word not in (AUTO, *NAMES):
                raise AgentError(
                    f"{origin} is auto, none, or some of {', '.join(NAMES)} with commas between them,"
                    f" got {given!r}; {_cure(word)}",
                    ExitCode.USAGE,
                )
        return cls(AUTO in words, frozenset(words) - {AUTO})

    def sources(self, environ: Mapping[str, str], *, grace: float) -> list[PolledSource]:
        """The sources, not yet started: SLURM and the clouds have a thread each.

        Args:
            environ: The agent's; some of its variables name other addresses of the services.
            grace: Seconds that children have before they are killed.
        """
        named = self.named | ({"aws"} if REBALANCE in self.named else set())
        found = []
        if "slurm" in named or (self.auto and environ.get("SLURM_JOB_ID")):
            found.append(PolledSource([Slurm(environ, grace=grace)], named=named))
        clouds: dict[str, Provider] = {
            "aws": Aws(environ, rebalance=REBALANCE in named),
            "gcp": Gcp(environ),
            "azure": Azure(agents_folder()),
            "alibaba": Alibaba(),
        }
        if chosen := [clouds[name] for name in CLOUDS if self.auto or name in named]:
            found.append(PolledSource(chosen, named=named))
        return found


def _cure(word: str) -> str:
    if word == NONE:
        return "leave out the other names, or none"
    close = difflib.get_close_matches(word, (AUTO, NONE, *NAMES), n=1)
    return f"did you mean {close[0]}?" if close else "leave it out to have all that apply (auto)"
