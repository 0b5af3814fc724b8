"""init without a haproxy.cfg: the few questions, on a terminal. What a socket shows is not asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import click

from drainctl.config.kinds import APP, RUNTIME
from drainctl.init.answers import listed, shown, socket_only, with_servers
from drainctl.init.choose import choose
from drainctl.init.draft import Draft
from drainctl.init.known import draft
from drainctl.init.reach import USUAL, reach
from drainctl.init.sight import Sight

T = TypeVar("T")


def ask(app: str | None) -> Draft:
    """Everything that a file needs. Raises: click.Abort at Ctrl-C and at the end of the input."""
    click.echo("No haproxy.cfg is given or readable here, so a few questions.", err=True)
    name = app or _prompt("The app's name", "shop", APP.read, APP.expected)
    sights = _balancers()
    check = _prompt("The page that HAProxy's check asks", "/http-check", _path, "a path such as /http-check")
    sights = _with_servers(sights, check)
    found = draft(sights, choose(sights, name, None), name)
    warning = (
        "`checks` are HAProxy's defaults: compare them with haproxy.cfg (inter, fall, rise, timeout check)"
    )
    return replace(
        found,
        root=_optional("Where releases live on a node, as /srv/shop"),
        restart=_optional("The command that restarts the app on a node"),
        flag=_optional("The file that makes the check answer 404 while it exists"),
        ready=_ready(found.site),
        warnings=(*found.warnings, warning),
    )


def _balancers() -> list[Sight]:
    """One or more sockets; each is asked at once, so that what follows can be seen instead of asked."""
    sights: list[Sight] = []
    while True:
        name = f"lb{len(sights) + 1}"
        usual = "" if sights else USUAL
        no_more = " (empty: no more)" if sights else ""
        question = f"{name}: unix:/PATH or tcp://HOST:PORT of its stats socket{no_more}"
        text = click.prompt(question, default=usual, show_default=bool(usual), err=True)
        if not text.strip():
            return sights
        try:
            runtime = RUNTIME.read(text.strip())
        except ValueError:
            click.echo(f"found {text!r}, expected {RUNTIME.expected}", err=True)
            continue
        sight = reach(name, socket_only(runtime))
        click.echo(f"  {'it answered' if sight.look else sight.error}", err=True)
        sights.append(sight)


def _with_servers(sights: list[Sight], check: str) -> list[Sight]:
    """The sights with the servers of one backend, as a balancer shows them, else as they are told."""
    backends: Mapping[str, Mapping[str, str]] = {}
    look = next((sight.look for sight in sights if sight.look and sight.look.rows), None)
    if look is not None:
        backends = shown(look)
        if len(backends) > 1:
            choice = click.Choice(list(backends))
            one = click.prompt("Which backend is the app's", type=choice, err=True)
            backends = {one: backends[one]}
    if not any(where for servers in backends.values() for where in servers.values()):
        backend = next(iter(backends), None) or click.prompt("Its backend's name in HAProxy", err=True)
        port = click.prompt("The port of the app on the nodes", default=8080, type=int, err=True)
        servers = _prompt(
            "Its servers, as web1=10.0.0.11 web2=10.0.0.12", None, lambda text: listed(text, port), ""
        )
        backends = {backend: servers}
    return [replace(sight, cfg=with_servers(sight.cfg, backends, check)) for sight in sights]


def _path(text: str) -> str:
    if not text.startswith("/") or " " in text:
        raise ValueError
    return text


def _optional(question: str) -> str:
    return str(click.prompt(f"{question} (empty: later)", default="", show_default=False, err=True)).strip()


def _ready(site: str) -> str:
    path = _optional("A page that answers 200 when the app can serve, as /healthz")
    return f"{site}{path if path.startswith('/') else '/' + path}" if path else ""


def _prompt(question: str, default: str | None, read: Callable[[str], T], expected: str) -> T:
    """Asks until the answer can be read."""
    while True:
        text = str(click.prompt(question, default=default, err=True)).strip()
        try:
            return read(text)
        except ValueError as error:
            click.echo(str(error) or f"found {text!r}, expected {expected}", err=True)
