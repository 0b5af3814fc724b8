"""
drainctl that gets a signal at a chosen moment: the real command line, with the performer of acts wrapped.

    python dying_drainctl.py --trace FILE [--at before:restart --send KILL] -- -c drainctl.yml deploy …

Moments are `before:`, `during:` or `after:` an act, named by the step that it belongs to. What is sent is
KILL, TERM or INT, several with commas. Each goes to this process alone; of those that drainctl handles,
each is handled before the next is sent and before the act goes on. `--trace` gets one line per moment that
was reached: `before flag web1`. `--node` limits all of that to one node.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from drainctl import cli
from drainctl.journal.sqlite import SqliteStore
from drainctl.rollout.perform import Performer
from drainctl.rollout.world import Stop

# The step that an act belongs to, by the act's class (and by what it says, where two steps share one).
STEPS = {
    "Stage": "stage",
    "SetFlag": "flag",
    "Nudge stopping": "out",
    "Switch": "switch",
    "RunOnNode": "restart",
    "Warm": "warm",
    "ClearFlag": "restore",
    "Nudge up": "up",
}
HANDLED_S = 10.0
T = TypeVar("T")
IN_THE_MIDDLE_S = (
    0.05  # after this long an act is taken to be in its middle: a restart takes several times that
)


def step_of(act: object) -> str:
    """Raises: KeyError for an act that this file does not know, so that a new one is not left out."""
    name = type(act).__name__
    return STEPS[f"{name} {act.health}" if name == "Nudge" else name]  # type: ignore[attr-defined]


class Moments:
    """Writes each moment down, and sends the signals when the chosen one is reached."""

    def __init__(self, trace: str, node: str | None, at: str | None, send: list[signal.Signals]) -> None:
        self._trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._node = node
        self._at = at
        self._send = send
        self._handled = threading.Semaphore(0)

    def act(self, node: str, step: str, do: Callable[[], T]) -> T:
        """`do`, between its two moments. node: "-" for what is of no node."""
        if node not in {self._node, "-"} and self._node is not None:
            return do()
        self._reached("before", step, node)
        if self._at == f"during:{step}":
            timer = threading.Timer(IN_THE_MIDDLE_S, self._reached, ("during", step, node))
            timer.start()
        said = do()
        self._reached("after", step, node)
        return said

    def handled(self) -> None:
        """drainctl took note of a signal."""
        self._handled.release()

    def _reached(self, when: str, step: str, node: str) -> None:
        os.write(self._trace, f"{when} {step} {node}\n".encode())
        if self._at != f"{when}:{step}":
            return
        self._at = None
        for number in self._send:
            os.kill(os.getpid(), number)
            if not self._handled.acquire(timeout=HANDLED_S):
                os.write(2, f"{number.name} was not handled within {HANDLED_S:g} s\n".encode())
                os._exit(99)


def wrap(moments: Moments) -> None:
    """
    Every act goes by `moments`; so do what makes a rollout known (begin) and the deletion of old releases at
    its end (prune), which are no steps of a node.
    """
    act, prune, ask, register = Performer.__call__, Performer.prune, Stop.ask, SqliteStore.register

    def beginning(self: SqliteStore, cluster: str, rollout: str) -> None:
        moments.act("-", "begin", lambda: register(self, cluster, rollout))

    def acting(self: Performer, node: Any, what: Any) -> str:
        return moments.act(node.name, step_of(what), lambda: act(self, node, what))

    def pruning(self: Performer, node: Any, protect: frozenset[str]) -> str:
        return moments.act(node.name, "prune", lambda: prune(self, node, protect))

    def asking(self: Stop) -> None:
        ask(self)
        moments.handled()

    SqliteStore.register = beginning  # type: ignore[method-assign]
    Performer.__call__ = acting  # type: ignore[method-assign,assignment]
    Performer.prune = pruning  # type: ignore[method-assign]
    Stop.ask = asking  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description="drainctl that gets a signal at a chosen moment")
    parser.add_argument("--trace", required=True)
    parser.add_argument("--node")
    parser.add_argument("--at")
    parser.add_argument("--send", default="KILL")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    send = [signal.Signals[f"SIG{name}"] for name in asked.send.split(",")]
    wrap(Moments(asked.trace, asked.node, asked.at, send))
    sys.argv = ["drainctl", *asked.rest[1:]]
    cli.main()


if __name__ == "__main__":
    main()
