"""
What a whole nginx configuration says about a flip: limits, inherited values, the upstream as it is loaded.

Read from the output of `nginx -T`, so nginx has already approved it. Values are inherited http → server →
location, and an inner one replaces an outer one whole. Sources: nginx, ngx_http_core_module,
ngx_http_proxy_module, ngx_http_upstream_module, ngx_core_module.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from drainctl.nginx.parse import Directive, parse_dump, walk

_PROTOCOLS = ("proxy", "fastcgi", "uwsgi", "scgi", "grpc")
_UNITS = {
    "ms": 0.001,
    "s": 1,
    "": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 604800,
    "M": 2592000,
    "y": 31536000,
}


class Member(NamedTuple):
    """A server of the upstream, as it is loaded. nginx's defaults: max_fails=1 fail_timeout=10s."""

    address: str
    down: bool
    backup: bool
    max_fails: int
    fail_timeout_s: float


class Pass(NamedTuple):
    """
    A place that sends requests to the upstream: `file:line`, by which protocol, and what holds there.

    connection: the Connection header sent to the app (proxy only), None where nothing sets it: then nginx
    sends `close` before 1.29.7 and nothing since. What it sends does not decide whether it keeps the
    connection: what the app answers does.
    """

    at: str
    protocol: str
    connect_timeout_s: float
    read_timeout_s: float
    next_upstream: tuple[str, ...]
    connection: str | None


class Settings(NamedTuple):
    """
    What `settings` found.

    at: `file:line` of the upstream block; None, and no servers, where nginx has none of that name. keepalive:
    connections to the app that a worker keeps; None where no directive says so: none before nginx 1.29.7, 32
    since. Each ends after keepalive_requests requests (1: none is used twice) or keepalive_timeout_s idle.
    client_header_timeout_s: the longest of all server blocks: that long a silent connection keeps an old
    worker. worker_shutdown_timeout_s: None for no limit. keeps_clients: see the function.
    """

    at: str | None
    servers: tuple[Member, ...]
    keepalive: int | None
    keepalive_requests: int
    keepalive_timeout_s: float
    passes: tuple[Pass, ...]
    client_header_timeout_s: float
    worker_shutdown_timeout_s: float | None
    keeps_clients: bool | None


def settings(conf_text: str, upstream: str) -> Settings:
    """
    Reads the output of `nginx -T`, whole.

    Raises: ConfigError when it is no such output or cannot be parsed.
    """
    conf = parse_dump(conf_text)
    http = _http(conf)
    block = next((one for one in http if one.name == "upstream" and one.args == (upstream,)), None)
    inside = block.inside if block else ()
    kept, requests = _last(inside, "keepalive"), _last(inside, "keepalive_requests")
    shutdown = _last(conf, "worker_shutdown_timeout")
    servers = [(http, one.inside) for one in http if one.name == "server"]
    return Settings(
        at=block.at if block else None,
        servers=tuple(_member(one) for one in inside if one.name == "server"),
        keepalive=int(kept[0]) if kept else None,
        keepalive_requests=int(requests[0]) if requests else 1000,
        keepalive_timeout_s=_seconds([inside], "keepalive_timeout", 60),
        passes=tuple(_passes(http, upstream)),
        client_header_timeout_s=max(
            (_seconds(scopes, "client_header_timeout", 60) for scopes in servers), default=60
        ),
        worker_shutdown_timeout_s=seconds(shutdown[0]) if shutdown else None,
        keeps_clients=_keeps_clients(http),
    )


def keeps_clients(conf_text: str) -> bool | None:
    """
    Whether old workers keep idle client connections open for a while, so that a reload loses no keep-alive
    request: `keepalive_min_timeout` above 0 (nginx 1.27.4 and later; http, server, location).

    True where it holds everywhere, False where it holds nowhere; None where it depends on the server block
    or location, or there is no server block. Takes the output of `nginx -T`. Raises: ConfigError.
    """
    return _keeps_clients(_http(parse_dump(conf_text)))


def seconds(text: str) -> float:
    """A time as nginx writes it: `90`, `1m30s`, `500ms`. Raises: ValueError."""
    if not re.fullmatch(r"(\d+(ms|[smhdwMy]?)\s*)+", text):
        raise ValueError(f"{text!r} is no time of nginx")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwMy]?)", text))


def _http(conf: Sequence[Directive]) -> tuple[Directive, ...]:
    return next((one.inside for one in conf if one.name == "http"), ())


def _last(scope: Sequence[Directive], name: str) -> tuple[str, ...] | None:
    """What a directive says in this very block."""
    return next((one.args for one in reversed(scope) if one.name == name and one.args), None)


def _inherited(scopes: Sequence[Sequence[Directive]], name: str) -> tuple[str, ...] | None:
    """What it says in the innermost of these blocks, outermost first, that has it."""
    return next((found for scope in reversed(scopes) if (found := _last(scope, name))), None)


def _seconds(scopes: Sequence[Sequence[Directive]], name: str, default: float) -> float:
    found = _inherited(scopes, name)
    return seconds(found[0]) if found else default


def _member(server: Directive) -> Member:
    address, *words = server.args
    said = dict(word.partition("=")[::2] for word in words)
    return Member(
        address,
        down="down" in said,
        backup="backup" in said,
        max_fails=int(said.get("max_fails", "1")),
        fail_timeout_s=seconds(said.get("fail_timeout", "10s")),
    )


def _passes(http: Sequence[Directive], upstream: str) -> list[Pass]:
    found = []
    for one, around in walk(http):
        protocol, _, word = one.name.partition("_")
        if word != "pass" or protocol not in _PROTOCOLS or not one.args or _target(one.args[0]) != upstream:
            continue
        scopes = [http, *(outer.inside for outer in around)]
        found.append(
            Pass(
                at=one.at,
                protocol=protocol,
                connect_timeout_s=_seconds(scopes, f"{protocol}_connect_timeout", 60),
                read_timeout_s=_seconds(scopes, f"{protocol}_read_timeout", 60),
                next_upstream=_inherited(scopes, f"{protocol}_next_upstream") or ("error", "timeout"),
                connection=_connection(scopes) if protocol == "proxy" else None,
            )
        )
    return found


def _target(text: str) -> str:
    """The upstream's name in `http://shop/path`, `uwsgi://shop` or `shop`."""
    return text.rpartition("://")[2].partition("/")[0]


def _connection(scopes: Sequence[Sequence[Directive]]) -> str | None:
    """All `proxy_set_header` of the innermost block that has any count, and no outer ones."""
    for scope in reversed(scopes):
        headers = [one.args for one in scope if one.name == "proxy_set_header" and len(one.args) == 2]
        if headers:
            return next((value for name, value in reversed(headers) if name.lower() == "connection"), None)
    return None


def _keeps_clients(http: Sequence[Directive]) -> bool | None:
    held = set()
    for one, around in walk(http):
        if (one.name == "server" and not around) or one.name == "location":
            scopes = [http, *(outer.inside for outer in around), one.inside]
            held.add(_seconds(scopes, "keepalive_min_timeout", 0) > 0)
    return held.pop() if len(held) == 1 else None
