"""The `sweep-agent` command."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from resweep_agent.exitcodes import AgentError, ExitCode

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code.value:>2}  {code.meaning}" for code in ExitCode)

HELP = """Take runs of a sweep and execute them until the sweep is finished.

\b
SWEEP is what `resweep create` printed: [entity/][project/]SWEEP.

\b
Examples:
  sweep-agent k3j2h1g0
  sweep-agent --url redis://:secret@node1:6379/0 vision/k3j2h1g0
  sweep-agent --gpus-per-run 1 --count 100 k3j2h1g0  as many runs side by side as there are GPUs
  srun sweep-agent --grace 60 k3j2h1g0              under SLURM

\b
Signals: SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are notices that the machine goes: the runs are marked, their scripts
get the signal and the grace, and the runs go back to the run queue. Ctrl-C once lets the current runs finish.
"""


class OneLineErrors(click.Command):
    """Says what is wrong with the arguments in one line, as `resweep` does."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            click.echo(f"error: {error.format_message()} (see `sweep-agent --help`)", err=True)
            sys.exit(ExitCode.USAGE)


@click.command(
    cls=OneLineErrors,
    help=HELP,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.argument("sweep")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Take N runs, then end.")
@click.option(
    "--url",
    metavar="URL",
    help="Where Redis is. Default: RESWEEP_URL, REDIS_URL, else the embedded server of this machine.",
)
@click.option("-p", "--project", metavar="NAME", help="The project that the sweep must be in; its id alone will do.")
@click.option("-e", "--entity", metavar="NAME", help="The entity that the sweep must be in; its id alone will do.")
@click.option(
    "--name",
    metavar="NAME",
    envvar="RESWEEP_AGENT_NAME",
    show_envvar=True,
    help="Who this agent is; the same name again replaces it. Default: the SLURM job, else the host and a number.",
)
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs side by side; they share the GPUs. Default: as many as --gpus-per-run allows, else 1.",
)
@click.option(
    "--gpus-per-run",
    type=click.IntRange(min=1),
    metavar="K",
    help="Each run gets K GPUs of its own, by CUDA_VISIBLE_DEVICES.",
)
@click.option(
    "--preemptible/--no-preemptible",
    default=None,
    help="Whether runs that end because of a notice, or whose agent vanishes, go back to the run queue. Default: the"
    " sweep's preemption.auto; else yes under SLURM and on spot machines, and elsewhere after a notice only.",
)
@click.option(
    "--notice",
    metavar="SOURCES",
    envvar="RESWEEP_NOTICE",
    show_envvar=True,
    help="Who is asked whether this machine goes, besides signals: auto (the default: SLURM inside a job, and the cloud"
    " that this machine is in), none, or some of slurm,aws,aws-rebalance,gcp,azure,alibaba.",
)
@click.option(
    "--grace", type=click.FloatRange(min=0), metavar="SECONDS", help="From the signal to SIGKILL. Default: the sweep's."
)
@click.option(
    "--lease", type=click.FloatRange(min=1), metavar="SECONDS", help="How long a silent agent keeps its runs."
)
@click.option(
    "--heartbeat",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Between heartbeats; at most a third of the lease.",
)
@click.option(
    "--max-consecutive-failed-runs",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="End after N failed runs in a row; 0 (default) for no limit. Besides, an agent ends after 3 failures in its"
    " first minute, and when its first 5 runs fail. [WANDB_AGENT_DISABLE_FLAPPING, WANDB_AGENT_MAX_INITIAL_FAILURES]",
)
@click.option(
    "--max-wait",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="End after so long without a run. Default: when the sweep is finished.",
)
@click.option(
    "--slurm-requeue",
    is_flag=True,
    envvar="RESWEEP_SLURM_REQUEUE",
    show_envvar=True,
    help="Under SLURM: after a notice, requeue the agent's own job if SLURM will not, as at a time limit.",
)
@click.option(
    "--program",
    "pinned",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    envvar="RESWEEP_PROGRAM",
    show_envvar=True,
    help="Execute this program and no other: refuse a sweep that names another one, whoever wrote it to Redis.",
)
@click.option(
    "--source",
    "sources",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Execute this Python file for the search of a sweep whose scheduler.source has its name; may be repeated."
    " Without it the asking is left to others, for instance `resweep scheduler --source FILE`.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("resweep-runs"),
    show_default=True,
    envvar="RESWEEP_DIR",
    show_envvar=True,
    help="Where output and checkpoints go: SWEEP/RUN/attempt-N/output.log and checkpoints/.",
)
@click.option(
    "--wandb",
    is_flag=True,
    help="Have scripts that use `wandb` log here, through a gateway of the agent (docs/wandb.md).",
)
@click.option(
    "--gateway",
    metavar="URL",
    envvar="RESWEEP_GATEWAY",
    show_envvar=True,
    help="As --wandb, with the gateway (`resweep serve`) at this address.",
)
@click.option("-v", "--verbose", count=True, help="Say more of what happens.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.version_option(package_name="resweep")
def main(verbose: int, quiet: bool, log_format: str, pinned: Path | None, **values: Any) -> None:
    from resweep_agent.assembly import Work, run_agent
    from resweep_agent.launch import ProcessLauncher
    from resweep_agent.logs import configure
    from resweep_agent.options import AgentOptions
    from resweep_agent.output import StandardOutput

    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    log = configure(level=level, log_format=log_format)
    environ = dict(os.environ)
    try:
        exit_code = run_agent(
            Work(
                options=AgentOptions(**values),
                environ=environ,
                make_launcher=lambda config: ProcessLauncher(config, environ, pinned=pinned),
                terminal=StandardOutput(),
            )
        )
    except AgentError as error:
        log.say(f"error: {error}")
        exit_code = error.exit_code
    except Exception as error:
        log.say(f"{traceback.format_exc()}error: unexpected: {error!r}; please report it with the lines above")
        exit_code = ExitCode.UNEXPECTED
    finally:
        log.close()
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
