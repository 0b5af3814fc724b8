"""
Any interleaving of crashes, lost replies, balancers that flap and steps that take long keeps the invariants:

- no node leaves that is the last one seen up (keep_up), and none is restarted that is seen up or busy;
- no controller acts after another one has: a lease that was taken over stops its old holder;
- between any two lives every node's state follows from the journal, or the journal from it;
- when the weather is calm again, `resume` or `abort` ends in a known state, and so does every node.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storm_kit import MISHAPS, Storm, small

from drainctl.rollout import roll

MORE = 10 if os.environ.get("DRAINCTL_SOAK") else 1
LIVES = 4
Shape = tuple[int, int, int]  # nodes, balancers, nodes at once

mishaps = st.lists(
    st.tuples(st.integers(-20, 160).map(lambda at: max(at, 0)), st.sampled_from(MISHAPS), st.integers(1, 8)),
    max_size=5,
)


def held(shapes: Sequence[Shape], count: int) -> Callable[..., None]:
    """A test of `count` schedules, ten times as many with DRAINCTL_SOAK=1, over clusters of these shapes."""

    @settings(
        max_examples=count * MORE,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(
        schedule=mishaps,
        shape=st.sampled_from(shapes),
        admin=st.booleans(),
        breaks=st.sampled_from(["", "", "", "v2"]),
        on_failure=st.sampled_from(["roll-back", "halt"]),
        end=st.sampled_from(["resume", "abort"]),
        seed=st.integers(0, 3),
    )
    def test(
        monkeypatch: Any,
        schedule: list[tuple[int, str, int]],
        shape: Shape,
        admin: bool,
        breaks: str,
        on_failure: str,
        end: str,
        seed: int,
    ) -> None:
        nodes, balancers, at_once = shape
        storm = Storm(
            small(nodes, balancers, at_once, on_failure=on_failure),
            admin=admin,
            breaks=frozenset({breaks} - {""}),
            schedule=tuple(schedule),
            seed=seed,
        )
        monkeypatch.setattr(
            roll, "in_parallel", lambda tasks, at_once=32: storm.turns.in_parallel(tasks, at_once)
        )
        play(storm, end)

    return test


def play(storm: Storm, end: str) -> None:
    """Lives of controllers while the schedule lasts, then calm."""
    storm.begin(storm.plans)
    outcome = None
    for _ in range(LIVES):
        outcome = storm.go_on()
        assert storm.wrong == []
        assert storm.derivable() == []
        if outcome is not None:
            break
        storm._pass(2.0)  # a lease that nobody renews runs out
    calm(storm, outcome, end)


def calm(storm: Storm, outcome: roll.Outcome | None, end: str) -> None:
    """What happened is over; whoever is on call goes on or takes back, and then all is known."""
    storm._pass(5.0)
    ended = outcome.outcome if outcome else None
    if ended is None and storm.second_ended:
        ended = storm.second_ended.outcome
    if ended not in {"done", "put-back"}:
        ended = again(storm, end)
    if ended not in {"done", "put-back"}:
        ended = again(storm, "abort")  # a release that does not start can only be taken back
    assert storm.wrong == []
    assert storm.derivable() == []
    assert ended in {"done", "put-back"}
    wanted = "v2" if ended == "done" else "v1"
    assert {(at.current, at.running, at.flag) for at in storm.nodes.values()} == {(wanted, wanted, False)}
    storm._pass(2.0)
    assert {word.value for word in storm.words.values()} == {"UP"}


def again(storm: Storm, end: str) -> str:
    outcome = storm.go_on(back=end == "abort", calm=True)
    assert outcome is not None
    return outcome.outcome
