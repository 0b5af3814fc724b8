"""
Nodes that must stay out of rotation stay out, whatever the balancers forget.

A reloaded HAProxy takes every server for UP until its first check, up to one `inter` later: long enough
to send requests to a stopped app. So while a node is worked on, every look at a balancer is searched for
strays, and a stray is nudged out again at once where the socket allows it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from drainctl.model import BalancerLook, Node, Place, Word

EVERY_S = 0.1


class KeepOut:
    """The set of nodes that must be out, and what is done about strays. Safe to use from any thread."""

    def __init__(
        self,
        places: Mapping[str, tuple[Place, ...]],
        *,
        nudge: Callable[[Node, str], str],
        tell: Callable[[Node, str], None],
    ) -> None:
        """nudge(node, balancer) tells that balancer again; tell(node, text) records what was done."""
        self._places = places
        self._nudge = nudge
        self._tell = tell
        self._nodes: dict[str, Node] = {}
        self._pids: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, node: Node) -> None:
        with self._lock:
            self._nodes[node.name] = node

    def discard(self, node: Node) -> None:
        with self._lock:
            self._nodes.pop(node.name, None)

    def look(self, look: BalancerLook) -> None:
        """A listener of the fleet: called with every look, from the balancer's own thread."""
        if look.error or look.process is None:
            return
        with self._lock:
            nodes = list(self._nodes.values())
            known = self._pids.get(look.balancer)
            if look.process.pid is not None:
                self._pids[look.balancer] = look.process.pid
        if known is not None and known != look.process.pid:
            for node in nodes:
                self._tell(
                    node, f"{look.balancer} runs as another process now (pid {known} -> {look.process.pid})"
                )
        for node in nodes:
            if _is_stray(look, self._places[node.name]):
                self._tell(
                    node, f"{look.balancer} took it back into rotation: {self._nudge(node, look.balancer)}"
                )


def _is_stray(look: BalancerLook, places: tuple[Place, ...]) -> bool:
    rows = [look.row(place.backend, place.server) for place in places if place.balancer == look.balancer]
    return any(row is not None and row.status.word is Word.UP for row in rows)
