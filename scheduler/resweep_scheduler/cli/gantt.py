"""`gantt`: a picture of who executed what when, and of what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from resweep_scheduler.cli.exitcodes import ExitCode
from resweep_scheduler.cli.options import Failure, Settings, command, notice, store_options, sweep_argument

if TYPE_CHECKING:
    from resweep_scheduler.gantt import Chart

KINDS = (".svg", ".html", ".png")


@command(
    "gantt",
    "resweep gantt SWEEP                  # writes SWEEP.svg",
    "resweep gantt SWEEP -o sweep.html",
    "resweep gantt SWEEP -o sweep.png     # needs: pip install 'resweep[png]'",
)
@click.option("-o", "--output", metavar="FILE", help="An .svg, .html or .png; it is replaced. [default: SWEEP.svg]")
@sweep_argument
@store_options
def gantt_command(settings: Settings, sweep: str, output: str | None) -> None:
    """Draw the attempts of a sweep over its agents.

    Coloured by how they ended, preemptions and lost time marked; pointing at one tells more. Open it in a browser.
    """
    from resweep_scheduler.accounts import read_sweep_costs
    from resweep_scheduler.cli.access import open_sweep
    from resweep_scheduler.cli.render import counted
    from resweep_scheduler.gantt import chart_of
    from resweep_scheduler.service.exports import write_bytes

    kind = Path(output).suffix.lower() if output else KINDS[0]
    if kind not in KINDS:
        raise click.UsageError(
            f"the end of a file's name says what is drawn, one of {', '.join(KINDS)}; got {output!r}."
        )
    store, sweep_id = open_sweep(settings, sweep)
    record, runs, now = store.sweep(sweep_id), store.runs(sweep_id), store.redis_time()
    costs = read_sweep_costs(store, runs, store.events(sweep_id), now=now)
    title = f"Sweep {sweep_id}" + (f": {record.name}" if record.name else "")
    chart = chart_of(title, costs, {run.run_id: run for run in runs}, now=now)
    path = Path(output or f"{sweep_id}.svg")
    drawn = _drawn(chart, kind)
    try:
        write_bytes(path, drawn)
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror}): choose another file", ExitCode.USAGE) from error
    notice(f"Drew {counted(len(chart.bars), 'attempt')} in {counted(len(chart.lanes), 'lane')} to {path}")


def _drawn(chart: Chart, kind: str) -> bytes:
    from resweep_scheduler.gantt import draw_svg, html_page, to_png

    if kind == ".html":
        return html_page(chart).encode()
    if kind == ".svg":
        return draw_svg(chart).encode()
    try:
        return to_png(draw_svg(chart, dark=False))
    except ImportError as error:
        raise Failure(
            "a .png is drawn by resvg, which is not installed: pip install 'resweep[png]', or write an .svg",
            ExitCode.USAGE,
        ) from error
