"""What a node's strategies ask of it before a rollout; apart, because looking at a cluster needs none."""

from __future__ import annotations

from collections.abc import Mapping

from drainctl.model import Cluster, Node, Said
from drainctl.node.host import Host
from drainctl.rollout.survey import ask_node
from drainctl.strategies.known import STRATEGIES


def inspect(cluster: Cluster, host: Host, node: Node) -> Mapping[str, Said]:
    """The question of each strategy of the node, answered, by the strategy's name."""
    questions = {name: STRATEGIES[name].question(cluster, node) for name in node.strategy}
    return {name: ask_node(host, line) for name, line in questions.items() if line}
