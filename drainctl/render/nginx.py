"""
nginx on a node, as the node's strategies need it: a whole nginx.conf, or what belongs into its `http` block.

The text is filled in from nginx/site.conf.j2, nginx/nginx.conf.j2 and nginx/upstream.conf.j2. What
drainctl.yml does not say (the app's port where no strategy needs it, the user) is an option or a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple
from urllib.parse import SplitResult, urlsplit

from drainctl import templates
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConfigError
from drainctl.model import Checks, Cluster, FlagFile, Node
from drainctl.nginx import upstream
from drainctl.strategies import backup, beside

Protocol = Literal["proxy", "fastcgi", "uwsgi"]

# Which of a node's strategies decides what nginx's upstream looks like; the first that it lists.
SHAPES = ("socket-flip", "port-flip", "backup")
KEEPALIVE_MIN = (1, 27, 4)  # the first nginx that has keepalive_min_timeout
PORT = 8000  # where an app is said to listen when drainctl.yml does not tell

_FASTCGI = (
    ("QUERY_STRING", "$query_string"),
    ("REQUEST_METHOD", "$request_method"),
    ("CONTENT_TYPE", "$content_type"),
    ("CONTENT_LENGTH", "$content_length"),
    ("SERVER_PROTOCOL", "$server_protocol"),
    ("SERVER_NAME", "$server_name"),
    ("SERVER_PORT", "$server_port"),
    ("REMOTE_ADDR", "$remote_addr"),
    ("REMOTE_PORT", "$remote_port"),
    ("REQUEST_SCHEME", "$scheme"),
)


class Wish(NamedTuple):
    """
    What the line asks for beyond drainctl.yml.

    protocol: how nginx talks to the app. version: of nginx; below 1.27.4, and where it is not known, what
    only newer ones take is a comment. app: `HOST:PORT` or `unix:/PATH` of an app whose address no strategy
    names. user: of nginx's workers. site: only what belongs into the `http` block.
    """

    protocol: Protocol = "proxy"
    version: tuple[int, ...] = ()
    app: str | None = None
    user: str | None = None
    site: bool = False


def shape(node: Node) -> str:
    """What the node's upstream looks like: one of SHAPES, or "plain"."""
    return next((name for name in node.strategy if name in SHAPES), "plain")


def render_nginx(cluster: Cluster, node: Node, wish: Wish | None = None) -> str:
    """
    The configuration of one node's nginx.

    Raises: ConfigError where the health pages are asked by https, or a placeholder is not known.
    """
    wish = wish or Wish()
    site = templates.render("nginx/site.conf.j2", **_values(cluster, node, wish))
    if wish.site:
        return site
    known = values_of(cluster, node, None)
    return templates.render(
        "nginx/nginx.conf.j2",
        app=cluster.app,
        node=node.name,
        site=site,
        pid=fill(cluster.nginx.pid if cluster.nginx else "/run/nginx.pid", known),
        user=wish.user,
        flips=shape(node) == "port-flip",
    )


def render_upstream(cluster: Cluster, node: Node) -> str:
    """
    What nginx.file holds before the first flip: the first port serves.

    Raises: ConfigError where port-flip is not among the node's strategies.
    """
    if "port-flip" not in node.strategy or cluster.nginx is None:
        raise ConfigError(f"{node.name} does not go by port-flip, so it has no upstream file")
    first, second = (_at(cluster, node, port) for port in cluster.service.ports)
    servers = [upstream.Server(first, "live"), upstream.Server(second, "down")]
    return upstream.render(
        cluster.nginx.upstream,
        servers,
        f"app:{cluster.service.ports[0]}",
        template=cluster.nginx.template,
    )


def _values(cluster: Cluster, node: Node, wish: Wish) -> Mapping[str, object]:
    known = values_of(cluster, node, None)
    urls = _urls(cluster, node)
    name = cluster.nginx.upstream if cluster.nginx else cluster.app
    health, flag = cluster.health, cluster.health.flag
    checked = bool(health.check) and "http-check" in node.strategy
    connect_ms, read_ms = check_limits_ms(cluster.checks)
    variable = upstream.variable(name)
    return {
        "app": cluster.app,
        "node": node.name,
        "strategies": ", ".join(node.strategy),
        "shape": shape(node),
        "upstream": name,
        "protocol": wish.protocol,
        "target": f"http://{name}" if wish.protocol == "proxy" else name,
        "params": _params(wish.protocol, None),
        "server": wish.app or _at(cluster, node, (cluster.service.ports or (PORT,))[0]),
        "servers": pair(cluster, node),
        "hidden": bool(cluster.service.sockets),
        "current": fill(cluster.socket.current, known) if cluster.socket else None,
        "file": fill(cluster.nginx.file or "", known) if cluster.nginx else "",
        "fail_timeout": f"{cluster.nginx.fail_timeout_s:g}" if cluster.nginx else "0",
        "listens": _listens(node, urls),
        "check": (urls["check"].path or "/") if checked else None,
        "page": urls["ready"].path or urls["version"].path or "/",
        "check_params": _params(wish.protocol, urls["ready"].path or urls["version"].path or "/"),
        "flag": fill(flag.path, known) if isinstance(flag, FlagFile) else None,
        "connect": _ms(connect_ms),
        "read": _ms(read_ms),
        "generation": (urls["generation"].path or "/") if shape(node) == "port-flip" else None,
        "variable": variable,
        "connection": variable.replace("generation", "connection"),
        "balanced": bool(cluster.balancers),
        "keepalive_min": wish.version >= KEEPALIVE_MIN,
        "header_timeout": _ms(header_limit_ms(cluster)),
        "worker_limit": f"{cluster.nginx.worker_limit_s:g}" if cluster.nginx else "60",
    }


def check_limits_ms(checks: Checks) -> tuple[int, int]:
    """
    What nginx gives the app behind /http-check, to connect and to answer: together they stay below the time
    that HAProxy gives the check, so that a hanging app is a 504 and no check without an answer.
    """
    whole_ms = 1000 * (checks.timeout_s if checks.timeout_s is not None else checks.inter_s)
    return min(1000, max(1, int(whole_ms / 4))), min(2000, max(1, int(whole_ms / 2)))


def header_limit_ms(cluster: Cluster) -> int:
    """How long a client may be silent: a silent one keeps an old worker, which nginx.worker_limit bounds."""
    limit_s = cluster.nginx.worker_limit_s if cluster.nginx else 60.0
    return int(1000 * min(10.0, max(1.0, limit_s / 2)))


def pair(cluster: Cluster, node: Node) -> list[str]:
    """The addresses of backup's two servers, as nginx writes them: the live one, then the backup."""
    two = cluster.service.sockets or cluster.service.ports
    return [one.address for one in backup.pair(cluster, node, None)] if two else []


def _at(cluster: Cluster, node: Node, port: int) -> str:
    return beside.at_port(cluster, node, port, None).address


def _urls(cluster: Cluster, node: Node) -> dict[str, SplitResult]:
    """The pages that drainctl.yml names, which this nginx is to answer; empty where it does not."""
    known, health = values_of(cluster, node, "RELEASE"), cluster.health
    asked = {"check": health.check, "ready": health.ready, "version": health.version, "generation": None}
    if cluster.nginx:
        asked["generation"] = cluster.nginx.generation
    found = {name: urlsplit(fill(url or "", known)) for name, url in asked.items()}
    for name, url in found.items():
        if url.scheme == "https":
            raise ConfigError(
                f"{name} is asked at {url.geturl()}: https is not rendered; add its certificate by hand",
                hint="render it with http URLs, then make `listen … ssl` of its listen lines",
            )
    return found


def _listens(node: Node, urls: Mapping[str, SplitResult]) -> list[str]:
    """One per port that is asked for; with an address only where many nodes are on one machine."""
    ports = [str(url.port or 80) for url in urls.values() if url.hostname] or ["80"]
    alone = not re.fullmatch(r"127\.[0-9.]+", node.host)
    return list(dict.fromkeys(port if alone else f"{node.host}:{port}" for port in ports))


def _params(protocol: Protocol, path: str | None) -> tuple[tuple[str, str], ...]:
    """What fastcgi and uwsgi are told of a request. path: of a page that is asked in its place."""
    if protocol == "proxy":
        return ()
    uri = path or "$request_uri"
    where = (("SCRIPT_NAME", '""'), ("PATH_INFO", path or "$document_uri"), ("REQUEST_URI", uri))
    more = (("GATEWAY_INTERFACE", "CGI/1.1"),) if protocol == "fastcgi" else ()
    return (*where, *_FASTCGI, *more)


def _ms(amount: int) -> str:
    """A time as nginx takes it: whole numbers only."""
    return f"{amount // 1000}s" if amount % 1000 == 0 else f"{amount}ms"
