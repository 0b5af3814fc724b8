"""Numbers as a line of small bars. Pure."""

from __future__ import annotations

from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"
GAP = " "


def sparkline(values: Sequence[float | None], width: int) -> str:
    """
    The last `width` values, the newest at the right; from zero to the largest of those shown.

    None, a moment that is not known, is a gap. Zero is the lowest bar, and only zero is.
    """
    shown = list(values)[-width:] if width > 0 else []
    top = max((value for value in shown if value is not None), default=0.0)
    return "".join(GAP if value is None else _bar(value, top) for value in shown).rjust(max(width, 0))


def _bar(value: float, top: float) -> str:
    if value <= 0:
        return BARS[0]
    steps = len(BARS) - 1
    return BARS[max(1, min(steps, round(value / top * steps)))]
