"""
HAProxy in front of the nodes, as drainctl.yml describes it: a whole haproxy.cfg from haproxy/site.cfg.j2.

What drainctl.yml does not say is an option (where users connect) or is left to HAProxy's default.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from drainctl import templates
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConfigError
from drainctl.model import Balancer, Checks, Cluster, Node


class Line(NamedTuple):
    """A server line's name and address."""

    name: str
    address: str


def render_haproxy(cluster: Cluster, balancer: Balancer, *, bind: str = "*:80") -> str:
    """
    The configuration of one balancer.

    Args:
        cluster: what drainctl.yml says.
        balancer: one of its own.
        bind: where users connect, as HAProxy writes it.
    Raises: ConfigError where the nodes are not asked alike: one backend has one check.
    """
    pages = {node.name: _page(cluster, node) for node in cluster.nodes}
    alike = {(page.path or "/", page.scheme) for page in pages.values()}
    if len(alike) > 1 or any(page.scheme == "https" for page in pages.values()):
        found = ", ".join(sorted(f"{scheme} {path}" for path, scheme in alike))
        raise ConfigError(f"{cluster.file}: the nodes are asked for {found}; expected one path, by http")
    drained = bool(cluster.health.check) and any("http-check" in node.strategy for node in cluster.nodes)
    backends = cluster.backends or (cluster.app,)
    stats = urlsplit(balancer.stats.partition(";")[0]) if balancer.stats else None
    return templates.render(
        "haproxy/site.cfg.j2",
        app=cluster.app,
        balancer=balancer.name,
        runtime=_bound(balancer.runtime),
        master=(balancer.master or "").removeprefix("unix:"),
        stats=stats,
        stats_bind=f"*:{stats.port or 80}" if stats else None,
        stats_uri=stats and (stats.path + (f"?{stats.query}" if stats.query else "")),
        auth=bool(balancer.auth),
        bind=bind,
        frontend=next(name for name in ("www", "users", "door") if name not in backends),
        backends=backends,
        page=next(iter(alike))[0],
        drained=drained,
        checks=_checks(cluster.checks),
        spread=cluster.checks.spread_percent,
        timeout=_time(cluster.checks.timeout_s) if cluster.checks.timeout_s is not None else None,
        servers=[
            Line(node.server, f"{_bracketed(node.host)}:{pages[node.name].port or 80}")
            for node in cluster.nodes
        ],
        kept=_kept(cluster),
        sticky=cluster.drain.sticky,
    )


def _page(cluster: Cluster, node: Node) -> SplitResult:
    """What is asked of a node to know whether it is well."""
    health = cluster.health
    return urlsplit(fill(health.check or health.ready or health.version or "", values_of(cluster, node, "")))


def _kept(cluster: Cluster) -> bool:
    """Whether nginx is reloaded here with nobody told, so that HAProxy must not meet a close."""
    flips = any("port-flip" in node.strategy for node in cluster.nodes)
    return flips and cluster.nginx is not None and cluster.nginx.clients != "nudge"


def _checks(checks: Checks) -> str:
    """`check` and its timings, as a server line has them."""
    words = [f"check inter {_time(checks.inter_s)} fall {checks.fall} rise {checks.rise}"]
    if checks.downinter_s is not None:
        words.append(f"downinter {_time(checks.downinter_s)}")
    if checks.slowstart_s:
        words.append(f"slowstart {_time(checks.slowstart_s)}")
    return " ".join(words)


def _time(seconds: float) -> str:
    """As HAProxy takes it: whole numbers only."""
    ms = round(seconds * 1000)
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms}ms"


def _bound(runtime: str | None) -> str | None:
    """The address of a `stats socket` line."""
    if runtime is None:
        return None
    return (
        f"ipv4@{runtime.removeprefix('tcp://')}" if runtime.startswith("tcp://") else runtime[len("unix:") :]
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
