"""
Which backends of a haproxy.cfg are one app. Pure.

Backends that share a machine belong together: who drains that machine drains it in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drainctl.errors import ConfigError
from drainctl.haproxy_cfg.model import Proxy, Server, value
from drainctl.init.sight import Sight


@dataclass(frozen=True, slots=True)
class Group:
    """Backends that share machines, by their names in the file's order. asked: one has `option httpchk`."""

    backends: tuple[str, ...]
    servers: int
    asked: bool


def groups(sights: Sequence[Sight]) -> list[Group]:
    """Every group of backends with servers, over all balancers."""
    proxies: dict[str, list[tuple[Sight, Proxy]]] = {}
    for sight in sights:
        for proxy in sight.cfg.backends:
            if proxy.all_servers and not value(proxy.settings.disabled, False):
                proxies.setdefault(proxy.name, []).append((sight, proxy))
    machines = {
        name: {_machine(sight, proxy, server) for sight, proxy in found for server in proxy.all_servers}
        for name, found in proxies.items()
    }
    joined: list[list[str]] = []
    for name in proxies:
        near = [group for group in joined if any(machines[name] & machines[other] for other in group)]
        joined = [group for group in joined if group not in near]
        joined.append([*(other for group in near for other in group), name])
    order = list(proxies)
    return [
        Group(
            tuple(sorted(group, key=order.index)),
            len(set().union(*(machines[name] for name in group))),
            any(proxy.settings.httpchk for name in group for _, proxy in proxies[name]),
        )
        for group in sorted(joined, key=lambda group: min(order.index(name) for name in group))
    ]


def _machine(sight: Sight, proxy: Proxy, server: Server) -> str:
    """What tells one machine from another: its host, else the server's name in this backend."""
    track = server.settings.track
    if track is not None and not sight.host(proxy, server):
        backend, _, name = track.value.rpartition("/")
        return f"{backend or proxy.name}/{name}"
    return sight.host(proxy, server) or f"{proxy.name}/{server.name}"


def choose(sights: Sequence[Sight], app: str | None, backend: str | None) -> Group:
    """
    The group that is meant: the one with `backend`, else the only one, else the one with a backend named
    as the app, else the only one that HAProxy asks by HTTP.

    Raises: ConfigError, naming what there is.
    """
    found = groups(sights)
    files = ", ".join(dict.fromkeys(sight.cfg.name for sight in sights))
    if not found:
        hint = "--haproxy-cfg FILE names another file, once for each balancer"
        raise ConfigError(f"{files}: found no backend with servers; nothing was written", hint=hint)
    for wanted in (backend, app):
        named = [group for group in found if wanted in group.backends]
        if named:
            return named[0]
    if backend is not None:
        there = ", ".join(name for group in found for name in group.backends)
        raise ConfigError(f"--backend: {files} has no backend {backend} with servers; it has: {there}")
    asked = [group for group in found if group.asked]
    if len(found) == 1 or len(asked) == 1:
        return (asked or found)[0]
    raise Several(files, found)


class Several(ConfigError):
    """More than one app, and nothing says which. groups: those there are."""

    def __init__(self, files: str, found: Sequence[Group]) -> None:
        lines = "\n".join(f"  {describe(group)}" for group in found)
        first = found[0].backends[0]
        super().__init__(
            f"{files}: found {len(found)} apps that share no server:\n{lines}",
            hint=f"one drainctl.yml is one app: say which, as in --backend {first}",
        )
        self.groups = tuple(found)


def describe(group: Group) -> str:
    """`shop, api: 4 servers`."""
    return f"{', '.join(group.backends)}: {group.servers} server{'s' if group.servers != 1 else ''}"
