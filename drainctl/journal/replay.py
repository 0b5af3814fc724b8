"""
From events to what they mean: the state of one rollout. Pure; every view of a rollout is derived here.

A rollout is *open* until it ended `done` or `put-back`: an open one can be resumed or aborted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from drainctl.journal.events import Event
from drainctl.model import Release

NOTHING: Mapping[str, Any] = MappingProxyType({})
CLOSED = frozenset({"done", "put-back"})
# Steps whose act takes a node from its users, and those that give it back: by the flag, by the board.
TAKES_OUT = frozenset({"flag", "down"})
GIVES_BACK = frozenset({"restore", "up"})


class NodeState(NamedTuple):
    """
    Where one node is in a rollout.

    way: "forward", "back" or None (not begun). outcome: None while in flight, else done, restored,
    put-back or failed. intended: steps of this way whose act was announced; acted: what those printed that
    returned. flagged / changed: some act of this rollout, on either way, may have flagged the node /
    changed what it runs.
    """

    name: str
    way: str | None = None
    strategy: str | None = None
    target: str | None = None
    outcome: str | None = None
    step: str | None = None
    why: str = ""
    intended: frozenset[str] = frozenset()
    acted: Mapping[str, str] = NOTHING
    flagged: bool = False
    changed: bool = False

    @property
    def in_flight(self) -> bool:
        return self.way is not None and self.outcome is None


class RolloutState(NamedTuple):
    """One rollout as its events tell it. ended: outcome, or None while (as far as is known) it runs."""

    id: str
    verb: str = ""
    cluster: str = ""
    release: Release | None = None
    targets: Mapping[str, str | None] = NOTHING
    line: str | None = None
    waves: tuple[tuple[str, ...], ...] = ()
    previous: Mapping[str, str | None] = NOTHING
    strategies: Mapping[str, str] = NOTHING
    live: Mapping[str, Mapping[str, str]] = NOTHING
    nodes: Mapping[str, NodeState] = NOTHING
    staged: bool = False
    turned: str | None = None
    asked: str | None = None
    ended: str | None = None
    why: str = ""
    holder: str = ""
    began_s: float = 0.0
    ended_s: float | None = None
    seq: int = 0

    @property
    def open(self) -> bool:
        return self.ended not in CLOSED

    @property
    def order(self) -> tuple[str, ...]:
        """All nodes in the order in which they are taken."""
        return tuple(name for wave in self.waves for name in wave)


def replay(rollout: str, events: Iterable[Event], since: RolloutState | None = None) -> RolloutState:
    """The state after `events` (in order), going on from `since`, which stays as it is."""
    state = since or RolloutState(rollout)
    nodes = dict(state.nodes)  # one copy for all events: a fleet has thousands of nodes, each many events
    seq = state.seq
    for event in events:
        seq = event.seq
        if event.node is None:
            state = _whole(state, event)
            if event.kind == "rollout.began":
                nodes = dict(state.nodes)
        elif event.node in nodes:
            nodes[event.node] = _node(nodes[event.node], event)
    return state._replace(nodes=nodes, seq=seq)


def _whole(state: RolloutState, event: Event) -> RolloutState:
    match event.kind:
        case "rollout.began":
            return _began(state, event)
        case "rollout.resumed":
            return state._replace(ended=None, ended_s=None, asked=None, holder=event.data["holder"])
        case "rollout.turned":
            return state._replace(turned=event.data["why"])
        case "rollout.asked":
            return state._replace(asked=event.data["ask"])
        case "rollout.staged":
            return state._replace(staged=True)
        case "rollout.ended":
            return state._replace(ended=event.data["outcome"], why=event.data["why"], ended_s=event.at_s)
    return state


def _began(state: RolloutState, event: Event) -> RolloutState:
    data = event.data
    waves = tuple(tuple(wave) for wave in data["waves"])
    return state._replace(
        verb=data["verb"],
        cluster=data["cluster"],
        release=Release(**data["release"]) if data["release"] else None,
        targets=data["targets"],
        line=data["line"],
        waves=waves,
        previous=data["previous"],
        strategies=data["strategy"],
        live=data["live"],
        holder=data["holder"],
        began_s=event.at_s,
        nodes={name: NodeState(name) for wave in waves for name in wave},
    )


def _node(node: NodeState, event: Event) -> NodeState:
    data: Mapping[str, Any] = event.data
    match event.kind:
        case "node.began":
            same = (node.way, node.strategy, node.outcome) == (data["way"], data["strategy"], None)
            return node._replace(
                way=data["way"],
                strategy=data["strategy"],
                target=data["target"],
                outcome=None,
                why="",
                intended=node.intended if same else frozenset(),
                acted=node.acted if same else NOTHING,
            )
        case "node.ended":
            outcome = data["outcome"]
            return node._replace(
                outcome=outcome,
                why=data["why"],
                flagged=node.flagged and outcome == "failed",
                changed=node.changed and outcome in {"failed", "done"},
            )
        case "step.intended":
            return node._replace(
                step=event.step,
                intended=node.intended | {event.step or ""},
                flagged=node.flagged or event.step in TAKES_OUT,
                changed=node.changed or data["changes"],
            )
        case "step.acted":
            return node._replace(acted={**node.acted, event.step or "": data["output"]})
        case "step.seen" | "step.skipped" | "step.failed":
            given_back = event.kind == "step.seen" and event.step in GIVES_BACK
            return node._replace(step=event.step, why=event.text, flagged=node.flagged and not given_back)
    return node
