"""Where each node stands at each balancer. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from drainctl.errors import ConfigError
from drainctl.model import BalancerLook, Cluster, Node, Place


def find_places(cluster: Cluster, tables: Mapping[str, BalancerLook]) -> dict[str, tuple[Place, ...]]:
    """
    Where each node stands: by its server's name, or with `match: address` by its host.

    Balancers that could not be read (`look.error`) contribute nothing: the caller has refused them.

    Raises: ConfigError, naming every node without a server and every unknown backend, with those there are.
    """
    found: dict[str, list[Place]] = {node.name: [] for node in cluster.nodes}
    problems = []
    for name, look in tables.items():
        if look.error:
            continue
        known = sorted({row.backend for row in look.rows})
        there = ", ".join(known) or "none"
        problems += [
            f"backends: {name} has no backend {backend!r} with servers; it has: {there}"
            for backend in cluster.backends
            if backend not in known
        ]
        wanted = [row for row in look.rows if not cluster.backends or row.backend in cluster.backends]
        for node in cluster.nodes:
            rows = [row for row in wanted if _is(cluster, node, row.server, row.address)]
            found[node.name] += [Place(name, row.backend, row.server) for row in rows]
            if not rows and (wanted or not cluster.backends):  # without the backend, that was said already
                there = ", ".join(sorted({row.server for row in wanted})) or "none"
                asked = node.server if cluster.match == "name" else f"with address {node.host}"
                problems.append(f"nodes.{node.name}: {name} has no server {asked}; it has: {there}")
    if problems:
        raise ConfigError("\n".join(f"{cluster.file}: {problem}" for problem in problems))
    return {name: tuple(places) for name, places in found.items()}


def _is(cluster: Cluster, node: Node, server: str, address: str) -> bool:
    if cluster.match == "name":
        return server == node.server
    host = address.rpartition(":")[0].strip("[]")
    return host == node.host
