"""The plot of goodput.py: groups of columns, one group for each mean time between preemptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from resweep_scheduler.gantt.svg import element, text

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 92, 48
COLOURS = ("#009e73", "#3cc39b", "#8fdcc3", "#e69f00", "#56b4e9", "#a5acb4")
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#1f2328}"
    ".title{font-size:16px;font-weight:600}.note{fill:#59636e}.value{font-size:10.5px}.page{fill:#fff}"
    "line{stroke:#dfe3e8}@media (prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}.page{fill:#0d1117}"
    "line{stroke:#2a313a}}"
)


def draw(goodputs: Mapping[str, Sequence[float]], factors: Sequence[int]) -> str:
    """Goodput (0 to 1) of each policy for each factor, as an SVG document."""
    base, height = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    parts = [
        element("rect", class_="page", width=WIDTH, height=HEIGHT),
        element("text", "Goodput of 1,000 machines over a day", class_="title", x=LEFT - 40, y=26),
    ]
    x = float(LEFT - 40)
    for place, name in enumerate(goodputs):
        parts.append(element("rect", x=x, y=40 + 20 * (place // 3), width=12, height=12, rx=2, fill=COLOURS[place]))
        parts.append(element("text", text(name), x=x + 18, y=50 + 20 * (place // 3)))
        x = float(LEFT - 40) if place % 3 == 2 else x + 230
    for share in range(0, 101, 20):
        y = base - height * share / 100
        parts.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        parts.append(element("text", f"{share} %", class_="note", x=LEFT - 8, y=y + 4, text_anchor="end"))
    wide = (WIDTH - LEFT - RIGHT) / len(factors)
    column = wide * 0.86 / len(goodputs)
    for group, factor in enumerate(factors):
        left = LEFT + group * wide + wide * 0.07
        for place, (name, values) in enumerate(goodputs.items()):
            value = values[group]
            x, tall = left + place * column, height * value
            bar = element("rect", x=x + 1, y=base - tall, width=column - 2, height=tall, fill=COLOURS[place])
            hover = element("title", text(f"{name}, {factor} x: {100 * value:.1f} %"))
            label = element(
                "text", f"{100 * value:.1f}", class_="value", x=x + column / 2, y=base - tall - 4, text_anchor="middle"
            )
            parts.append(element("g", hover, bar, label))
        times = "the checkpoint interval" if factor == 1 else f"{factor} x the checkpoint interval"
        parts.append(element("text", times, x=left + wide * 0.43, y=base + 20, text_anchor="middle"))
    caption = "mean time between two preemptions of a machine"
    parts.append(
        element("text", caption, class_="note", x=(LEFT + WIDTH - RIGHT) / 2, y=base + 38, text_anchor="middle")
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
    return "\n".join([head, element("style", _STYLE), *parts, "</svg>"]) + "\n"
