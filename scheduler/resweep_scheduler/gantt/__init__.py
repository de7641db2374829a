"""A picture of a sweep: which agent executed which attempt when, how it ended, and what of it was lost."""

from resweep_scheduler.gantt.axis import tick_label, tick_step
from resweep_scheduler.gantt.bars import MOST_LANES, Bar, Chart, Lane, chart_of
from resweep_scheduler.gantt.picture import draw_svg, html_page, to_png

__all__ = [
    "MOST_LANES",
    "Bar",
    "Chart",
    "Lane",
    "chart_of",
    "draw_svg",
    "html_page",
    "tick_label",
    "tick_step",
    "to_png",
]
