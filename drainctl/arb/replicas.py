"""
What the session over requests and the client over httpx have in common: all but the sending.

    way = replicas.way(shard, method, url, headers)
    for attempt in way:
        try:
            return send(attempt)  # each client's own
        except … as error:
            way.failed(attempt, fault_of(error, attempt), again=True)
    raise …
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence

from drainctl.arb.board import Board, MemoryBoard, fault_mark
from drainctl.arb.boards import OpenBoard, board_of
from drainctl.arb.in_flight import Attempt, InFlight
from drainctl.arb.policy import Course, Fault, Policy, order, up
from drainctl.arb.prober import Prober
from drainctl.arb.shards import Shard, shards_of


class Replicas:
    """
    The shards of one client, the board that it reads, and the threads that look after both.

    Args:
        shards: shard → its machines' URLs, in the order in which they are asked.
        board: a `Board`, the path of a file that all processes of this machine share, or the URL of a board
            that all machines share (see `board_of`); None: this process alone.
        policy: limits and habits.
        probe: whether a thread of this process probes machines that are down, while nobody else does.
    Raises: ValueError for shards or a board's URL that cannot be.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[str]],
        board: Board | str | os.PathLike[str] | None,
        policy: Policy | None,
        *,
        probe: bool,
    ) -> None:
        self.shards = shards_of(shards)
        self.policy = policy or Policy()
        self._opened: OpenBoard | None = None
        if isinstance(board, str | os.PathLike):
            self._opened = board_of(board)
        self.board: Board = self._opened or (MemoryBoard() if board is None else board)  # type: ignore[assignment]  # a path was opened above
        self.prober = Prober(self.shards, self.board, self.policy) if probe else None
        self.in_flight = InFlight(self.board, self.prober.start if self.prober else lambda: None)

    def way(self, shard: Shard, method: str, url: str, headers: Mapping[str, str]) -> Way:
        """The way of one request through the machines of a shard."""
        return Way(self, shard, self.policy.repeatable(method, url, headers))

    def close(self) -> None:
        """End the threads; close the board if it was opened here."""
        self.in_flight.close()
        if self.prober is not None:
            self.prober.stop()
        if self._opened is not None:
            self._opened.close()


class Way:
    """
    One request's way: an iterator of the attempts to be made, each at the machine that is next.

    Whoever makes them reports each failure by `failed`, or stops at an answer.

    Attributes:
        course: the rules' view of it.
    """

    __slots__ = ("_down", "_movable", "_replicas", "_shard", "course")

    def __init__(self, replicas: Replicas, shard: Shard, repeatable: bool) -> None:
        self._replicas = replicas
        self._shard = shard
        self._movable = repeatable and replicas.policy.move
        self._down = down = replicas.board.down()
        ways = order(shard, {name: mark.by_hand for name, mark in down.items()}) if down else shard.machines
        self.course = Course(ways, repeatable)

    def __iter__(self) -> Iterator[Attempt]:
        course, board = self.course, self._replicas.board
        while (machine := course.machine) is not None:
            yield Attempt(machine, board, known_down=machine.name in self._down, movable=self._movable)

    def failed(self, attempt: Attempt, fault: Fault, *, again: bool) -> None:
        """
        Judges a failed attempt, and marks the machine where that is due.

        Args:
            attempt: the one that was yielded last.
            fault: what went wrong with it.
            again: whether the body can be sent once more; where not, nobody else is asked.
        """
        replicas, course = self._replicas, self.course
        took_s = time.monotonic() - attempt.began
        if course.failed(fault, reused=attempt.reused, took_s=took_s):
            why = f"{fault.words} ({took_s:.2f} s)"
            replicas.board.mark(fault_mark(attempt.machine.name, why, replicas.policy.hold_s))
        replicas.in_flight.lost(course.tries[-1])
        if course.machine is None:
            course.once_more(up(self._shard, replicas.board.down()))
        if not again:
            course.end()
