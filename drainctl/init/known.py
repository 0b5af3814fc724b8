"""
Configurations and what the sockets said → what the file is to say. Pure.

Nothing is made up here: a value is HAProxy's, or it is marked as one to set.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from drainctl.haproxy_cfg.model import value
from drainctl.init.asked import Asked, asked
from drainctl.init.choose import Group, describe, groups
from drainctl.init.draft import BalancerLine, Draft, Known, NodeLine
from drainctl.init.sight import Sight, Spot, in_url, is_loopback
from drainctl.init.timings import timings
from drainctl.init.warn import warnings

NOWHERE = "set-this.invalid"  # RFC 6761, section 6.4: a name below .invalid never resolves


def app_name(group: Group) -> str:
    """The app's name, where nobody says it: its first backend's, as far as it can be one."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", group.backends[0]).lstrip("._-")[:63] or "app"


def draft(sights: Sequence[Sight], group: Group, app: str) -> Draft:
    """The file that these balancers and this group of backends give."""
    spots = list(_spots(sights, group))
    match = _match(spots)
    nodes = _nodes(spots, match)
    questions = {spot: found for spot in spots if (found := asked(spot.sight.cfg, spot.proxy, spot.server))}
    nodes, check, site = _check(nodes, questions, spots)
    checks = timings([(spot.sight, spot.proxy, spot.server) for spot in spots])
    slowstart = max((value(spot.server.settings.slowstart, 0.0) for spot in spots), default=0.0)
    lines = tuple(line for _, line in nodes)
    return Draft(
        app=app,
        files={sight.name: sight.cfg.name for sight in sights if not sight.answered},
        balancers=tuple(BalancerLine(sight.balancer, sight.why, sight.set_this) for sight in sights),
        backends=group.backends,
        nodes=lines,
        check=check,
        site=site,
        checks=checks,
        match=match,
        local=all(is_loopback(line.host) for line in lines),
        sticky=_sticky(spots),
        watch_s=max(10, -int(-slowstart // 1)),
        others=tuple(describe(other) for other in groups(sights) if other != group),
        warnings=warnings(sights, spots, match),
    )


def _spots(sights: Sequence[Sight], group: Group) -> Iterator[Spot]:
    """Each server once; one that is there again is of the other side of a condition."""
    seen = set()
    for sight in sights:
        for proxy in sight.cfg.backends:
            for server in proxy.all_servers if proxy.name in group.backends else ():
                if (sight.name, proxy.name, server.name) not in seen:
                    yield Spot(sight, proxy, server)
                seen.add((sight.name, proxy.name, server.name))


# ---------------------------------------------------------------- nodes


def _match(spots: Sequence[Spot]) -> str:
    """
    By name, unless a machine has several names or a name several machines, or a template deals out its
    slots: then by address, where every address is known.
    """
    names: dict[str, set[str]] = {}
    machines: dict[str, set[str]] = {}
    for spot in spots:
        if spot.host:
            names.setdefault(spot.host, set()).add(spot.server.name)
            machines.setdefault(spot.server.name, set()).add(spot.host)
    beside = {
        host for host, known in names.items() if len(known) > 1 and _in_one_backend(spots, host)
    }  # several servers of one backend on one machine: only their names tell them apart
    many = [known for host, known in names.items() if host not in beside]
    unclear = any(len(known) > 1 for known in (*many, *machines.values()))
    moving = any(spot.server.template and spot.host for spot in spots)
    return "address" if (unclear or moving) and not beside else "name"


def _in_one_backend(spots: Sequence[Spot], host: str) -> bool:
    places = Counter((spot.sight.name, spot.proxy.name) for spot in spots if spot.host == host)
    return any(count > 1 for count in places.values())


def _nodes(spots: Sequence[Spot], match: str) -> list[tuple[list[Spot], NodeLine]]:
    """A node for each server's name, or with `match: address` for each machine."""
    by: dict[str, list[Spot]] = {}
    for spot in spots:
        key = (spot.address if match == "address" else "") or spot.server.name
        by.setdefault(key, []).append(spot)
    known = any(spot.host for spot in spots)
    nodes = []
    taken: dict[str, str] = {}
    for places in by.values():
        line = _node(places, match, known=known)
        if line.out == "" and not is_loopback(line.host):
            other = taken.setdefault(line.host, line.name)
            if other != line.name:
                text = f"on {other}'s machine; over SSH a node is a whole machine"
                line = NodeLine(line.name, line.host, line.server, line.vars, line.why, out=text)
        nodes.append((places, line))
    return nodes


def _node(places: Sequence[Spot], match: str, *, known: bool) -> NodeLine:
    first = next((spot for spot in places if spot.host), places[0])
    name = first.server.name
    host = (first.address if match == "address" else "") or first.host
    why = f"{first.line} {'/'.join(dict.fromkeys(spot.proxy.name for spot in places))}"
    why += ", backup" if first.server.settings.backup else ""
    if row := first.sight.row(first.proxy, first.server):
        why += f"; {row.status}"
    off = [spot for spot in places if spot.disabled]
    if host and len(off) == len(places):
        return NodeLine(name, host, why=why, out=f"disabled in {off[0].line}")
    if host and all(spot.server.settings.backup and not spot.checked for spot in places):
        return NodeLine(name, host, why=why, out="a backup without a check, so hardly the app")
    if host:
        return NodeLine(name, host, why=why)
    text = first.server.address.text
    if first.server.template and known:
        out = f"an empty slot: HAProxy shows no address for it ({text})"
        return NodeLine(name, f"{name.lower()}.{NOWHERE}", why=why, out=out)
    missing = f"HAProxy's address is {text} ({first.line}); which machine is that?"
    return NodeLine(name, f"{name.lower()}.{NOWHERE}", why=why, set_this=missing)


# ---------------------------------------------------------------- what HAProxy asks

Nodes = list[tuple[list[Spot], NodeLine]]


def _check(nodes: Nodes, questions: dict[Spot, Asked], spots: Sequence[Spot]) -> tuple[Nodes, Known, str]:
    """`health.check`, and the nodes with the placeholders that it needs."""
    mine = [
        (line, next(((spot, questions[spot]) for spot in places if spot in questions), None))
        for places, line in nodes
    ]
    known = [found for line, found in mine if found and not line.out] or [found for _, found in mine if found]
    ports = {found.port for _, found in known} - {None} or {_port(spots)}
    hosts = {in_url(line.host) == line.host for line, _ in mine}
    odd = any(found.host for _, found in known) or len(hosts) > 1
    host = "{check_host}" if odd else "{host}" if hosts == {True} else "[{host}]"
    port = "{check_port}" if len(ports) > 1 else next(iter(ports))
    filled = []
    for (places, line), (_, found) in zip(nodes, mine, strict=True):
        own = found[1] if found else None
        own_vars = {"check_host": in_url((own and own.host) or line.host)} if odd else {}
        if len(ports) > 1:
            own_vars["check_port"] = str((own and own.port) or next(iter(ports)))
        changed = NodeLine(line.name, line.host, line.server, own_vars, line.why, line.set_this, line.out)
        filled.append((places, changed))
    scheme = "https" if any(found.tls for _, found in known) else "http"
    site = f"{scheme}://{host}:{port}"
    return filled, _asks(site, known), site


def _port(spots: Sequence[Spot]) -> int:
    """The servers' own port, where no check tells another."""
    found = [spot.server.check_port for spot in spots if spot.server.check_port]
    return Counter(found).most_common(1)[0][0] if found else 80


def _asks(site: str, known: Sequence[tuple[Spot, Asked]]) -> Known:
    if not known:
        why = (
            "no backend here has `option httpchk`: add `option httpchk GET /http-check` and `http-check "
            "disable-on-404` to haproxy.cfg, `check` to each server, and this page to the app"
        )
        return Known(f"{site}/http-check", set_this=why)
    uri, _ = Counter(found.uri for _, found in known).most_common(1)[0]
    spot, first = next((spot, found) for spot, found in known if found.uri == uri)
    why = f"{spot.sight.where(first.line)} asks {first.method} {first.uri}"
    others = sorted({found.uri for _, found in known} - {uri})
    why += f", elsewhere {', '.join(others)}" if others else ""
    why += f"; Host: {first.virtual_host}" if first.virtual_host else ""
    if not uri.startswith("/") or "$" in uri or "%[" in uri:
        return Known(f"{site}/http-check", set_this=f"{why}: which page is that on a node?")
    return Known(f"{site}{uri}", why)


# ---------------------------------------------------------------- the rest


def _sticky(spots: Sequence[Spot]) -> Known | None:
    """`drain.sticky`, where clients are bound to their server."""
    for spot in spots:
        settings = spot.proxy.settings
        bound = settings.cookie or next((at for at in settings.stick if at.value.startswith("stick ")), None)
        if bound is None:
            continue
        admin = any(one.sight.look is not None and one.sight.look.can_change for one in spots)
        move = admin and settings.persist is None
        where = f"{spot.sight.where(bound.line)}: clients are bound to their server, even to a drained one"
        if move:
            return Known("move", f"{where}; `move` sends them elsewhere after 10 s, by MAINT")
        return Known("wait", f"{where}; `wait` is for their sessions to end, `move` needs level admin")
    return None
