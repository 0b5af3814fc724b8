"""
The down board: which machines are down, since when, who said so, until when.

A board is shared: by the threads of a process (`MemoryBoard`), by the processes of a machine
(`drainctl.arb.file_board.FileBoard`), or by all machines through anything that keeps the few promises of
`Board`.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Protocol

WORDS = 200  # longest `by` and `why`, characters: a board is for machines that are in a hurry


@dataclass(frozen=True, slots=True)
class Down:
    """
    One machine that is down.

    Attributes:
        machine: `host:port`.
        since: when it was first said, seconds of Unix time.
        until: when the word lapses unless it is renewed, seconds of Unix time; None: never by itself.
        by: who said so: `host:pid`, or a person.
        why: in words.
        by_hand: said by a person or a rollout: no probe lifts it, and queries in flight are left in peace.
        rollout: the id of the rollout that said so; "" for a person or a fault.
    """

    machine: str
    since: float
    until: float | None
    by: str
    why: str
    by_hand: bool = False
    rollout: str = ""

    def __post_init__(self) -> None:
        for field in ("by", "why"):
            words = " ".join(getattr(self, field).split())[:WORDS]
            object.__setattr__(self, field, words)


Marks = Mapping[str, Down]
NOBODY: Marks = {}


class Board(Protocol):
    """What a client needs of a board. No method raises for what a disk or a network may do."""

    def down(self) -> Marks:
        """
        Who is down now, by `host:port`. At once: from memory where the board cannot be read. Not to be
        changed.
        """

    def mark(self, down: Down) -> None:
        """Add or renew a mark. A fault never replaces what was said by hand; `since` is kept on renewal."""

    def lift(self, machine: str, *, by_hand: bool = False) -> None:
        """Take a mark away; one that was set by hand only with `by_hand`."""

    def probing(self, *, watch: bool) -> bool:
        """
        Whether this caller is the one that probes, until `rest`; never waits.

        Args:
            watch: a prober of all machines. While there is one, those that probe only what is down have
                leave.
        """

    def rest(self, *, watch: bool) -> None:
        """Stop being the one that probes."""


def me() -> str:
    """Who says so: `host:pid`."""
    return f"{os.uname().nodename}:{os.getpid()}"


def user() -> str:
    """Who says so, where it is a person or a rollout: `user@host`."""
    import getpass

    return f"{getpass.getuser()}@{os.uname().nodename}"


def fault_mark(machine: str, why: str, hold_s: float) -> Down:
    """A mark that says what a client or a prober saw, for hold_s seconds from now."""
    now = time.time()
    return Down(machine, now, now + hold_s, me(), why)


def marked(marks: Marks, new: Down) -> Marks:
    """The marks with one more."""
    old = marks.get(new.machine)
    if old is not None and old.by_hand and not new.by_hand:
        return marks
    if old is not None and old.by_hand == new.by_hand:
        new = replace(new, since=old.since, by=old.by if not new.by_hand else new.by)
    return {**marks, new.machine: new}


def lifted(marks: Marks, machine: str, *, by_hand: bool) -> Marks:
    """The marks without that machine's, if it may be lifted."""
    old = marks.get(machine)
    if old is None or (old.by_hand and not by_hand):
        return marks
    return {name: down for name, down in marks.items() if name != machine}


def rows_of(marks: Marks) -> list[dict[str, object]]:
    """The marks as JSON can say them; `Down(**row)` reads one. What is empty is left out."""
    return [{name: value for name, value in asdict(mark).items() if value != ""} for mark in marks.values()]


def standing(marks: Marks, now: float) -> Marks:
    """The marks that have not lapsed."""
    return {name: down for name, down in marks.items() if down.until is None or down.until > now}


class MemoryBoard:
    """A board for one process."""

    def __init__(self) -> None:
        self._marks: Marks = NOBODY
        self._lock = threading.Lock()
        self._watched = False

    def down(self) -> Marks:
        """Who is down now."""
        return standing(self._marks, time.time()) if self._marks else NOBODY

    def mark(self, down: Down) -> None:
        """Add or renew a mark."""
        with self._lock:
            self._marks = marked(standing(self._marks, time.time()), down)

    def lift(self, machine: str, *, by_hand: bool = False) -> None:
        """Take a mark away."""
        with self._lock:
            self._marks = lifted(self._marks, machine, by_hand=by_hand)

    def probing(self, *, watch: bool) -> bool:
        """Whether this thread is the one that probes."""
        with self._lock:
            if watch:
                self._watched = True
            return watch or not self._watched

    def rest(self, *, watch: bool) -> None:
        """Stop being the one that probes."""
        with self._lock:
            self._watched = self._watched and not watch
