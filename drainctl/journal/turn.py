"""Whoever waits for the lease is told who holds it: at once, and then now and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from drainctl.journal.door import Lease

TOLD_EVERY_S = 20.0


class Turn:
    """One wait for the lease. wait_s: how long, seconds; 0: not at all. say: gets a line for people."""

    def __init__(
        self, wait_s: float, say: Callable[[str], object], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._say = say
        self._clock = clock
        self._end = clock() + wait_s
        self._next = clock()

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - self._clock())

    def held_by(self, lease: Lease | None) -> None:
        """It is still held. lease: as the store has it; None: it has just become free."""
        now = self._clock()
        if lease is None or not self.left_s or now < self._next:
            return
        self._next = now + TOLD_EVERY_S
        since = time.strftime("%H:%M:%S UTC", time.gmtime(lease.since_s))
        self._say(
            f"waiting up to {self.left_s:.0f} s for {lease.holder}, who holds the lease on {lease.cluster} "
            f"for rollout {lease.rollout} since {since}"
        )
