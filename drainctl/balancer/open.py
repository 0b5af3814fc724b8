"""A balancer of drainctl.yml → the door to it."""

from __future__ import annotations

from collections.abc import Callable

from drainctl.balancer.door import BalancerDoor
from drainctl.balancer.exchange import Exchange, TcpExchange, UnixExchange
from drainctl.balancer.master import Master
from drainctl.balancer.runtime import RuntimeBalancer
from drainctl.errors import ConfigError
from drainctl.model import Balancer
from drainctl.node.door import Transport


def open_balancer(
    balancer: Balancer, *, ssh: Callable[[str], Transport] | None = None, timeout_s: float = 2.0
) -> BalancerDoor:
    """
    The door that fits a balancer; nothing is connected yet.

    Args:
        balancer: its description.
        ssh: makes the transport to `[user@]host[:port]`, for a balancer whose sockets are on another machine.
        timeout_s: limit of each question and answer.
    Raises: ConfigError for a description that leads nowhere.
    """
    if balancer.stats is not None:
        from drainctl.balancer.stats_page import StatsPageBalancer

        return StatsPageBalancer(
            balancer.name, balancer.stats, auth=balancer.auth, ca=balancer.ca, timeout_s=timeout_s
        )
    if balancer.runtime is None:
        raise ConfigError(f"balancers.{balancer.name}: one of `runtime` and `stats` is needed")
    if balancer.ssh is not None:
        return _through_ssh(balancer, balancer.runtime, balancer.ssh, ssh, timeout_s)
    worker: Exchange
    if balancer.runtime.startswith("tcp://"):
        worker = TcpExchange(balancer.name, *_host_port(balancer, balancer.runtime), timeout_s=timeout_s)
    else:
        worker = UnixExchange(balancer.name, _path(balancer, balancer.runtime), timeout_s=timeout_s)
    master = None
    if balancer.master is not None:
        path = _path(balancer, balancer.master)
        exchange = UnixExchange(f"{balancer.name} (master)", path, half_close=True, timeout_s=timeout_s)
        master = Master(f"{balancer.name} (master)", exchange, patience_s=timeout_s)
    return RuntimeBalancer(balancer.name, worker, master)


def _through_ssh(
    balancer: Balancer, runtime: str, host: str, ssh: Callable[[str], Transport] | None, timeout_s: float
) -> BalancerDoor:
    from drainctl.balancer.through_ssh import SshExchange

    if ssh is None:
        raise ConfigError(f"balancers.{balancer.name}: nothing here can open ssh = {host}")
    transport = ssh(host)
    worker = SshExchange(balancer.name, _path(balancer, runtime), transport, timeout_s=timeout_s)
    master = None
    if balancer.master is not None:
        who = f"{balancer.name} (master)"
        path = _path(balancer, balancer.master)
        master = Master(who, SshExchange(who, path, transport, timeout_s=timeout_s), patience_s=timeout_s)
    return RuntimeBalancer(balancer.name, worker, master)


def _path(balancer: Balancer, address: str) -> str:
    kind, _, path = address.partition(":")
    if kind != "unix" or not path.startswith("/"):
        raise ConfigError(f"balancers.{balancer.name}: {address!r} is not unix:/path")
    return path


def _host_port(balancer: Balancer, address: str) -> tuple[str, int]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"balancers.{balancer.name}: {address!r} is not tcp://host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
