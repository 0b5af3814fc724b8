"""One look at everything, before the first act and for `status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from drainctl.balancer.fleet import Fleet
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import DrainctlError
from drainctl.http import Http
from drainctl.machines import Machines
from drainctl.model import NOTHING, Answer, BalancerLook, Cluster, Node, NodeLook, Said, Survey
from drainctl.node.host import Host
from drainctl.threads import in_parallel

Inspect = Callable[[Cluster, Host, Node], Mapping[str, Said]]


def survey(
    cluster: Cluster,
    fleet: Fleet,
    hosts: Mapping[str, Host],
    http: Http,
    machines: Machines,
    inspect: Inspect | None = None,
) -> Survey:
    """
    Every balancer's whole table, and each node's check, version and disk, all at the same time.

    inspect: what the node's strategies ask of it (`rollout.inspect`); left out, they are not asked.
    """
    found: dict[str, NodeLook] = {}
    errors: dict[str, str] = {}
    hints: dict[str, str] = {}
    tables: dict[str, BalancerLook] = {}
    health = cluster.health

    def ask(node: Node) -> None:
        try:
            disk, container = hosts[node.name].disk(), hosts[node.name].container()
        except DrainctlError as error:
            errors[node.name] = str(error)
            if error.hint:
                hints[node.name] = error.hint
            return
        version = get(cluster, http, node, health.version) if health.version else None
        check = get(cluster, http, node, health.check) if health.check else None
        ready = get(cluster, http, node, health.ready) if health.ready and not health.check else None
        inspected = inspect(cluster, hosts[node.name], node) if inspect else NOTHING
        store, replicas = machines.look(node), machines.replicas(node)
        found[node.name] = NodeLook(
            check,
            ready,
            version,
            disk,
            inspected=inspected,
            store=store,
            replicas=replicas,
            container=container,
        )

    in_parallel([lambda: tables.update(fleet.overview()), *(partial(ask, node) for node in cluster.nodes)])
    order = [node.name for node in cluster.nodes]  # of the file, not of who answered first
    errors, hints = ({name: told[name] for name in order if name in told} for told in (errors, hints))
    return Survey(tables, found, errors, hints)


def ask_node(host: Host, line: str) -> Said:
    """A question of ours; that it could not be asked is an answer too, without a code."""
    try:
        done = host.ask(line)
    except DrainctlError as error:
        return Said(None, err=str(error))
    return Said(done.code, done.out, done.err)


def get(cluster: Cluster, http: Http, node: Node, url: str) -> Answer:
    """
    One GET of a node's own URL, its placeholders filled, within health.timeout.

    On a connection of its own: an answer must come from who serves now, and a connection that is kept would
    keep an old worker of nginx alive.
    """
    url = fill(url, values_of(cluster, node, None))
    return http.get(url, timeout_s=cluster.health.timeout_s, close=True)
