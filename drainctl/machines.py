"""
The machines of a replicated data store (strategy arb), as a rollout sees and marks them.

Nothing is opened before it is used; a cluster without a section `arb` has none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from drainctl.errors import BoardError
from drainctl.http import Http
from drainctl.model import Answer, Arb, Cluster, Mark, Node, StoreLook

if TYPE_CHECKING:
    from drainctl.arb.boards import OpenBoard

WRITTEN_S = 5.0  # how long a mark may take until it stands where the clients read it


class Machines:
    """
    Looks at the machines, and marks them. Safe to use from the threads of all nodes in flight.

    Args:
        cluster: its section `arb` says where the board is and what is asked.
        http: asks.
        fill: (node, text) → the text with the node's placeholders filled.
    """

    def __init__(self, cluster: Cluster, http: Http, fill: Callable[[Node, str], str]) -> None:
        self._cluster = cluster
        self._http = http
        self._fill = fill
        self._opened: OpenBoard | None = None
        self._lock = threading.Lock()

    def look(self, node: Node) -> StoreLook | None:
        """One machine; None where the cluster is no data store."""
        arb = self._cluster.arb
        return None if arb is None else self._look(arb, node)

    def replicas(self, node: Node) -> Mapping[str, StoreLook]:
        """The others that hold this machine's data, by name."""
        arb = self._cluster.arb
        pairs = arb.pairs if arb else ()
        others = [name for pair in pairs if node.name in pair for name in pair if name != node.name]
        return {name: self._look(arb, self._cluster.node(name)) for name in others if arb}

    def name(self, node: Node) -> str:
        """`host:port`, as boards and clients know it: that of arb.check."""
        from urllib.parse import urlsplit

        url = urlsplit(self._fill(node, self._cluster.arb.check if self._cluster.arb else ""))
        host = f"[{url.hostname}]" if url.hostname and ":" in url.hostname else url.hostname or ""
        return f"{host}:{url.port or (443 if url.scheme == 'https' else 80)}"

    def down(self, node: Node, rollout: str, why: str, lasts_s: float | None) -> str:
        """
        Mark it down; says until when, in words.

        Raises: BoardError where the board cannot be written, or somebody else has marked the machine.
        """
        from drainctl.arb.board import Down, user

        self._refuse_strangers(node, rollout)
        now = time.time()
        until = None if lasts_s is None else now + lasts_s
        board = self._board()
        board.mark(Down(self.name(node), now, until, user(), why, by_hand=True, rollout=rollout))
        self._written(board, node)
        return f"{self.name(node)} marked down" + (f" for {lasts_s:.0f} s at most" if lasts_s else "")

    def up(self, node: Node, rollout: str) -> str:
        """Take the mark away. Raises: BoardError as `down`."""
        self._refuse_strangers(node, rollout)
        board = self._board()
        board.lift(self.name(node), by_hand=True)
        self._written(board, node)
        return f"{self.name(node)} no longer marked down"

    def close(self) -> None:
        """Close the board. May be called twice."""
        with self._lock:
            board, self._opened = self._opened, None
        if board is not None:
            board.close()

    # -------------------------------------------------------- looking

    def _look(self, arb: Arb, node: Node) -> StoreLook:
        lag_s, lag_error = self._number(node, arb.lag)
        active, active_error = self._number(node, arb.active)
        mark, board_error = self._mark(node)
        return StoreLook(
            check=self._get(node, arb.check),
            lag_s=lag_s,
            lag_error=lag_error,
            active=None if active is None else int(active),
            active_error=active_error,
            mark=mark,
            board_error=board_error,
        )

    def _get(self, node: Node, url: str) -> Answer:
        return self._http.get(self._fill(node, url), timeout_s=self._cluster.health.timeout_s)

    def _number(self, node: Node, url: str | None) -> tuple[float | None, str]:
        """What the page says, or None and why it is not known."""
        if not url:
            return None, "no page is configured"
        answer = self._get(node, url)
        if answer.status != 200:
            return None, f"{self._fill(node, url)} answers {answer}"
        try:
            return float(answer.body), ""
        except ValueError:
            return None, f"{self._fill(node, url)} answers {answer.body.strip()[:60]!r}, no number"

    def _mark(self, node: Node) -> tuple[Mark | None, str]:
        board = self._board()
        found = board.down().get(self.name(node))
        if board.trouble:
            return None, board.trouble
        return (Mark(found.by, found.why, found.by_hand, found.rollout) if found else None), ""

    # -------------------------------------------------------- the board

    def _board(self) -> OpenBoard:
        """Opened at first use, with everything that it needs."""
        from drainctl.arb.boards import board_of

        with self._lock:
            if self._opened is None:
                self._opened = board_of(self._cluster.arb.board if self._cluster.arb else "")
            return self._opened

    def _refuse_strangers(self, node: Node, rollout: str) -> None:
        found = self._board().down().get(self.name(node))
        if found is not None and found.by_hand and found.rollout != rollout:
            who = f"rollout {found.rollout}" if found.rollout else found.by
            raise BoardError(
                f"{node.name} is marked down by {who}: {found.why}",
                node=node.name,
                hint=f"`drainctl arb up {self.name(node)}` when that is over",
            )

    def _written(self, board: OpenBoard, node: Node) -> None:
        if not board.written(WRITTEN_S):
            why = board.trouble or f"no answer in {WRITTEN_S:g} s"
            raise BoardError(
                f"{node.name}: the board cannot be written: {why}",
                node=node.name,
            )
