"""
Requests in flight, and the thread that looks after them.

A machine that is frozen keeps its connections alive, and a read limit of minutes is right for long queries.
So when the board shows a machine down, by a fault and not by hand, what waits for it and may be sent twice is
taken off it: the socket is shut down below the waiting thread, which wakes at once and asks the replica.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable

from drainctl.arb.board import Board
from drainctl.arb.policy import Fault, Try
from drainctl.arb.shards import Machine

LOOK_S = 0.25


class Attempt:
    """One try of one request at one machine, as its connection and the thread that looks after it see it."""

    __slots__ = (
        "answered",
        "began",
        "board",
        "fault",
        "hung",
        "known_down",
        "machine",
        "movable",
        "read_s",
        "reused",
        "sent",
        "sock",
    )

    def __init__(self, machine: Machine, board: Board, *, known_down: bool, movable: bool) -> None:
        self.machine = machine
        self.board = board
        self.known_down = known_down  # marked before we began: asked all the same, since nobody else was left
        self.movable = movable
        self.began = time.monotonic()
        self.reused = True
        self.sent = False
        self.answered = False
        self.hung = False
        self.read_s: float | None = None
        self.fault: Fault | None = None
        self.sock: socket.socket | None = None

    def learned(self) -> bool:
        """Whether the machine was marked down since we began."""
        return not self.known_down and self.machine.name in self.board.down()


class InFlight:
    """
    The attempts of a client, and what became of them.

    Attributes:
        answered: answers, by machine.
        failed: failed tries, by (machine, fault).
        lost_s: seconds spent on failed tries.
    """

    def __init__(self, board: Board, trouble: Callable[[], None]) -> None:
        """Args: trouble: called, in the thread, each time the board shows a fault."""
        self.answered: Counter[str] = Counter()
        self.failed: Counter[tuple[str, Fault]] = Counter()
        self.lost_s = 0.0
        self._board = board
        self._trouble = trouble
        self._attempts: set[Attempt] = set()
        self._lock = threading.Lock()
        self._stop: threading.Event | None = None
        ours = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(ours()))

    def begin(self, attempt: Attempt) -> None:
        """Look after this one until `end`."""
        if self._stop is None:
            self._start()
        with self._lock:
            self._attempts.add(attempt)

    def end(self, attempt: Attempt) -> None:
        """It has an answer."""
        with self._lock:
            self._attempts.discard(attempt)
            self.answered[attempt.machine.name] += 1

    def drop(self, attempt: Attempt) -> None:
        """It has none; `ended` may follow."""
        with self._lock:
            self._attempts.discard(attempt)

    def lost(self, one: Try) -> None:
        """Take down a failed try."""
        with self._lock:
            self.failed[one.machine, one.fault] += 1
            self.lost_s += one.took_s

    def close(self) -> None:
        """End the thread; the next request starts another."""
        with self._lock:
            stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def _start(self) -> None:
        with self._lock:
            if self._stop is not None:
                return
            self._stop = threading.Event()
        # The thread must not keep a client alive that everybody else has forgotten.
        arguments = (weakref.ref(self), self._stop)
        threading.Thread(target=_look_after, args=arguments, name="drainctl-arb", daemon=True).start()

    def look(self) -> None:
        """One look at the board; takes off what waits for a machine that has been found dead."""
        down = self._board.down()
        if not down:
            return
        if not all(mark.by_hand for mark in down.values()):
            self._trouble()
        with self._lock:
            for attempt in self._attempts:
                mark = down.get(attempt.machine.name)
                if mark and not mark.by_hand and attempt.sent and attempt.movable and not attempt.known_down:
                    attempt.hung = True
                    if attempt.sock is not None:
                        with contextlib.suppress(OSError):
                            # The kernel's shutdown alone: a TLS socket's own would pull its state from below
                            # a reader.
                            socket.socket.shutdown(attempt.sock, socket.SHUT_RDWR)

    def forget(self) -> None:
        """In the child of a fork: threads and requests are the parent's."""
        self._lock = threading.Lock()
        self._attempts = set()
        self._stop = None


def _look_after(client: weakref.ref[InFlight], stop: threading.Event) -> None:
    while not stop.wait(LOOK_S):
        in_flight = client()
        if in_flight is None:
            return
        in_flight.look()
        del in_flight


def _forget(in_flight: InFlight | None) -> None:
    if in_flight is not None:
        in_flight.forget()
