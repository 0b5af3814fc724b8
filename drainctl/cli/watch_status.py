"""`drainctl status --watch`: the status on a whole screen, looked at again a second after each look."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from drainctl import overview
from drainctl.cli.common import on_signals
from drainctl.cli.show_status import board_of, flag_of, release, said_below, table
from drainctl.model import NodeLook
from drainctl.overview import Status
from drainctl.report.board import Board
from drainctl.report.keys import Keys
from drainctl.report.servers import odd, traffic
from drainctl.report.text import clip
from drainctl.wire import Wired

EVERY_S = 1.0
FRAMES_PER_S = 4


def watch(adapters: Wired) -> None:
    """Until q, Ctrl-C or SIGTERM; the screen of before comes back, and nothing stays."""
    over = threading.Event()
    seen: tuple[Status, Board] | None = None
    console = Console()

    def frame() -> Group:
        if seen is None:
            return Group(Text("looking …"))
        return Group(*screen(*seen, *console.size))

    keys = Keys(lambda key: over.set() if key == "q" else None)
    live = Live(console=console, get_renderable=frame, refresh_per_second=FRAMES_PER_S, screen=True)
    with _stopped_by(over), live:
        keys.start()
        try:
            while not over.is_set():
                status = overview.status(adapters)
                seen = status, _gone_on(seen[1] if seen else None, status)
                over.wait(EVERY_S)
        finally:
            keys.stop()


def _gone_on(board: Board | None, status: Status) -> Board:
    """The board of before with the new looks; a new one where the servers are others now."""
    if board is None or board.places != status.places:
        return board_of(status)
    for look in status.survey.tables.values():
        board.look(look)
    return board


@contextmanager
def _stopped_by(over: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `over` inside the block."""

    def stop(_number: int, _frame: object) -> None:
        over.set()

    with on_signals(stop):
        yield


# ---------------------------------------------------------------- the screen


def screen(status: Status, board: Board, width: int, height: int) -> list[Text]:
    """Lines, none wider than `width`, and no more than `height`; of many nodes, those that stand out."""
    names, cluster = status.cluster.names, status.cluster
    at = time.strftime("%H:%M:%S UTC", time.gmtime())
    head = f"{cluster.app} · {len(names)} nodes, {len(board.balancers)} balancers · {at}"
    lines = [Text(clip(f"{head} · q leaves", width), style="bold", no_wrap=True), Text()]
    below = [Text(line, no_wrap=True) for line in said_below(status, width)]
    flow = traffic(board, width)
    room = height - len(lines) - len(flow) - 1
    shown = table(status, board, names)
    if len(shown) + len(below) > room:
        few = _standing_out(status, board)
        shown = table(status, board, few)[: max(room - min(len(below), room // 2), 2)]
        shown.append(f"{len(names) - len(shown) + 1} others: {_in_common(status, set(few))}")
    lines += [_line(text, width) for text in shown]
    return [*lines, *below[: max(room - len(shown), 0)], Text(), *flow][:height]


def _line(text: str, width: int) -> Text:
    line = Text(clip(text, width), no_wrap=True)
    for word, style in (("UP", "green"), ("NOLB", "yellow"), ("DRAIN", "yellow"), ("MAINT", "yellow")):
        line.highlight_words([f" {word}"], style)
    line.highlight_words([" DOWN", " ?", "error"], "bold red")
    return line


def _standing_out(status: Status, board: Board) -> list[str]:
    """Nodes that are not UP everywhere, are flagged, do not answer 200, or run another release than most."""
    looks = {name: status.survey.nodes.get(name, NodeLook()) for name in status.cluster.names}
    usual = _usual(looks)
    strange = set(odd(board, status.cluster.names))
    return [
        name
        for name, look in looks.items()
        if name in strange or flag_of(look) or str(look.check) != "200" or release(look) != usual
    ]


def _usual(looks: dict[str, NodeLook]) -> str:
    return Counter(release(look) for look in looks.values()).most_common(1)[0][0]


def _in_common(status: Status, few: set[str]) -> str:
    looks = {name: look for name, look in status.survey.nodes.items() if name not in few}
    return f"on {_usual(looks)}, UP everywhere, /http-check 200" if looks else "not looked at"
