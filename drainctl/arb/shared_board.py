"""
A board that all machines share, through a store that may be slow or away.

No request ever waits for the store: it reads a copy in memory, and what it has to say is said in that copy
first. A thread of the board's own writes it, reads what others said, and asks for the locks by which one
process of all probes. While the store answers, the copy is at most `EVERY_S` plus one look (bounded by
`LIMIT_S`) old. While it does not, the copy stands: marks in it lapse at their end, the process knows what it
has seen itself and probes for itself, and all of that is written when the store is back.

Clocks of the machines are compared (`Down.until`): an hour's difference is an hour's error, so keep NTP on.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Protocol

from drainctl.arb.board import NOBODY, Down, Marks, lifted, marked, standing

EVERY_S = 0.5
LIMIT_S = 1.0  # most that one question to the store may take
FIRST_S = 0.5  # how long opening a board waits for its first look: at most, and never again
CLOSE_S = 3.0

Change = Callable[[Marks], Marks]


class Shelf(Protocol):
    """Where the marks are kept. Used by one thread; any exception means: away, open another later."""

    def read(self) -> Marks:
        """The marks as they stand."""

    def change(self, change: Change) -> Marks:
        """Read, change, write as one; returns what stands then."""

    def take(self, what: str) -> bool:
        """Take the lock `what`, or keep it: gone soon after its holder. Never waits."""

    def taken(self, what: str) -> bool:
        """Whether anybody holds it."""

    def leave(self, what: str) -> None:
        """Let go of it; one that is not held here: nothing."""

    def close(self) -> None:
        """Let go of everything."""


class SharedBoard:
    """
    A board on a shelf.

    Args:
        open_shelf: connects; called in the board's thread, again after each failure.
        every_s: time between two looks; less after a change of one's own.
        first_s: how long to wait here for the first look; a process that asks at once then knows who is down.

    Attributes:
        trouble: why the store could not be reached the last time; "" when all is well.

    Raises: nothing, whatever the store does.
    """

    def __init__(
        self, open_shelf: Callable[[], Shelf], *, every_s: float = EVERY_S, first_s: float = FIRST_S
    ) -> None:
        self.trouble = "not read yet"
        self._open_shelf = open_shelf
        self._every_s = every_s
        self._shared: Marks = NOBODY
        self._local: Marks = NOBODY  # what is shared, and what was said here on top
        self._unwritten: dict[tuple[str, str], Change] = {}
        self._wanted: set[str] = set()
        self._held: frozenset[str] = frozenset()
        self._looks = 0
        self._serving: _Serving | None = None
        self._changed = threading.Condition()
        ours = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(ours()))
        self._serve()
        with self._changed:
            self._changed.wait_for(lambda: self._looks, first_s)

    def down(self) -> Marks:
        """Who is down now, by the copy in memory: well below 1 µs while nobody is."""
        if self._serving is None:
            self._serve()
        return standing(self._local, time.time()) if self._local else NOBODY

    def mark(self, down: Down) -> None:
        """Add or renew a mark: here at once, for all others as soon as the store has it."""
        kind = "mark by hand" if down.by_hand else "mark"
        self._say(down.machine, kind, lambda marks: marked(marks, down))

    def lift(self, machine: str, *, by_hand: bool = False) -> None:
        """Take a mark away."""
        kind = "lift by hand" if by_hand else "lift"
        self._say(machine, kind, lambda marks: lifted(marks, machine, by_hand=by_hand))

    def probing(self, *, watch: bool) -> bool:
        """Whether this process is the one of all that probes; while the store is away, each is."""
        what = "watch" if watch else "probe"
        with self._changed:
            if what not in self._wanted:
                self._wanted.add(what)
                self._wake()
        return bool(self.trouble) or what in self._held

    def rest(self, *, watch: bool) -> None:
        """Stop being the one that probes."""
        with self._changed:
            self._wanted.discard("watch" if watch else "probe")

    def written(self, limit_s: float) -> bool:
        """Wait until the store has all that was said here and was looked at since, or for limit_s seconds."""
        with self._changed:
            seen = self._looks
            self._wake()
            return self._changed.wait_for(lambda: self._looks > seen and not self._unwritten, limit_s)

    def close(self) -> None:
        """Write what is left, if the store answers, and end the thread. A later call begins again."""
        with self._changed:
            serving, self._serving = self._serving, None
        if serving is not None:
            serving.stop()
            serving.thread.join(CLOSE_S)

    def _say(self, machine: str, kind: str, change: Change) -> None:
        with self._changed:
            # Of what was not written yet, the last word of each kind says it all: however long the store is
            # away, no more than four per machine are kept, in the order in which they were said.
            self._unwritten.pop((machine, kind), None)
            self._unwritten[machine, kind] = change
            self._local = change(standing(self._local, time.time()))
        self._wake()

    def _serve(self) -> None:
        with self._changed:
            if self._serving is None:
                self._serving = _Serving(self, self._open_shelf, self._every_s)
                self._serving.thread.start()

    def _wake(self) -> None:
        if self._serving is None:
            self._serve()
        elif not self._serving.ended:
            self._serving.wake.set()

    # -------------------------------------------------------- in the board's own thread

    def look(self, shelf: Shelf) -> None:
        """Write what was said, read what stands, ask for the locks. Raises: whatever the shelf does."""
        with self._changed:
            saying, wanted = dict(self._unwritten), frozenset(self._wanted)
        shared = shelf.change(partial(_all, tuple(saying.values()))) if saying else shelf.read()
        held = _locks(shelf, wanted)
        with self._changed:
            self._unwritten = {
                key: change for key, change in self._unwritten.items() if saying.get(key) is not change
            }
            self._shared = shared
            self._local = _all(tuple(self._unwritten.values()), shared)
            self._held, self.trouble = held, ""
            self._looks += 1
            self._changed.notify_all()

    def away(self, error: Exception) -> None:
        """The store did not answer."""
        with self._changed:
            words = str(error) or str(error.__context__ or type(error).__name__)
            self.trouble = " ".join(words.split())[:200]
            self._held = frozenset()

    def forget(self) -> None:
        """In the child of a fork: the thread is the parent's, and so is its connection."""
        self._changed = threading.Condition()
        self._serving = None
        self._wanted, self._held = set(), frozenset()


class _Serving:
    """The thread of a board. It must not keep a board alive that everybody else has forgotten."""

    def __init__(self, board: SharedBoard, open_shelf: Callable[[], Shelf], every_s: float) -> None:
        self.wake = threading.Event()
        self.ended = False
        self._board = weakref.ref(board)
        self._open_shelf = open_shelf
        self._every_s = every_s
        self.thread = threading.Thread(target=self._run, name="drainctl-arb-board", daemon=True)

    def stop(self) -> None:
        self.ended = True
        self.wake.set()

    def _run(self) -> None:
        shelf: Shelf | None = None
        while True:
            self.wake.clear()
            last = self.ended
            board = self._board()
            if board is None:
                break
            try:
                shelf = shelf or self._open_shelf()
                board.look(shelf)
            except Exception as error:  # noqa: BLE001  each store has its own, and none may end this thread
                board.away(error)
                _closed(shelf)
                shelf = None
            del board
            if last:
                break
            self.wake.wait(self._every_s * random.uniform(0.8, 1.0))  # noqa: S311  no secret
        _closed(shelf)


def _closed(shelf: Shelf | None) -> None:
    if shelf is not None:
        with contextlib.suppress(Exception):
            shelf.close()


def _all(changes: tuple[Change, ...], marks: Marks) -> Marks:
    """The marks after all these changes, without those that have lapsed."""
    now = time.time()
    marks = standing(marks, now)
    for change in changes:
        marks = change(marks)
    return standing(marks, now)


def _locks(shelf: Shelf, wanted: frozenset[str]) -> frozenset[str]:
    """Takes what is wanted and free; who probes only what is down has leave while anybody watches all."""
    for what in {"watch", "probe"} - wanted:
        shelf.leave(what)
    held = {what for what in ("watch",) if what in wanted and shelf.take(what)}
    if "probe" in wanted:
        if shelf.taken("watch"):
            shelf.leave("probe")
        elif shelf.take("probe"):
            held.add("probe")
    return frozenset(held)


def _forget(board: SharedBoard | None) -> None:
    if board is not None:
        board.forget()
