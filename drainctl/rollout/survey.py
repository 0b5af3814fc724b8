"""One look at everything, before the first act and for `status`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from drainctl.balancer.fleet import Fleet
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import DrainctlError
from drainctl.http import Http
from drainctl.model import Answer, BalancerLook, Cluster, Node, NodeLook, Survey
from drainctl.node.host import Host
from drainctl.threads import in_parallel


def survey(cluster: Cluster, fleet: Fleet, hosts: Mapping[str, Host], http: Http) -> Survey:
    """Every balancer's whole table, and each node's check, version and disk, all at the same time."""
    found: dict[str, NodeLook] = {}
    errors: dict[str, str] = {}
    hints: dict[str, str] = {}
    tables: dict[str, BalancerLook] = {}
    health = cluster.health

    def ask(node: Node) -> None:
        try:
            disk = hosts[node.name].disk()
        except DrainctlError as error:
            errors[node.name] = str(error)
            if error.hint:
                hints[node.name] = error.hint
            return
        version = get(cluster, http, node, health.version) if health.version else None
        found[node.name] = NodeLook(check=get(cluster, http, node, health.check), version=version, disk=disk)

    in_parallel([lambda: tables.update(fleet.overview()), *(partial(ask, node) for node in cluster.nodes)])
    order = [node.name for node in cluster.nodes]  # of the file, not of who answered first
    errors, hints = ({name: told[name] for name in order if name in told} for told in (errors, hints))
    return Survey(tables, found, errors, hints)


def get(cluster: Cluster, http: Http, node: Node, url: str) -> Answer:
    """One GET of a node's own URL, its placeholders filled, within health.timeout."""
    return http.get(fill(url, values_of(cluster, node, None)), timeout_s=cluster.health.timeout_s)
