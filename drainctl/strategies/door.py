"""
What a strategy is: a name, when it cannot, and the steps that it lists.

What it needs of drainctl.yml is in drainctl.rollout.rules, NEEDS.

A new strategy is a module with one `STRATEGY`, named in `drainctl.strategies.known`. Pure, all of it: a
strategy never acts and never looks; it says what is to be seen and done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drainctl.model import Cluster, Node, NodeLook, Said
from drainctl.steps import Job, Seen, Step, Verb

Journey = Callable[[Cluster, Node, Job], tuple[Step, ...]]


def _none(cluster: Cluster, node: Node) -> tuple[Step, ...]:
    """Nothing was done that a node would have to be given back from."""
    del cluster, node
    return ()


def _no_question(cluster: Cluster, node: Node) -> str | None:
    del cluster, node
    return None


def _nothing_live(cluster: Cluster, node: Node, look: NodeLook) -> str | None:
    del cluster, node, look
    return None


@dataclass(frozen=True, slots=True)
class Strategy:
    """
    A way by which a node changes its release.

    leaves: it takes the node out of rotation, so the other nodes must carry its share. verbs: what it can
    be asked for. journey: all steps. cannot: why this node cannot go this way now, None where it can.
    question: a command line of ours that is run on the node before a rollout; its answer is
    `look.inspected[name]`. live: what serves now by that answer, in the strategy's own word. give_back:
    undoes a journey that changed nothing yet. leave_out: takes a changed node away from users, for a
    person to look at.
    """

    name: str
    leaves: bool
    verbs: frozenset[Verb]
    journey: Journey
    cannot: Callable[[Cluster, Node, Job, Seen], str | None]
    question: Callable[[Cluster, Node], str | None] = _no_question
    live: Callable[[Cluster, Node, NodeLook], str | None] = _nothing_live
    give_back: Callable[[Cluster, Node], tuple[Step, ...]] = _none
    leave_out: Callable[[Cluster, Node], tuple[Step, ...]] = _none


def unasked(node: Node, said: Said | None) -> str:
    """Why a strategy cannot, where its question has no answer."""
    return f"{node.name} cannot be asked: {said.err.strip() if said else 'no answer'}"


CHANGING: frozenset[Verb] = frozenset({"deploy", "rollback", "put-back"})
