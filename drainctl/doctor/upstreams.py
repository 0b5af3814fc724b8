"""What nginx's whole configuration says of the upstream: one function per trap. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.flips import KEEPS_APP
from drainctl.doctor.in_place import BESIDE, asked, closed, going, slowest_s
from drainctl.doctor.picture import InPlace, Picture
from drainctl.nginx.settings import Member, Settings
from drainctl.report.text import one_line, seconds
from drainctl.strategies import backup, beside, hidden
from drainctl.strategies.port_flip import nginx_of

BACKUP = "backup"
SHORT_S = 10.0  # a read limit below this is no limit for slow pages but one that fails them


def unread(picture: Picture) -> Iterator[Finding]:
    """A configuration that could not be read, or that nginx itself refuses."""
    for node, facts in going(picture, *BESIDE):
        if facts.conf is not None or not facts.conf_error:
            continue
        test = nginx_of(picture.cluster, node).test
        seen = one_line(facts.conf_error)[-300:]
        if "[emerg]" in facts.conf_error and "port-flip" in node.strategy:
            change = f"make `{test}` end with 0 for this user (as root: `sudo nginx -t`)"
            yield Finding("nginx-test-fails", closed(node, "port-flip"), node.name, seen, change)
        elif "does not run by" not in facts.conf_error:
            change = "allow this user `nginx -T` beside `nginx -t`, or read the configuration yourself"
            yield Finding("nginx-unread", Severity.ADVICE, node.name, seen, change)


def keeps_connections(picture: Picture) -> Iterator[Finding]:
    """Connections to the app that are used again, and may meet its close."""
    for node, facts in going(picture, *BESIDE, "reload"):
        conf = facts.conf
        if conf is None or not conf.at or not _keeps(conf, facts):
            continue
        by = (
            f"keepalive {conf.keepalive}"
            if conf.keepalive is not None
            else (f"nothing, and nginx {'.'.join(map(str, facts.version))} then keeps 32 connections")
        )
        seen = f"the upstream in {conf.at} says {by}, each for {conf.keepalive_requests} requests"
        change = "keepalive_requests 1;   (in the upstream)"
        yield Finding("upstream-keeps-connections", Severity.LOSES, node.name, seen, change)


def _keeps(conf: Settings, facts: InPlace) -> bool:
    """Whether a connection to the app is used twice. Before 1.29.7 `Connection: close` is sent by default."""
    if conf.keepalive_requests <= 1 or conf.keepalive == 0:
        return False
    newer = facts.version >= KEEPS_APP
    if conf.keepalive is None:
        return newer
    asks = [one for one in conf.passes if one.protocol != "proxy" or one.connection not in {None, "close"}]
    return newer or bool(asks)


def runs_twice(picture: Picture) -> Iterator[Finding]:
    """non_idempotent runs a POST twice."""
    for node, facts in going(picture, *BESIDE, "reload"):
        for one in facts.conf.passes if facts.conf else ():
            if "non_idempotent" in one.next_upstream:
                words = " ".join(word for word in one.next_upstream if word != "non_idempotent")
                seen = f"{one.at}: {one.protocol}_next_upstream {' '.join(one.next_upstream)}"
                change = f"{one.protocol}_next_upstream {words or 'error'};"
                yield Finding("posts-twice", Severity.LOSES, node.name, seen, change)


# ---------------------------------------------------------------- backup


def _backups(picture: Picture) -> Iterator[tuple[str, InPlace, Settings, tuple[Member, ...]]]:
    """The nodes whose upstream is known, with those of its servers that may be marked failed."""
    for node, facts in going(picture, BACKUP):
        if facts.conf is not None:
            marked = tuple(one for one in facts.conf.servers if one.max_fails and not one.down)
            yield node.name, facts, facts.conf, marked


def short_reads(picture: Picture) -> Iterator[Finding]:
    """A slow answer that counts as a failed server."""
    for name, _, conf, marked in _backups(picture):
        slowest = slowest_s(picture, picture.cluster.node(name))
        for one in conf.passes if marked else ():
            if one.read_timeout_s < max(SHORT_S, slowest):
                longest = f", requests took up to {seconds(slowest)}" if slowest else ""
                fails = marked[0].max_fails
                limit = f"{one.protocol}_read_timeout {one.read_timeout_s:g} s"
                seen = f"{one.at}: {limit}, max_fails={fails}{longest}"
                change = f"{one.protocol}_read_timeout 900s;   (1 s is for {one.protocol}_connect_timeout)"
                yield Finding("slow-counts-as-failed", Severity.LOSES, name, seen, change)
                break


def fail_timeout(picture: Picture) -> Iterator[Finding]:
    """nginx.fail_timeout against the servers' own."""
    for name, _, conf, marked in _backups(picture):
        theirs = max((one.fail_timeout_s for one in marked), default=0.0)
        ours = nginx_of(picture.cluster, picture.cluster.node(name)).fail_timeout_s
        if not conf.servers or ours == theirs:
            continue
        seen = f"nginx.fail_timeout = {ours:g} s, the servers of {conf.at} say " + (
            f"fail_timeout={theirs:g}s" if marked else "max_fails=0, so nginx leaves none alone"
        )
        change = f"nginx: {{fail_timeout: {theirs:g}s}}   (in drainctl.yml)"
        severity = Severity.LOSES if ours < theirs else Severity.SLOWER
        yield Finding("fail-timeout-differs", severity, name, seen, change)


def marks_failed(picture: Picture) -> Iterator[Finding]:
    """A server that one error makes nginx avoid for a while."""
    for name, _, conf, marked in _backups(picture):
        if marked:
            seen = f"{', '.join(one.address for one in marked)} in {conf.at}: max_fails={marked[0].max_fails}"
            change = f"server {marked[0].address} max_fails=0{' backup' if marked[0].backup else ''};"
            yield Finding("marks-failed", Severity.ADVICE, name, f"{seen}", change)


def no_backup(picture: Picture) -> Iterator[Finding]:
    """The upstream is not the pair that is restarted in turn."""
    for name, _, conf, _ in _backups(picture):
        pair = backup.pair(picture.cluster, picture.cluster.node(name), None)
        first, *more = wanted = [one.address for one in pair]
        named = {_short(one.address): one for one in conf.servers if not one.down}
        lacking = [one for one in wanted if _short(one) not in named]
        if lacking:
            seen = f"upstream in {conf.at or 'no file at all'} has no server {', '.join(lacking)}"
            change = f"server {lacking[-1]} max_fails=0{' backup' if lacking[-1] != first else ''};"
            yield Finding("no-backup-server", Severity.LOSES, name, seen, change)
        elif [named[_short(one)].backup for one in wanted] != [False, *[True] * len(more)]:
            told = ", ".join(f"{one.address}{' backup' if one.backup else ''}" for one in named.values())
            seen = f"servers of {conf.at}: {told}; drainctl.yml has {', '.join(wanted)}"
            change = f"`backup` on the server {more[-1] if more else first}, and on no other"
            yield Finding("no-backup-server", Severity.ADVICE, name, seen, change)


def _short(address: str) -> str:
    """A socket by its path, anything else by its port: a host has many names."""
    return address if address.startswith("unix:") else address.rpartition(":")[2]


def on_ports(picture: Picture) -> Iterator[Finding]:
    """A process that is told to end, on a port that cannot be hidden from nginx."""
    service, clients = picture.cluster.service, _clients(picture)
    for node in picture.cluster.nodes:
        if BACKUP not in node.strategy or service.sockets or clients == "kept":
            continue
        severity = closed(node, BACKUP) if clients == "nudge" else Severity.LOSES
        seen = (
            f"service.ports = {list(service.ports)}, nginx.clients = {clients}: measured with gunicorn, "
            "65 of 53,024 POSTs lost in 12 stops"
        )
        change = "service: {sockets: [/run/APP/live.sock, /run/APP/backup.sock]}   (in place of ports)"
        yield Finding("backup-on-ports", severity, node.name, seen, change)


def _clients(picture: Picture) -> str:
    """What becomes of who loses a request, by drainctl.yml."""
    return picture.cluster.nginx.clients if picture.cluster.nginx else "nudge"


def not_hidden(picture: Picture) -> Iterator[Finding]:
    """A socket that cannot be taken out of nginx's sight."""
    for node, said in asked(picture, BACKUP):
        pair = backup.pair(picture.cluster, node, None)
        for one, out in zip(pair, said.out.split(beside.NEXT), strict=False):
            if said.code or not picture.cluster.service.sockets:
                continue
            why = hidden.why_not(one, out)
            if why:
                change = f"a socket at {one.path}, in a folder of drainctl's user"
                yield Finding("socket-not-hideable", closed(node, BACKUP), node.name, why, change)
