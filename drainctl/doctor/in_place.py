"""What the rules of the in-place strategies share: which nodes go that way, and how bad a closed one is."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.config.placeholders import fill, values_of
from drainctl.doctor.finding import Severity
from drainctl.doctor.picture import InPlace, Picture
from drainctl.model import Cluster, Node, Said

BESIDE = frozenset({"socket-flip", "port-flip", "backup"})
IN_PLACE = BESIDE | {"reload"}


def going(picture: Picture, *strategies: str) -> Iterator[tuple[Node, InPlace]]:
    """The nodes that list one of these, as far as they were looked at."""
    for node in picture.cluster.nodes:
        if not set(strategies).isdisjoint(node.strategy) and node.name in picture.in_place:
            yield node, picture.in_place[node.name]


def asked(picture: Picture, strategy: str) -> Iterator[tuple[Node, Said]]:
    """What the strategy's own question was answered on each node that lists it."""
    for node in picture.cluster.nodes:
        look = picture.survey.nodes.get(node.name)
        said = look.inspected.get(strategy) if look else None
        if said is not None and said.code is not None:
            yield node, said


def closed(node: Node, strategy: str) -> Severity:
    """How bad it is that this way is closed: without another one, a deploy is refused or stops."""
    return Severity.REFUSES if node.strategy == (strategy,) else Severity.ADVICE


def filled(cluster: Cluster, node: Node, text: str | None) -> str:
    """A value of drainctl.yml on one node."""
    return fill(text or "", values_of(cluster, node, None))


def slowest_s(picture: Picture, node: Node) -> float:
    """The longest request of this node by the balancers' own maxima, 0 where nobody counted."""
    rows = (row for found, _, row in picture.rows() if found == node)
    return max((row.slowest_s for row in rows), default=0.0)
