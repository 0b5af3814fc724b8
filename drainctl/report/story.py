"""
The story of one rollout, folded from its events: what reports that show more than lines are drawn from.

A journey is a node's way through its steps, forward or back. Steps that come before a journey began
(staging, which takes several nodes at once) belong to the journey that follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from drainctl.journal.events import Event
from drainctl.report.text import one_line


@dataclass(slots=True)
class StepRun:
    """
    One step of a journey. took_s: None while it runs. text: what was seen, or why it failed. rows: of a
    failed step, what each balancer showed last.
    """

    name: str
    began_s: float
    state: Literal["running", "seen", "skipped", "failed"] = "running"
    took_s: float | None = None
    text: str = ""
    hint: str = ""
    rows: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Journey:
    """
    One node's way. way: "forward", "back", or "" before it began. source, target: releases, None unknown.
    outcome: None while under way. began_s, touched_s: when it began, when its last event came; wall clock.
    """

    node: str
    began_s: float
    touched_s: float
    way: str = ""
    strategy: str = ""
    reason: str = ""
    source: str | None = None
    target: str | None = None
    outcome: str | None = None
    why: str = ""
    took_s: float | None = None
    steps: list[StepRun] = field(default_factory=list)

    @property
    def in_flight(self) -> bool:
        return self.outcome is None and bool(self.way)

    @property
    def state(self) -> str:
        """Its outcome, or "in flight", or "staged" where nothing but that happened yet."""
        return self.outcome or ("in flight" if self.way else "staged")

    @property
    def failed(self) -> bool:
        return self.outcome == "failed"

    @property
    def change(self) -> str:
        """`41 -> 42`, or the one release that is known."""
        return " -> ".join(release for release in (self.source, self.target) if release)

    def step(self, name: str, at_s: float) -> StepRun:
        """The run of that step that is not over, or a new one."""
        for run in self.steps:
            if run.name == name and run.state == "running":
                return run
        self.steps.append(StepRun(name, at_s))
        return self.steps[-1]


class Story:
    """All that is known of one rollout so far; changed by `add` alone, which takes events in their order."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.rollout = ""
        self.verb = ""
        self.cluster = ""
        self.release = ""
        self.title = ""
        self.began_s = 0.0
        self.last_s = 0.0
        self.waves: list[list[str]] = []
        self.wave = 0
        self.previous: Mapping[str, str | None] = {}
        self.targets: Mapping[str, str | None] = {}
        self.journeys: list[Journey] = []
        self.proof: Mapping[str, Any] | None = None
        self.outcome: str | None = None
        self.exit: int | None = None
        self.why = ""
        self.took_s: float | None = None
        self.lines: list[str] = []
        for event in events:
            self.add(event)

    @property
    def nodes(self) -> list[str]:
        """Every node that the rollout is to take, in its order, and those that came by otherwise."""
        planned = [node for wave in self.waves for node in wave]
        return list(dict.fromkeys([*planned, *(journey.node for journey in self.journeys)]))

    @property
    def in_flight(self) -> list[str]:
        """The nodes that are under way, or were left where they failed."""
        latest = {journey.node: journey for journey in self.journeys}
        return [node for node, journey in latest.items() if journey.in_flight or journey.failed]

    def ways(self, node: str) -> list[Journey]:
        """All journeys of a node, in their order."""
        return [journey for journey in self.journeys if journey.node == node]

    def latest(self, node: str) -> Journey | None:
        """The node's last journey, None where nothing happened to it yet."""
        return next((each for each in reversed(self.journeys) if each.node == node), None)

    def add(self, event: Event) -> None:
        self.rollout = self.rollout or event.rollout
        self.began_s = self.began_s or event.at_s
        self.last_s = event.at_s
        if event.kind.startswith("step.") and event.node and event.step:
            self._step(event, event.node, event.step)
        elif event.kind.startswith("node.") and event.node:
            self._node(event, event.node)
        else:
            self._whole(event)

    def _whole(self, event: Event) -> None:
        data = event.data
        match event.kind:
            case "rollout.began":
                self.title = said(event)
                self.verb, self.cluster = data.get("verb", ""), data.get("cluster", "")
                self.release = (data.get("release") or {}).get("id", "")
                self.waves = [list(wave) for wave in data.get("waves", ())]
                self.previous, self.targets = data.get("previous", {}), data.get("targets", {})
            case "rollout.resumed":
                self.outcome = self.exit = self.took_s = None
            case "rollout.ended":
                self.outcome, self.exit = data.get("outcome"), data.get("exit")
                self.why = one_line(data.get("why") or event.text)
                self.took_s = data.get("took_s", event.at_s - self.began_s)
                self.lines = [one_line(str(line)) for line in data.get("lines", ())]
            case "wave.began":
                self.wave = data.get("wave", self.wave + 1)
            case "proof":
                self.proof = data

    def _node(self, event: Event, node: str) -> None:
        data, journey = event.data, self._journey(node, event.at_s)
        journey.touched_s = event.at_s
        if event.kind == "node.ended":
            journey.outcome, journey.why = (
                data.get("outcome", "done"),
                one_line(data.get("why") or event.text),
            )
            journey.took_s = data.get("took_s", event.at_s - journey.began_s)
            return
        other_way = journey.way != data.get("way")
        if journey.way and (other_way or journey.strategy != data.get("strategy")):  # it ended here
            journey.outcome = "turned back" if other_way else "fell back"
            journey.took_s = event.at_s - journey.began_s
            journey = self._journey(node, event.at_s)
        journey.way, journey.strategy = data.get("way", "forward"), data.get("strategy") or ""
        journey.reason = one_line(data.get("reason") or "")
        journey.began_s = event.at_s  # time spent staging, before any node left rotation, is not its own
        journey.source = (self.previous if journey.way == "forward" else self.targets).get(node)
        journey.target = data.get("target")

    def _step(self, event: Event, node: str, name: str) -> None:
        journey = self._journey(node, event.at_s)
        journey.touched_s = event.at_s
        run = journey.step(name, event.at_s)
        took_s = event.data.get("took_s")
        match event.kind:
            case "step.seen" | "step.skipped" | "step.failed":
                run.state = _STATES[event.kind]
                run.took_s = event.at_s - run.began_s if took_s is None else took_s
                run.text, run.hint = said(event), one_line(event.data.get("hint") or "")
                run.rows = [one_line(str(row)) for row in event.data.get("rows", ())]

    def _journey(self, node: str, at_s: float) -> Journey:
        journey = self.latest(node)
        if journey is None or journey.outcome is not None:
            journey = Journey(node, at_s, at_s)
            self.journeys.append(journey)
        return journey


_STATES: Mapping[str, Literal["seen", "skipped", "failed"]] = {
    "step.seen": "seen",
    "step.skipped": "skipped",
    "step.failed": "failed",
}


def said(event: Event) -> str:
    """The event in words: its text, or its `why` where it has no text."""
    return one_line(event.text or str(event.data.get("why") or ""))
