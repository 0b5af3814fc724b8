"""Asks the adapters, answers with a Seen. No judgement here: a fault of a look is part of what is seen."""

from __future__ import annotations

from collections.abc import Mapping

from drainctl.balancer.fleet import Fleet
from drainctl.errors import DrainctlError
from drainctl.http import Http
from drainctl.machines import Machines
from drainctl.model import Answer, BalancerLook, Cluster, Node, NodeLook, Place, Said
from drainctl.node.host import Host
from drainctl.rollout.inspect import inspect
from drainctl.rollout.survey import ask_node, get
from drainctl.steps import Look

Places = Mapping[str, tuple[Place, ...]]
BALANCER_LOOKS = frozenset({Look.ROWS, Look.TABLE, Look.PEERS})


class Observer:
    """One observer for all nodes in flight; safe to use from their threads."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        hosts: Mapping[str, Host],
        http: Http,
        places: Places,
        machines: Machines,
    ) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._hosts = hosts
        self._http = http
        self._places = places
        self._machines = machines

    def follow(self, node: Node, peers: bool = False) -> None:
        """From now on every look at the balancers shows this node's rows; with `peers`, all nodes' rows."""
        wanted: dict[str, set[tuple[str, str]]] = {}
        for name in self._places if peers else (node.name,):
            for place in self._places[name]:
                wanted.setdefault(place.balancer, set()).add((place.backend, place.server))
        self._fleet.watch(node.name, wanted)

    def leave(self, node: Node) -> None:
        """The node's rows need not be read any more."""
        self._fleet.unwatch(node.name)

    def balancers(self, looks: frozenset[Look]) -> Mapping[str, BalancerLook]:
        """A look at every balancer that began after this call."""
        if Look.TABLE in looks:
            return self._fleet.overview()
        return self._fleet.look()

    def host(self, node: Node, looks: frozenset[Look]) -> NodeLook:
        """What the node itself shows, as far as `looks` asks for it."""
        health = self._cluster.health
        active, active_error = None, None
        disk = container = None
        if Look.ACTIVE in looks:
            try:
                active = self._hosts[node.name].active()
            except DrainctlError as error:
                active_error = str(error)
        if Look.DISK in looks:
            try:
                disk = self._hosts[node.name].disk()
            except DrainctlError:
                disk = None  # not seen; the step's limit bounds how often it is asked again
        if Look.CONTAINER in looks:
            try:
                container = self._hosts[node.name].container()
            except DrainctlError:
                container = None  # as the disk
        return NodeLook(
            check=self._get(node, health.check) if Look.CHECK in looks and health.check else None,
            ready=self._get(node, health.ready) if Look.READY in looks and health.ready else None,
            version=self._get(node, health.version) if Look.VERSION in looks and health.version else None,
            disk=disk,
            active=active,
            active_error=active_error,
            store=self._machines.look(node) if Look.STORE in looks else None,
            replicas=self._machines.replicas(node) if Look.REPLICAS in looks else {},
            container=container,
        )

    def ask(self, node: Node, line: str) -> Said:
        """What a question of ours, a command line, is answered on the node."""
        return ask_node(self._hosts[node.name], line)

    def inspect(self, node: Node) -> Mapping[str, Said]:
        """What each of the node's strategies asks of it before it is taken, answered."""
        return inspect(self._cluster, self._hosts[node.name], node)

    def _get(self, node: Node, url: str) -> Answer:
        return get(self._cluster, self._http, node, url)
