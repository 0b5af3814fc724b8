"""Nodes × balancers, and the traffic, as lines of a screen; for `deploy` and `status --watch`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rich.text import Text

from drainctl.report.board import Board, Cell, Moment
from drainctl.report.sparkline import sparkline
from drainctl.report.text import clip

NAME_WIDTH = 20
MORE_WIDTH = 14  # of the column that stands for the balancers that have none of their own
MOST_BALANCERS = 4  # with a line of traffic each; more are summed
STYLES = {"UP": "green", "DOWN": "bold red", "?": "bold red", "-": "bold red"}
LEGEND = "state, requests in flight, queued; errors counted since the view began"


def servers(
    board: Board, nodes: Sequence[str], width: int, others: Sequence[str] = (), busy: Sequence[str] = ()
) -> list[Text]:
    """
    A line per node with a cell per balancer, `width` columns wide, and one line for all `others`.

    busy: nodes that are out of rotation on purpose: what they show is no reason for alarm.
    """
    rows = {name: [board.cell(name, balancer) for balancer in board.balancers] for name in nodes}
    texts = {name: [str(cell) for cell in row] for name, row in rows.items()}
    if others:
        texts[f"{len(others)} others"] = _summed(board, others)
    name_width = min(NAME_WIDTH, max((len(name) for name in (*texts, "servers")), default=0))
    heads = list(board.balancers)
    columns = [max(map(len, each)) for each in zip(heads, *texts.values(), strict=True)]
    fits = _fitting(columns, width - name_width)
    lines = [_line("servers", name_width, _folded(heads, fits), columns[:fits], ["bold"] * len(heads), width)]
    for name, told in texts.items():
        styles = [_style(cell, name in busy) for cell in rows.get(name, ())] or [""] * len(heads)
        lines.append(_line(name, name_width, _folded(told, fits), columns[:fits], styles, width))
    return lines


def _fitting(columns: Sequence[int], width: int) -> int:
    """How many columns, two spaces before each, fit; where not all do, room is left for the rest's own."""
    if sum(columns) + 2 * len(columns) <= width:
        return len(columns)
    used, fits = MORE_WIDTH + 2, 0
    while fits < len(columns) and used + columns[fits] + 2 <= width:
        used += columns[fits] + 2
        fits += 1
    return fits


def _folded(texts: Sequence[str], fits: int) -> list[str]:
    """The cells that fit, then one for the rest: what they have in common, or how many differ."""
    if fits == len(texts):
        return list(texts)
    rest = list(texts[fits:])
    first_words = dict.fromkeys(text.split(" ")[0].rstrip(",") for text in rest)
    more = f"{len(rest)} more" if len(first_words) == len(rest) > 1 else ", ".join(first_words)
    return [*texts[:fits], clip(more, MORE_WIDTH)]


def _line(
    name: str, name_width: int, cells: Sequence[str], widths: Sequence[int], styles: Sequence[str], width: int
) -> Text:
    line = Text(f"{clip(name, name_width):{name_width}}", style="", no_wrap=True)
    for number, cell in enumerate(cells):
        padded = f"{cell:{widths[number]}}" if number < len(widths) else cell
        line.append("  ").append(padded, style=styles[number])
    line.rstrip()
    line.truncate(width, overflow="ellipsis")
    return line


def _style(cell: Cell, busy: bool) -> str:
    if cell.errors or cell.queued:
        return "bold red"
    word = cell.words[0].split(" ")[0]
    if len(cell.words) > 1 or (word not in STYLES and not busy):
        return "yellow"
    return STYLES.get(word, "yellow")


def _summed(board: Board, nodes: Sequence[str]) -> list[str]:
    """Per balancer, many nodes in one cell: `UP 2210`, or `198 UP, 1 DOWN`."""
    told = []
    for balancer in board.balancers:
        cells = [board.cell(name, balancer) for name in nodes]
        words = Counter(word for cell in cells for word in cell.words)
        one = (
            ", ".join(words)
            if len(words) == 1
            else ", ".join(f"{count} {word}" for word, count in words.items())
        )
        active, errors = sum(cell.active for cell in cells), sum(cell.errors for cell in cells)
        told.append(str(Cell((one,), active, sum(cell.queued for cell in cells), errors)))
    return told


def odd(board: Board, nodes: Sequence[str]) -> list[str]:
    """The nodes that some balancer does not simply show UP."""
    return [name for name in nodes if not all(board.cell(name, each).well for each in board.balancers)]


def traffic(board: Board, width: int) -> list[Text]:
    """Requests and failures per second as bars and numbers: a line per balancer, or one for many of them."""
    told: Mapping[str, Sequence[Moment]] = {name: board.traffic(name) for name in board.balancers}
    if len(told) > MOST_BALANCERS:
        told = {f"{len(told)} balancers": board.all_traffic()}
    name_width = max(map(len, told), default=0)
    lines = [_traffic(name, name_width, moments, width) for name, moments in told.items()]
    return lines + [
        Text(clip(f"{name}: {why}", width), style="bold red", no_wrap=True)
        for name, why in board.faults.items()
    ]


def _traffic(name: str, name_width: int, moments: Sequence[Moment], width: int) -> Text:
    bars = max(4, min(40, (width - name_width - 34) // 2))
    last = moments[-1] if moments else Moment(None, None)
    bad = any(moment.failed for moment in moments[-bars:])
    line = Text(f"{name:{name_width}}  {_rate(last.requests)} requests/s ", no_wrap=True)
    line.append(sparkline([moment.requests for moment in moments], bars), style="cyan")
    line.append(f" {_rate(last.failed)} failed/s ", style="bold red" if bad else "")
    line.append(sparkline([moment.failed for moment in moments], bars), style="bold red" if bad else "dim")
    line.truncate(width)
    return line


def _rate(value: float | None) -> str:
    return f"{'?' if value is None else f'{value:.0f}':>5}"
