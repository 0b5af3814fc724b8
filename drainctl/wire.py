"""Builds adapters from a Cluster: the only module that knows every class."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from drainctl.balancer.fleet import Fleet
from drainctl.balancer.open import open_balancer
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConfigError
from drainctl.http import Http
from drainctl.journal.door import Store
from drainctl.journal.open import open_store
from drainctl.machines import Machines
from drainctl.model import Cluster, Connect, Node
from drainctl.node.door import Transport
from drainctl.node.host import Host
from drainctl.node.open import open_transport
from drainctl.threads import in_parallel

# Looks at one balancer begin no closer together than this. Walks set the pace (at most each 50 ms, sooner
# right after an act); this bounds what many of them ask together, and costs a lone one next to nothing.
LOOKS_APART_S = 0.005


class Wired:
    """
    All adapters of one cluster. Nothing is connected before it is used; `close` lets go of all of it.

    A context manager.
    """

    def __init__(self, cluster: Cluster, *, balancer_timeout_s: float = 2.0) -> None:
        self.cluster = cluster
        self.http = Http()
        self._tunnels: list[Transport] = []
        doors = [
            open_balancer(balancer, ssh=self._ssh, timeout_s=balancer_timeout_s)
            for balancer in cluster.balancers
        ]
        self.fleet = Fleet(doors, every_s=LOOKS_APART_S)
        self._transports = {node.name: open_transport(node, self._connect(node)) for node in cluster.nodes}
        self.hosts: Mapping[str, Host] = {node.name: self._host(node) for node in cluster.nodes}
        self.machines = Machines(
            cluster, self.http, fill=lambda node, text: fill(text, values_of(cluster, node, None))
        )
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The journal, opened at first use."""
        if self._store is None:
            self._store = open_store(self.cluster.store)
        return self._store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends threads and connections. May be called twice."""
        self.fleet.close()
        in_parallel([transport.close for transport in (*self._transports.values(), *self._tunnels)])
        self.machines.close()
        self.http.close()
        if self._store is not None:
            self._store.close()
            self._store = None

    def _connect(self, node: Node) -> Connect:
        """How this node is reached: the engine may differ from node to node."""
        connect = self.cluster.connect
        if connect.engine is None:
            return connect
        return connect._replace(engine=fill(connect.engine, values_of(self.cluster, node, None)))

    def _host(self, node: Node) -> Host:
        transport = self._transports[node.name]

        def filled(template: str) -> str:
            return fill(template, values_of(self.cluster, node, None))

        if self.cluster.images:
            from drainctl.node.container_host import ContainerHost
            from drainctl.node.docker import DockerTransport

            if isinstance(transport, DockerTransport):  # as drainctl.config has made sure
                return ContainerHost(node, self.cluster, transport, self.http, fill=filled)
        return Host(node, self.cluster, transport, self.http, fill=filled)

    def _ssh(self, address: str) -> Transport:
        """A connection to a balancer's machine: `[user@]host[:port]`, the rest as for the nodes."""
        user, _, rest = address.rpartition("@")
        host, _, port = rest.partition(":")
        if not host or (port and not port.isdigit()):
            raise ConfigError(f"{self.cluster.file}: ssh: found {address!r}, expected [user@]host[:port]")
        connect = self.cluster.connect
        if connect.via == "docker":  # its user and key are of containers and their engine
            connect = Connect()
        via = Connect(
            "ssh", user or connect.user, int(port) if port else None, connect.key, connect.known_hosts
        )
        machine = Node(name=address, host=host, server="", strategy=())
        transport = open_transport(machine, via)
        self._tunnels.append(transport)
        return transport
