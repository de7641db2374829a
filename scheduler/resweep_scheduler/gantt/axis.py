"""A time axis that counts from the first attempt."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_STEPS = (
    *(1, 2, 5, 10, 15, 30),
    *(_MINUTE * number for number in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * number for number in (1, 2, 3, 6, 12)),
    *(_DAY * number for number in (1, 2, 7, 14, 28, 56, 112, 364)),
)


def tick_step(seconds: float, most: int = 10) -> int:
    """Seconds between two ticks, so that there are at most `most` of them, the one at 0 not counted."""
    return next((step for step in _STEPS if seconds <= step * most), _STEPS[-1])


def tick_label(seconds: int) -> str:
    """`0`, `30 s`, `15 min`, `1 h`, `1 h 30`, `2 d`, `2 d 12 h`."""
    days, rest = divmod(seconds, _DAY)
    hours, minutes = rest // _HOUR, rest % _HOUR // _MINUTE
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes:02}" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest % _MINUTE}" if rest % _MINUTE else f"{minutes} min"
    return f"{rest} s" if rest else "0"
