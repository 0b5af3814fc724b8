"""What is known about a cluster, and where from: between the configurations and the text. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from drainctl.model import Balancer


@dataclass(frozen=True, slots=True)
class Known:
    """A value for the file. why: the comment beside it. set_this: why somebody has to set it, else ""."""

    value: str
    why: str = ""
    set_this: str = ""


@dataclass(frozen=True, slots=True)
class BalancerLine:
    """One balancer of the file."""

    balancer: Balancer
    why: str = ""
    set_this: str = ""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """One node. server: only where it differs from the name. out: why the line is commented out, else ""."""

    name: str
    host: str
    server: str = ""
    vars: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    set_this: str = ""
    out: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """
    A whole drainctl.yml. files: the haproxy.cfg of each balancer, where there is one. site: scheme, host and
    port of a node's app as in URLs. checks: keys of `checks` with their values. others: the backends that
    are left out. warnings: what stands in the way of a drain, for the file and for the screen.
    """

    app: str
    files: Mapping[str, str]
    balancers: tuple[BalancerLine, ...]
    backends: tuple[str, ...]
    nodes: tuple[NodeLine, ...]
    check: Known
    site: str
    checks: Mapping[str, Known]
    match: str = "name"
    local: bool = False
    sticky: Known | None = None
    watch_s: int = 10
    root: str = ""
    restart: str = ""
    flag: str = ""
    ready: str = ""
    others: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def live(self) -> tuple[NodeLine, ...]:
        """The nodes that are not commented out."""
        return tuple(node for node in self.nodes if not node.out)
