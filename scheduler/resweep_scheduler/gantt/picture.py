"""The picture itself, as SVG, as a page, as PNG. The same chart gives the same bytes."""

from __future__ import annotations

import math

from resweep_scheduler.gantt.axis import tick_label, tick_step
from resweep_scheduler.gantt.bars import Bar, Chart, Lane
from resweep_scheduler.gantt.svg import element, group, number, shortened, text

WIDTH = 1200
MARGIN = 24
QUEUE_HEIGHT = 34
LABEL_WIDTHS = (70, 200)
CHARACTER = 6.7  # mean width of one at 12 px, for most fonts

ENDS = ("finished", "preempted", "failed", "crashed", "killed", "running", "unknown")
"""How attempts end, in the order of the legend."""

# Colours that stay apart for colour-blind people (after Okabe and Ito), on white and on near black.
_LIGHT = {
    "page": "#ffffff", "ink": "#1f2328", "dim": "#59636e", "line": "#dfe3e8", "band": "#f6f8fa", "queue": "#8c959f",
    "finished": "#009e73", "preempted": "#e69f00", "failed": "#c8321e", "crashed": "#7f2a6c", "killed": "#d98bb9",
    "running": "#3fa0dc", "unknown": "#a5acb4",
}  # fmt: skip
_DARK = {
    "page": "#0d1117", "ink": "#e6edf3", "dim": "#9198a1", "line": "#2a313a", "band": "#141a22", "queue": "#6e7681",
    "finished": "#1fb58a", "preempted": "#eeb02b", "failed": "#ea5f4b", "crashed": "#b35a9d", "killed": "#e3a3c8",
    "running": "#56b4e9", "unknown": "#6e7681",
}  # fmt: skip
_FONT = "font-family:system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif"


def draw_svg(chart: Chart, *, dark: bool | None = None) -> str:
    """The chart as an SVG document.

    Args:
        dark: On a dark ground or not; None leaves it to the viewer's settings.
    """
    drawing = _Drawing(chart)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{number(drawing.height)}" '
    head += f'viewBox="0 0 {WIDTH} {number(drawing.height)}" role="img">'
    parts = [head, element("title", text(chart.title)), element("style", _style(dark)), *drawing.parts(), "</svg>"]
    return "\n".join(parts) + "\n"


def html_page(chart: Chart) -> str:
    """The chart as a page of its own."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" content="light dark">\n'
        f"<title>{text(chart.title)}</title>\n"
        f"<style>body{{margin:0;background:{_LIGHT['page']}}}svg{{display:block;margin:auto;max-width:100%;height:auto}}"
        f"@media (prefers-color-scheme:dark){{body{{background:{_DARK['page']}}}}}</style></head>\n"
        f"<body>\n{draw_svg(chart)}</body></html>\n"
    )


def to_png(svg: str) -> bytes:
    """An SVG as PNG, at twice its size.

    Raises:
        ImportError: The extra `png` is not installed.
    """
    from resvg_py import svg_to_bytes

    return bytes(svg_to_bytes(svg_string=svg, zoom=2, sans_serif_family="DejaVu Sans"))


def lane_height(lanes: int) -> float:
    """Thick lanes while there are few; 1,000 of them still fit on a screen or five."""
    return next((height for most, height in ((30, 22), (80, 15), (250, 8), (500, 5)) if lanes <= most), 4)


def _style(dark: bool | None) -> str:
    if dark is not None:
        return _rules(_DARK if dark else _LIGHT)
    return _rules(_LIGHT) + f"@media (prefers-color-scheme:dark){{{_rules(_DARK)}}}"


def _rules(colours: dict[str, str]) -> str:
    fills = "".join(f".{name}{{fill:{colour}}}" for name, colour in colours.items())
    return (
        f"text{{{_FONT};font-size:12px;fill:{colours['ink']}}}.title{{font-size:17px;font-weight:600}}"
        f"text.note{{fill:{colours['dim']}}}text.small{{font-size:10px}}{fills}"
        f".lost{{fill-opacity:.38}}.tick{{stroke:{colours['line']};stroke-width:1}}"
        f".mark{{fill:{colours['ink']}}}.notice{{fill:{colours['ink']};fill-opacity:.75}}"
        f".attempt:hover{{stroke:{colours['ink']};stroke-width:1.5}}"
    )


class _Drawing:
    """Where things are, and the elements, from top to bottom."""

    def __init__(self, chart: Chart) -> None:
        self.chart = chart
        self.row = lane_height(len(chart.lanes))
        self.every = 1 if self.row >= 15 else math.ceil(13 / self.row)  # lanes between two names
        longest = max((len(lane.name) for lane in chart.lanes), default=0)
        low, high = LABEL_WIDTHS
        label = min(high, max(low, longest * CHARACTER))
        self.left = MARGIN + label + 10
        self.letters = int(label / CHARACTER)
        self.right = WIDTH - MARGIN
        self.top = 118 + 16 * len(chart.remarks) + (QUEUE_HEIGHT + 14 if chart.waiting else 0)
        self.bottom = self.top + self.row * max(1, len(chart.lanes))
        self.height = self.bottom + 38
        span = max(1, chart.end - chart.start)
        self.scale = (self.right - self.left) / span

    def x(self, at: int) -> float:
        return self.left + (min(max(at, self.chart.start), self.chart.end) - self.chart.start) * self.scale

    def parts(self) -> list[str]:
        chart = self.chart
        return [
            element("rect", class_="page", width=WIDTH, height=self.height),
            element("text", text(shortened(chart.title, 110)), class_="title", x=MARGIN, y=34),
            element("text", text(chart.subtitle), class_="note", x=MARGIN, y=55),
            *(
                element("text", text(remark), class_="note", x=MARGIN, y=71 + 16 * place)
                for place, remark in enumerate(chart.remarks)
            ),
            self.legend(80 + 16 * len(chart.remarks)),
            self.axis(),
            *([self.queue()] if chart.waiting else []),
            *(self.lane(place, lane) for place, lane in enumerate(chart.lanes)),
        ]

    def legend(self, y: float) -> str:
        """The ends that occur, and the marks."""
        bars = self.chart.bars
        parts, x = [], float(MARGIN)

        def entry(words: str, *drawn: str) -> None:
            nonlocal x
            parts.extend([*drawn, element("text", text(words), x=x + 18, y=y + 10)])
            x += 18 + len(words) * CHARACTER + 20

        for end in ENDS:
            if any(bar.ended == end for bar in bars):
                entry(end, element("rect", class_=end, x=x, y=y, width=12, height=12, rx=2))
        if any(bar.kept_until < bar.end for bar in bars):
            words = "lost since the last kept step or checkpoint"
            entry(words, element("rect", class_="preempted lost", x=x, y=y, width=12, height=12, rx=2))
        if any(bar.notice is not None for bar in bars):
            entry("notice", element("rect", class_="notice", x=x + 5, y=y - 1, width=2, height=14))
        if any(bar.ended == "preempted" for bar in bars):
            entry("preempted here", _triangle(x + 6, y + 1, 9))
        return group(parts, id="legend")

    def axis(self) -> str:
        """Lines and labels at round times since the beginning, above and, when that is far, below."""
        chart = self.chart
        seconds = (chart.end - chart.start) / 1000
        step = tick_step(seconds)
        parts = [
            element("rect", class_="band", x=self.left, y=self.top + self.row * place, width=self.right - self.left,
                    height=self.row)
            for place in range(0, len(chart.lanes), 2) if self.row >= 15
        ]  # fmt: skip
        for tick in range(0, int(seconds) + 1, step):
            x = self.x(chart.start + tick * 1000)
            parts.append(element("line", class_="tick", x1=x, x2=x, y1=self.top - 4, y2=self.bottom + 4))
            anchor = "middle" if tick else "start"
            label = text(tick_label(tick))
            parts.append(element("text", label, class_="note", x=x, y=self.bottom + 18, text_anchor=anchor))
            if self.bottom - self.top > 500:
                parts.append(element("text", label, class_="note", x=x, y=self.top - 9, text_anchor=anchor))
        return group(parts, id="axis")

    def queue(self) -> str:
        """How many runs waited for an agent, over time."""
        chart = self.chart
        base = self.top - 26
        most = max(length for _, length in chart.waiting)
        path, level = f"M{number(self.x(chart.waiting[0][0]))} {number(base)}", float(base)
        for at, length in chart.waiting:
            x, y = self.x(at), base - QUEUE_HEIGHT * length / max(1, most)
            path += f"H{number(x)}V{number(y)}"
            level = y
        if level != base:
            path += f"H{number(self.right)}V{number(base)}"
        words = f"{most} at most"
        return group(
            [
                element("title", text(f"runs on the run queue: {words}")),
                element("text", "run queue", x=self.left - 10, y=base - 12, text_anchor="end"),
                element("text", text(words), class_="note small", x=self.left - 10, y=base, text_anchor="end"),
                element("path", class_="queue", d=f"{path}Z"),
                element("line", class_="tick", x1=self.left, x2=self.right, y1=base, y2=base),
            ],
            id="queue",
        )

    def lane(self, place: int, lane: Lane) -> str:
        y = self.top + self.row * place
        parts = []
        if place % self.every == 0:
            label = text(shortened(lane.name, self.letters))
            whole = element("title", text("\n".join(lane.names)))
            small = None if self.row >= 15 else "small"
            middle = y + self.row / 2 + (4 if small is None else 3)
            parts.append(element("text", whole, label, class_=small, x=self.left - 10, y=middle, text_anchor="end"))
        parts += [self.bar(bar, y) for bar in lane.bars]
        return group(parts, class_="lane")

    def bar(self, bar: Bar, y: float) -> str:
        """The attempt: what was kept in full colour, what was lost in a pale one, notice and preemption marked."""
        gap = 2 if self.row >= 15 else 0.5
        begin, kept, end = self.x(bar.start), self.x(bar.kept_until), self.x(bar.end)
        end = max(end, begin + 1)
        y, height = y + gap, self.row - 2 * gap
        parts = [element("title", text(bar.text))]
        if kept > begin or kept >= end:
            width = min(end, max(kept, begin + 1)) - begin
            parts.append(element("rect", class_=bar.ended, x=begin, y=y, width=width, height=height))
        if kept < end and bar.kept_until < bar.end:
            start = max(kept, begin)
            parts.append(element("rect", class_=f"{bar.ended} lost", x=start, y=y, width=end - start, height=height))
        if bar.notice is not None:
            parts.append(element("rect", class_="notice", x=self.x(bar.notice) - 0.75, y=y, width=1.5, height=height))
        if bar.ended == "preempted":
            wide = min(9.0, height * 0.6)
            parts.append(_triangle(end, y - gap / 2, wide))
        return element("g", *parts, class_="attempt", data_run=bar.run_id, data_attempt=str(bar.attempt))


def _triangle(x: float, y: float, wide: float) -> str:
    """One that points down, its tip at `x`."""
    half = number(wide / 2)
    return element("path", class_="mark", d=f"M{number(x - wide / 2)} {number(y)}h{number(wide)}l-{half} {half}z")
