"""Which transport a node wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drainctl.model import Connect, Node
    from drainctl.node.door import Transport


def open_transport(node: Node, connect: Connect) -> Transport:
    """A transport for one node, `connect` filled in for it; nothing is connected before its first command."""
    if connect.via == "local":
        from drainctl.node.local import LocalTransport

        return LocalTransport()
    if connect.via == "docker":
        from drainctl.node.docker import DockerTransport
        from drainctl.node.engine import Engine, Tls

        tls = Tls(connect.ca, connect.cert, connect.key)
        engine = Engine(connect.engine, tls, connect.timeout_s)
        return DockerTransport(node.container or node.name, engine, node.user or connect.user or "")
    from drainctl.node.ssh import SshTransport

    return SshTransport(
        node.host,
        user=node.user or connect.user,
        port=node.port or connect.port,
        key=connect.key,
        known_hosts=connect.known_hosts,
        timeout_s=connect.timeout_s,
    )
