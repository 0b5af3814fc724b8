"""
How long a rollout will take, and how that is known. Pure.

    drainctl.yml says     watch.for, and half a check interval where a balancer must be waited for
    the journal says      the median of each step in the last finished rollouts; it wins, but for watch.for
    neither               not known yet, and then the total is a least one
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from drainctl.journal.events import Event
from drainctl.model import Cluster
from drainctl.rollout.plan import Plan, steps

LAST = 5
STAGE_AT_ONCE = 4  # as drainctl.rollout.roll
ROLLS = frozenset({"deploy", "rollback", "restart", "run"})


@dataclass(frozen=True, slots=True)
class StepTime:
    """One step's time: seconds, None while it is not known; how says where that comes from."""

    name: str
    seconds: float | None
    how: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    What a rollout is expected to take.

    stage: bringing the release to all nodes, None where there is nothing to bring. steps: those of one
    node, in order; nodes of a wave take them at the same time. rollouts: how many the journal had.
    """

    stage: StepTime | None
    steps: tuple[StepTime, ...]
    waves: int
    rollouts: int

    @property
    def unknown(self) -> tuple[str, ...]:
        """Steps whose time is not known yet."""
        every = (*([self.stage] if self.stage else []), *self.steps)
        return tuple(step.name for step in every if step.seconds is None)

    @property
    def wave_s(self) -> float:
        """One wave, seconds; the least that it takes where some step is not known."""
        return sum(step.seconds or 0.0 for step in self.steps)

    @property
    def total_s(self) -> float:
        """All of it, seconds; the least that it takes where some step is not known."""
        return (self.stage.seconds or 0.0 if self.stage else 0.0) + self.waves * self.wave_s


def tells(events: Sequence[Event], line: str | None) -> bool:
    """Whether a rollout's events tell how long another one takes: it is done, and ran the same command."""
    if not events or events[0].kind != "rollout.began":
        return False
    began, ended = events[0].data, events[-1]
    done = ended.kind == "rollout.ended" and ended.data["outcome"] == "done"
    return done and began["verb"] in ROLLS and began["line"] == line


def estimate(cluster: Cluster, plan: Plan, past: Sequence[Sequence[Event]]) -> Estimate:
    """The expected time of a plan. past: the events of each of the last rollouts that tell (`tells`)."""
    taken = _taken(event for events in past for event in events)
    rollouts = f"the last {len(past)} rollouts" if len(past) > 1 else "the last rollout"
    stage = None
    if plan.release and plan.release.to_stage:
        stage = _step("stage", None, taken, rollouts)
        if stage.seconds is not None:
            rounds = -(-len(plan.order) // STAGE_AT_ONCE)
            stage = StepTime("stage", stage.seconds * rounds, f"{stage.how}, {STAGE_AT_ONCE} nodes at once")
    way = steps(cluster, plan.jobs[plan.order[0]]) if plan.order else ()
    told = tuple(_step(step.name, step.expected_s, taken, rollouts) for step in way)
    return Estimate(stage, told, len(plan.waves), len(past))


def _taken(events: Iterable[Event]) -> Mapping[str, list[float]]:
    """Seconds that each step took, on whatever node."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event.kind == "step.seen" and event.step:
            found.setdefault(event.step, []).append(float(event.data["took_s"]))
    return found


def _step(name: str, expected_s: float | None, taken: Mapping[str, list[float]], rollouts: str) -> StepTime:
    if name == "watch":
        return StepTime(name, expected_s, "watch.for")
    if name in taken:
        return StepTime(name, median(taken[name]), f"median of {len(taken[name])} in {rollouts}")
    if expected_s is None or name == "stage":
        return StepTime(name, None, "not known yet")
    return StepTime(name, expected_s, "half of checks.inter" if expected_s else "at once")


def median(values: Sequence[float]) -> float:
    """The middle one, or the middle of the two in the middle."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
