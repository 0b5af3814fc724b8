"""What HAProxy's check of a server asks: `option httpchk`, the server's port and addr, `track`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from drainctl.haproxy_cfg.model import HaproxyCfg, Proxy, Server, value


@dataclass(frozen=True, slots=True)
class Asked:
    """host: only where it is not the server's own. virtual_host: the Host header, "" where none is set."""

    line: int
    method: str
    uri: str
    port: int | None
    tls: bool
    host: str = ""
    virtual_host: str = ""


def asked(cfg: HaproxyCfg, proxy: Proxy, server: Server, depth: int = 3) -> Asked | None:
    """
    The check of one server, or of the one that it tracks; None where HAProxy asks nothing by HTTP.

    depth: how far a chain of `track` is followed.
    """
    track = server.settings.track
    if track is not None:
        backend, _, name = track.value.rpartition("/")
        other = cfg.backend(backend) if backend else proxy
        tracked = next((one for one in other.all_servers if one.name == name), None) if other else None
        return asked(cfg, other, tracked, depth - 1) if other and tracked and depth else None
    http = proxy.settings.httpchk
    if http is None or server.settings.check is None:
        return None
    host = value(http.addr, server.check_host)
    return Asked(
        line=http.uri.line,
        method=http.method.value,
        uri=http.uri.value,
        port=value(http.port, server.check_port or 0) or None,
        tls=http.ssl is not None or server.checks_with_tls,
        host="" if host == server.address.host else host,
        virtual_host=value(http.host, ""),
    )
