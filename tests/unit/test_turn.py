"""Whoever waits for the lease hears who holds it, at once and then seldom."""

from __future__ import annotations

from drainctl.journal.door import Lease
from drainctl.journal.lease import me
from drainctl.journal.turn import TOLD_EVERY_S, Turn

LEASE = Lease("shop", "r1", me(), 7, 0.0, 15.0)


def test_it_is_told_at_once_and_then_now_and_again():
    now, said = [100.0], []
    turn = Turn(60, said.append, clock=lambda: now[0])
    for _ in range(10):
        turn.held_by(LEASE)
    assert said == [
        f"waiting up to 60 s for {me()}, who holds the lease on shop for rollout r1 since 00:00:00 UTC"
    ]
    now[0] += TOLD_EVERY_S
    turn.held_by(LEASE)
    assert said[1].startswith("waiting up to 40 s for ")
    now[0] += 60
    turn.held_by(LEASE)
    assert len(said) == 2, "it does not wait any more"


def test_who_does_not_wait_is_told_nothing():
    said = []
    turn = Turn(0, said.append)
    turn.held_by(LEASE)
    assert (turn.left_s, said) == (0.0, [])
