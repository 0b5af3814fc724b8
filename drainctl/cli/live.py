"""
What the live view shows of the balancers: the looks that the rollout makes anyway, and whole tables.

The tables are asked for once a second and only while the view is on; without a terminal, never.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from drainctl.errors import ConfigError
from drainctl.model import BalancerLook
from drainctl.rollout.places import find_places

if TYPE_CHECKING:
    from drainctl.controller import Controller
    from drainctl.report.terminal import TerminalReport
    from drainctl.wire import Wired

EVERY_S = 1.0
FIRST_S = 0.1  # so often it is asked whether the view is on already
LIMIT_S = 2.0  # a balancer that is slower than that has no traffic in this second


@contextmanager
def shown(view: TerminalReport, adapters: Wired, controller: Controller) -> Iterator[None]:
    """While the block runs, the view shows the servers and the traffic, and its key p pauses the rollout."""
    over = threading.Event()

    def look(look: BalancerLook) -> None:
        with suppress(Exception):  # a defect of the view must not stop a rollout, which waits for this look
            view.look(look)

    def tables() -> None:
        while not over.wait(EVERY_S if view.on else FIRST_S):
            if view.on:
                _overview(view, adapters)

    view.pause = lambda: controller.ask("pause")
    adapters.fleet.on_look(look)
    thread = threading.Thread(target=tables, name="live view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        view.close()


def _overview(view: TerminalReport, adapters: Wired) -> None:
    """Every balancer's whole table; the first makes the board, the others come to it by `on_look`."""
    from drainctl.report.board import Board

    with suppress(Exception):  # as above; the rollout meets the same fault by itself, and tells it
        looks = adapters.fleet.overview(LIMIT_S)
        if view.has_board:
            return
        cluster = adapters.cluster
        try:
            places = find_places(cluster, looks)
        except ConfigError:  # a balancer is not as it should be: the rollout says what to do about it
            return
        board = Board([balancer.name for balancer in cluster.balancers], places)
        for found in looks.values():
            board.look(found)
        view.show(board)
