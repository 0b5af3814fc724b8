"""What somebody answered, or a socket showed, as a configuration: then there is one way to a file. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from drainctl.haproxy_cfg.model import (
    At,
    Global,
    HaproxyCfg,
    HttpCheck,
    Proxy,
    Server,
    ServerSettings,
    Settings,
    StatsSocket,
)
from drainctl.haproxy_cfg.values import address
from drainctl.init.sight import ANSWER, in_url, is_address
from drainctl.model import BalancerLook


def socket_only(runtime: str) -> HaproxyCfg:
    """A configuration that names one socket: `unix:/PATH` or `tcp://HOST:PORT`."""
    where = address(runtime.removeprefix("unix:").removeprefix("tcp://"))
    return HaproxyCfg("your answer", Global(sockets=(StatsSocket(ANSWER, where, "admin"),)))


def with_servers(cfg: HaproxyCfg, backends: Mapping[str, Mapping[str, str]], check: str) -> HaproxyCfg:
    """
    The same with backends that HAProxy asks `check`.

    Args:
        cfg: what is kept: its sockets.
        backends: backend → server → its address, with the port.
        check: the page's path.
    """
    http = HttpCheck(ANSWER, At("GET", ANSWER), At(check, ANSWER))
    settings = Settings(check_kind=At("httpchk", ANSWER), httpchk=http, disable_on_404=At(True, ANSWER))
    proxies = [
        Proxy("backend", name, ANSWER, settings, servers=tuple(_server(*pair) for pair in servers.items()))
        for name, servers in backends.items()
    ]
    return HaproxyCfg(cfg.name, cfg.global_, proxies=tuple(proxies))


def _server(name: str, where: str) -> Server:
    return Server(name, ANSWER, address(where), ServerSettings(check=At(True, ANSWER)))


def shown(look: BalancerLook) -> dict[str, dict[str, str]]:
    """The backends and servers that a balancer shows, with the addresses where its level tells them."""
    found: dict[str, dict[str, str]] = {}
    for row in look.rows:
        found.setdefault(row.backend, {})[row.server] = row.address
    return found


def listed(text: str, port: int) -> dict[str, str]:
    """
    `web1=10.0.0.11 web2=10.0.0.12:8080` → server → address with a port.

    Raises: ValueError, with what is wrong.
    """
    found: dict[str, str] = {}
    for word in text.replace(",", " ").split():
        name, equals, host = word.partition("=")
        if not (name and equals and host):
            raise ValueError(f"found {word!r}, expected NAME=ADDRESS")
        has_port = not is_address(host) and address(host).port is not None  # `::1` is no port 1 of `:`
        found[name] = host if has_port else f"{in_url(host.strip('[]'))}:{port}"
    if not found:
        raise ValueError("expected at least one NAME=ADDRESS")
    return found
