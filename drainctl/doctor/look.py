"""Gathers the picture: the survey, a second glance at the processes, each node's facts, the journal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from drainctl.config.placeholders import fill, values_of
from drainctl.doctor import in_place_line
from drainctl.doctor.in_place import BESIDE, IN_PLACE
from drainctl.doctor.in_place_line import InPlaceAsked
from drainctl.doctor.node_line import Asked, line, parse
from drainctl.doctor.picture import InPlace, NodeFacts, Picture
from drainctl.errors import CommandFailed, CommandTimedOut, ConfigError, ConnectFailed, JournalError
from drainctl.model import Cluster, FlagFile, Node, Place
from drainctl.overview import look_around, open_rollout
from drainctl.rollout.inspect import inspect
from drainctl.rollout.places import find_places
from drainctl.strategies.port_flip import nginx_of
from drainctl.threads import in_parallel

if TYPE_CHECKING:
    from drainctl.haproxy_cfg.model import HaproxyCfg
    from drainctl.journal.door import Lease
    from drainctl.journal.replay import RolloutState
    from drainctl.model import Survey
    from drainctl.wire import Wired

_LIMIT_S = 20.0


def look(wired: Wired, cfgs: Mapping[str, HaproxyCfg] | None = None) -> Picture:
    """Everything that doctor judges; faults are part of it. Touches nothing."""
    cluster = wired.cluster
    seen = look_around(wired, inspect)
    again = {name: look.process for name, look in wired.fleet.look().items() if not look.error}
    facts, in_place, unlooked = _facts(wired, seen)
    places, unknown = _places(cluster, seen)
    lease, rollout, journal_error = _journal(wired)
    return Picture(
        cluster,
        seen,
        places,
        unknown,
        again,
        facts,
        in_place,
        unlooked,
        _unknown_keys(cluster) if seen.errors else {},
        cfgs or {},
        lease,
        rollout,
        journal_error,
    )


def _places(cluster: Cluster, seen: Survey) -> tuple[dict[str, tuple[Place, ...]], tuple[str, ...]]:
    """Where the nodes stand. Where a balancer lacks some, the others are still worth looking at."""
    try:
        return find_places(cluster, seen.tables), ()
    except ConfigError as error:
        unknown = tuple(text.removeprefix(f"{cluster.file}: ") for text in str(error).splitlines())
    places: dict[str, tuple[Place, ...]] = {node.name: () for node in cluster.nodes}
    for name, table in seen.tables.items():
        try:
            found = find_places(cluster, {name: table})
        except ConfigError:
            continue
        places = {node: (*places[node], *found[node]) for node in places}
    return places, unknown


def _facts(wired: Wired, seen: Survey) -> tuple[dict[str, NodeFacts], dict[str, InPlace], dict[str, str]]:
    facts: dict[str, NodeFacts] = {}
    in_place: dict[str, InPlace] = {}
    unlooked: dict[str, str] = {}

    def ask(node: Node) -> None:
        host = wired.hosts[node.name]
        try:
            asked_s = time.time()
            done = host.run(line(_asked(wired.cluster, node, seen)), _LIMIT_S)
            facts[node.name] = parse(done.out, asked_s, time.time())
            if not IN_PLACE.isdisjoint(node.strategy):
                asked = _asked_in_place(wired.cluster, node)
                found, conf = in_place_line.parse(host.run(in_place_line.line(asked), _LIMIT_S).out, asked)
                name = nginx_of(wired.cluster, node).upstream
                in_place[node.name] = in_place_line.read(found, conf, name)
        except (ConnectFailed, ConfigError, ValueError) as error:
            unlooked[node.name] = str(error)
        except CommandTimedOut:
            unlooked[node.name] = f"no answer within {_LIMIT_S:g} s"
        except CommandFailed as error:  # its message begins with the whole line
            unlooked[node.name] = str(error).rpartition("\n")[2].strip()

    in_parallel([partial(ask, node) for node in wired.cluster.nodes if node.name not in seen.errors])
    return facts, in_place, unlooked


def _asked_in_place(cluster: Cluster, node: Node) -> InPlaceAsked:
    """What the node's in-place strategies run there; {port} and {socket} are filled with one of each."""
    service, nginx, ways = cluster.service, nginx_of(cluster, node), set(node.strategy)
    known = values_of(cluster, node, "RELEASE") | {
        "port": str((service.ports or (0,))[0]),
        "socket": "SOCKET",
    }
    wanted = {"service.start": service.start, "service.stop": service.stop} if ways & BESIDE else {}
    if "port-flip" in ways:
        wanted |= {"nginx.test": nginx.test, "nginx.reload": nginx.reload}
    how = service.reload if "reload" in ways else None
    if how and how.command:
        wanted["service.reload"] = how.command
    in_nginx = bool(ways & BESIDE) or cluster.nginx is not None
    return InPlaceAsked(
        commands={key: fill(text, known) for key, text in wanted.items() if text},
        file=nginx.file or "" if "port-flip" in ways else "",
        test=nginx.test if in_nginx else "",
        pid=nginx.pid,
        gunicorn=fill(how.gunicorn, known) if how and how.gunicorn else "",
        root=fill(cluster.release.root, known) if cluster.release and how and how.command else "",
    )


def _asked(cluster: Cluster, node: Node, seen: Survey) -> Asked:
    known = seen.nodes.get(node.name)
    values = values_of(cluster, node, (known.disk.current if known and known.disk else None) or "RELEASE")
    flag = cluster.health.flag
    check = urlsplit(fill(cluster.health.check, values))
    host = check.hostname or ""
    return Asked(
        flag=fill(flag.path, values) if isinstance(flag, FlagFile) else None,
        root=fill(cluster.release.root, values) if cluster.release else None,
        restart=fill(cluster.service.restart, values) if cluster.service.restart else None,
        shared=cluster.release.shared if cluster.release else (),
        port=check.port or (443 if check.scheme == "https" else 80),
        address=host if host.startswith("127.") else None,
    )


def _unknown_keys(cluster: Cluster) -> dict[str, str]:
    """The nodes of whose SSH server no key is known, each with the command that fetches it."""
    if cluster.connect.via != "ssh":
        return {}
    from drainctl.node.known_hosts import known_keys, known_name
    from drainctl.node.route import Wanted, route

    found = {}
    for node in cluster.nodes:
        connect = cluster.connect
        port = node.port or connect.port
        wanted = Wanted(node.host, node.user or connect.user, port, connect.key, connect.known_hosts)
        try:
            hop = route(wanted, "~/.ssh/config")[-1]
        except ConnectFailed:
            continue
        if not known_keys(known_name(hop.host, hop.port), hop.known_hosts)[0]:
            found[node.name] = f"ssh-keyscan -p {hop.port} {hop.host} >> {hop.known_hosts[0]}"
    return found


def _journal(wired: Wired) -> tuple[Lease | None, RolloutState | None, str | None]:
    """Who holds the lease, the rollout that is not finished, and why neither is known."""
    app = wired.cluster.app
    try:
        return wired.store.held(app), open_rollout(wired.store, app), None
    except (JournalError, ConfigError) as error:
        return None, None, str(error)
