"""
How long a rollout will take, and how that is known. Pure.

    drainctl.yml says     watch.for, and half a check interval where a balancer must be waited for
    the journal says      the median of each step in the last finished rollouts; it wins, but for watch.for
    neither               not known yet, and then the total is a least one
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from drainctl.journal.events import Event
from drainctl.model import Cluster
from drainctl.rollout.plan import Plan
from drainctl.steps import Step
from drainctl.strategies import common

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
class WayTime:
    """What one strategy's journey takes. steps: of one node, in order. waves: those that it is longest in."""

    strategy: str
    steps: tuple[StepTime, ...]
    waves: int

    @property
    def seconds(self) -> float:
        """One node, and so one wave; the least that it takes where some step is not known."""
        return sum(step.seconds or 0.0 for step in self.steps)


@dataclass(frozen=True, slots=True)
class Estimate:
    """
    What a rollout is expected to take.

    stage: bringing the release to all nodes, None where there is nothing to bring. ways: by the strategies
    that nodes go by; nodes of a wave take their steps at the same time. rollouts: how many the journal had.
    """

    stage: StepTime | None
    ways: tuple[WayTime, ...]
    waves: int
    rollouts: int

    @property
    def unknown(self) -> tuple[str, ...]:
        """Steps whose time is not known yet, each once."""
        every = [*([self.stage] if self.stage else []), *(step for way in self.ways for step in way.steps)]
        return tuple(dict.fromkeys(step.name for step in every if step.seconds is None))

    @property
    def total_s(self) -> float:
        """All of it, seconds; the least that it takes where some step is not known."""
        staged_s = self.stage.seconds or 0.0 if self.stage else 0.0
        return staged_s + sum(way.waves * way.seconds for way in self.ways)


def tells(events: Sequence[Event], line: str | None) -> bool:
    """Whether a rollout's events tell how long another one takes: it is done, and ran the same command."""
    if not events or events[0].kind != "rollout.began":
        return False
    began, ended = events[0].data, events[-1]
    done = ended.kind == "rollout.ended" and ended.data["outcome"] == "done"
    return done and began["verb"] in ROLLS and began["line"] == line


def estimate(cluster: Cluster, plan: Plan, past: Sequence[Sequence[Event]]) -> Estimate:
    """The expected time of a plan. past: the events of each of the last rollouts that tell (`tells`)."""
    taken = _taken(past)
    rollouts = f"the last {len(past)} rollouts" if len(past) > 1 else "the last rollout"
    stage = None
    if plan.release and plan.release.to_stage:
        stage = _step(common.stage(cluster, plan.release.id), taken.get(("", "stage")), rollouts)
        if stage.seconds is not None:
            rounds = -(-len(plan.order) // STAGE_AT_ONCE)
            stage = StepTime("stage", stage.seconds * rounds, f"{stage.how}, {STAGE_AT_ONCE} nodes at once")
    ways = {}
    for name in plan.order:
        strategy = plan.ways[name].strategy
        if strategy is not None and strategy not in ways:
            told = [
                _step(step, taken.get((strategy, step.name)), rollouts) for step in plan.steps(cluster, name)
            ]
            ways[strategy] = WayTime(strategy, tuple(told), 0)
    for wave in plan.waves:
        if among := [ways[each] for name in wave if (each := plan.ways[name].strategy)]:
            longest = max(among, key=lambda way: way.seconds)
            ways[longest.strategy] = replace(longest, waves=longest.waves + 1)
    return Estimate(stage, tuple(ways.values()), len(plan.waves), len(past))


def _taken(past: Sequence[Sequence[Event]]) -> Mapping[tuple[str, str], list[float]]:
    """Seconds that each (strategy, step) took, on whatever node; staging belongs to no strategy."""
    found: dict[tuple[str, str], list[float]] = {}
    for events in past:
        strategies: dict[str, str] = {}
        for event in events:
            if event.kind == "node.began" and event.node:
                strategies[event.node] = event.data["strategy"]
            elif event.kind == "step.seen" and event.step and event.node:
                strategy = "" if event.step == "stage" else strategies.get(event.node, "")
                found.setdefault((strategy, event.step), []).append(float(event.data["took_s"]))
    return found


def _step(step: Step, taken: Sequence[float] | None, rollouts: str) -> StepTime:
    if step.exact:
        return StepTime(step.name, step.expected_s, step.by_key)
    if taken:
        return StepTime(step.name, median(taken), f"median of {len(taken)} in {rollouts}")
    if step.expected_s is None:
        return StepTime(step.name, None, "not known yet")
    return StepTime(step.name, step.expected_s, (step.by_key or "at least") if step.expected_s else "at once")


def median(values: Sequence[float]) -> float:
    """The middle one, or the middle of the two in the middle."""
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
