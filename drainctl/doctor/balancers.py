"""What the balancers show: one function per trap. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.picture import Picture
from drainctl.model import BalancerLook, Place, Process, ServerRow, Word
from drainctl.report.text import seconds
from drainctl.rollout.rules import routing_tail_s

_PASSED = ("L4OK", "L6OK", "L7OK")
_FRESH_S = 60


def unreachable(picture: Picture) -> Iterator[Finding]:
    """A balancer that cannot be read."""
    for name, look in picture.survey.tables.items():
        if look.error:
            change = f"make balancers.{name} of {picture.cluster.file} lead to a HAProxy that answers"
            yield Finding("balancer-unreachable", Severity.REFUSES, name, look.error, change)


def unknown_servers(picture: Picture) -> Iterator[Finding]:
    """Names of drainctl.yml that a balancer does not have; behind a stats page they may only be hidden."""
    pages = {balancer.name: balancer.stats for balancer in picture.cluster.balancers if balancer.stats}
    for text in picture.unknown:
        key, _, seen = text.partition(": ")
        balancer = next((name for name in picture.survey.tables if seen.startswith(f"{name} ")), "")
        if balancer in pages:
            change = "remove `stats scope` from the page's section, or add the missing proxies to it"
            where = f"{balancer} {pages[balancer]}"
            yield Finding("stats-page-hides", Severity.REFUSES, where, seen, change)
        else:
            change = f"correct {key} in {picture.cluster.file}"
            yield Finding("server-unknown", Severity.REFUSES, f"{picture.cluster.file} {key}", seen, change)


def filtered_pages(picture: Picture) -> Iterator[Finding]:
    """A stats URL that asks the page to leave rows out."""
    for balancer in picture.cluster.balancers:
        asked = [word for word in ("up", "scope=") if f";{word}" in (balancer.stats or "")]
        if balancer.stats and asked:
            plain = balancer.stats.partition(";")[0]
            change = f"balancers.{balancer.name}: {{stats: {plain}}}"
            seen = f"the URL ends in ;{asked[0]}, which leaves rows out"
            yield Finding("stats-page-hides", Severity.REFUSES, balancer.name, seen, change)


def out_by_hand(picture: Picture) -> Iterator[Finding]:
    """A server of ours in MAINT or DRAIN."""
    for _, place, row in picture.rows():
        if row.status.word in {Word.MAINT, Word.DRAIN}:
            by_name = row.status.note == "resolution"
            change = f"set server {place.backend}/{place.server} state ready   (on {place.balancer}'s socket)"
            if by_name:
                change = f"an address for {place.server} that resolves on {place.balancer}"
            seen = f"{row.status} for {_age(row)}"
            yield Finding("server-out-by-hand", Severity.REFUSES, str(place), seen, change)


def no_check(picture: Picture) -> Iterator[Finding]:
    """A server without `check`."""
    for _, place, row in picture.rows():
        if row.status.word is Word.NO_CHECK:
            change = f"server {place.server} {row.address or 'ADDRESS'} check"
            yield Finding("no-check", Severity.REFUSES, str(place), "status `no check`", change)


def first_check_pending(picture: Picture) -> Iterator[Finding]:
    """A server whose first check has not ended."""
    for _, place, row in picture.rows():
        if row.check == "INI" and row.status.word not in {Word.MAINT, Word.NO_CHECK}:
            seen = f"{row.status}, check {row.check}"
            change = f"wait a check interval ({picture.cluster.checks.inter_s:g} s by drainctl.yml)"
            yield Finding("first-check-pending", Severity.REFUSES, str(place), seen, change)


def down(picture: Picture) -> Iterator[Finding]:
    """A server that HAProxy takes for dead."""
    for _, place, row in picture.rows():
        if row.status.word is Word.DOWN:
            seen = f"{row.status} for {_age(row)}, check {row.check} {row.last_check}".rstrip()
            yield Finding(
                "server-down", Severity.ADVICE, str(place), seen, "repair it before the others leave"
            )


def _age(row: ServerRow) -> str:
    """How long it has been so. HAProxy counts whole seconds."""
    return f"{row.since_s} s" if row.since_s < 100 else seconds(row.since_s)


def weight_zero(picture: Picture) -> Iterator[Finding]:
    """A server that is UP and gets nothing."""
    for _, place, row in picture.rows():
        if row.weight == 0 and row.status.word is Word.UP:
            change = f"server {place.server} … weight 1"
            yield Finding("weight-zero", Severity.ADVICE, str(place), f"{row.status} with weight 0", change)


def too_few(picture: Picture) -> Iterator[Finding]:
    """Backends in which one server, or none but backups, carries everything."""
    if not picture.drains:
        return
    for balancer, backend in picture.served():
        rows = [row for row in picture.survey.tables[balancer].rows if row.backend == backend]
        usable = [row for row in rows if _usable(row)]
        active = [row.server for row in usable if row.role == "active"]
        where = f"{balancer} {backend}"
        if not active and usable:
            seen = f"0 active servers up, {len(usable)} backup"
            change = "bring an active server up, or take `backup` off a server line"
            yield Finding("backups-only", Severity.LOSES, where, seen, change)
        elif len(usable) == 1:
            seen = f"only {active[0]} of {len(rows)} servers is usable"
            change = f"a second server in backend {backend}"
            yield Finding("one-usable-server", Severity.LOSES, where, seen, change)


def _usable(row: ServerRow) -> bool:
    return row.status.word in {Word.UP, Word.NO_CHECK} and row.weight > 0


def disagreement(picture: Picture) -> Iterator[Finding]:
    """A node that is in rotation on one balancer and not on another."""
    shown: defaultdict[str, dict[Place, ServerRow]] = defaultdict(dict)
    for node, place, row in picture.rows():
        shown[node.name][place] = row
    for name, rows in shown.items():
        words = {row.status.word is Word.UP for row in rows.values()}
        steady = all(row.status.steady for row in rows.values())
        if len(words) == 2 and steady:
            seen = ", ".join(f"{row.status} on {place.balancer}" for place, row in rows.items())
            change = "find out why: a check that only some balancers can make, or a server set by hand"
            yield Finding("balancers-disagree", Severity.LOSES, name, seen, change)


def not_admin(picture: Picture) -> Iterator[Finding]:
    """A socket that cannot be nudged: each way waits for a check."""
    if not picture.drains:
        return
    cluster = picture.cluster
    inter_s, nodes = cluster.checks.inter_s, len(cluster.nodes)
    waits = (
        f"each node waits up to {routing_tail_s(cluster.checks):g} s to leave and about {inter_s / 2:g} s "
        f"to come back; {nodes} nodes: about {nodes * inter_s:g} s in all"
    )
    for balancer in cluster.balancers:
        look = picture.survey.tables.get(balancer.name)
        if look is None or look.error or look.can_change:
            continue
        if balancer.stats:
            seen = f"a stats page is read only: {waits}"
            change = f"balancers.{balancer.name}: {{runtime: unix:/run/haproxy/admin.sock}}"
        else:
            path = (balancer.runtime or "").removeprefix("unix:").replace("tcp://", "ipv4@")
            seen = f"its level is not admin: {waits}"
            change = f"stats socket {path} level admin expose-fd listeners"
        yield Finding("socket-not-admin", Severity.SLOWER, balancer.name, seen, change)


def no_master(picture: Picture) -> Iterator[Finding]:
    """Old workers that nobody counts: no master socket, and perhaps no count on the node either."""
    if not picture.drains:
        return
    counted = picture.cluster.health.active != "none"
    for balancer in picture.cluster.balancers:
        look = picture.survey.tables.get(balancer.name)
        if balancer.master or look is None or look.error:
            continue
        seen = "no `master:`; the node's own count (health.active) is all there is after a reload"
        if not counted:
            seen = "no `master:`, and health.active is none: nobody counts them"
        change = f"haproxy -W -S /run/haproxy/master.sock, and `master:` in balancers.{balancer.name}"
        severity = Severity.ADVICE if counted else Severity.LOSES
        yield Finding("no-master-socket", severity, balancer.name, seen, change)


def old_workers(picture: Picture) -> Iterator[Finding]:
    """Workers that a reload left behind."""
    for look in picture.looks:
        for worker in look.old_workers:
            busy = sum(row.scur for row in worker.rows)
            seen = f"old worker {worker.pid}, reloaded {worker.uptime} ago, {busy} requests in flight"
            change = "wait for it; `hard-stop-after 10m` in `global` bounds how long one may stay"
            yield Finding("old-workers", Severity.ADVICE, look.balancer, seen, change)


def reloaded(picture: Picture) -> Iterator[Finding]:
    """A balancer that began less than a minute ago."""
    for look in picture.looks:
        uptime_s = look.process.uptime_s if look.process else None
        if uptime_s is not None and uptime_s < _FRESH_S:
            seen = f"its process {look.process.pid if look.process else '?'} is {uptime_s} s old"
            yield Finding("reloaded-recently", Severity.ADVICE, look.balancer, seen, "wait a minute")


def process_changes(picture: Picture) -> Iterator[Finding]:
    """Two looks that met two processes, the second of which is not a new one."""
    for look in picture.looks:
        now = picture.again.get(look.balancer)
        if _differ(look.process, now):
            before = look.process.pid if look.process else None
            seen = f"process {before} answered, then {now.pid if now else None}"
            change = "end the forgotten process (`ss -Hltnp` or `lsof` on the socket names both)"
            yield Finding("process-changes", Severity.LOSES, look.balancer, seen, change)


def _differ(before: Process | None, now: Process | None) -> bool:
    """Two known processes, the second of which did not begin between the two looks: that is a reload."""
    if before is None or now is None or None in (before.pid, now.pid):
        return False
    return before.pid != now.pid and (now.uptime_s or 0) > 1


def versions(picture: Picture) -> Iterator[Finding]:
    """Balancers of different versions."""
    found = {look.balancer: look.process.version for look in picture.looks if look.process}
    known = {name: version for name, version in found.items() if version}
    if len(set(known.values())) > 1:
        seen = ", ".join(f"{name} {version}" for name, version in known.items())
        change = "the same HAProxy on every balancer"
        yield Finding("versions-differ", Severity.ADVICE, "balancers", seen, change)


def sticky(picture: Picture) -> Iterator[Finding]:
    """Cookies, seen in the servers' rows, without a policy for the clients that have them."""
    found: dict[tuple[str, str], list[str]] = {}
    for _, place, row in picture.rows():
        if row.cookie:
            found.setdefault((place.balancer, place.backend), []).append(row.cookie)
    for (balancer, backend), cookies in found.items():
        yield from sticky_finding(picture, balancer, f"{balancer} {backend}", f"cookie {', '.join(cookies)}")


def sticky_finding(picture: Picture, balancer: str, where: str, seen: str) -> Iterator[Finding]:
    """What follows from persistence in one backend, by drain.sticky, drain.then and the socket's level."""
    if not picture.drains:
        return
    drain = picture.cluster.drain
    if drain.sticky == "wait":
        ends = "cuts them" if drain.then == "force" else f"does `{drain.then}`"
        told = f"{seen}; drain.sticky = wait: after drain.limit = {drain.limit_s:g} s drainctl {ends}"
        change = "drain: {sticky: move, move_after: 10s}   (in drainctl.yml)"
        yield Finding("sticky-clients", Severity.LOSES, where, told, change)
    elif not picture.can_nudge(balancer):
        told = f"{seen}; drain.sticky = move sets MAINT, which needs a socket of level admin"
        change = "level admin on its `stats socket` line, and `runtime:` in drainctl.yml"
        yield Finding("sticky-clients", Severity.SLOWER, where, told, change)


def agents(picture: Picture) -> Iterator[Finding]:
    """Servers with an agent check."""
    for _, place, row in picture.rows():
        if row.agent:
            change = "let the agent say nothing of drain, maint and ready, or take `agent-check` off the line"
            yield Finding("agent-check", Severity.ADVICE, str(place), f"agent status {row.agent}", change)


def other_backends(picture: Picture) -> Iterator[Finding]:
    """Backends beyond `backends:` that track our servers or have the same addresses."""
    for look in picture.looks:
        ours = {
            (place.backend, row.server): row
            for _, place, row in picture.rows()
            if place.balancer == look.balancer
        }
        listed = {backend for backend, _ in ours}
        by_address = {row.address: row for row in ours.values() if row.address}
        told: dict[str, str] = {}
        for row in look.rows:
            if row.backend in listed:
                continue
            same = by_address.get(row.address)
            if row.tracks and tuple(row.tracks.split("/", 1)) in ours:
                told.setdefault(row.backend, f"{row.backend}/{row.server} tracks {row.tracks}")
            elif same is not None:
                named = f"{row.backend}/{row.server} is {same.backend}/{same.server} ({row.address})"
                told.setdefault(row.backend, named)
        for backend, seen in told.items():
            change = f"backends: [{', '.join([*sorted(listed), backend])}]"
            yield Finding("backend-not-listed", Severity.LOSES, f"{look.balancer} {backend}", seen, change)


def slow_requests(picture: Picture) -> Iterator[Finding]:
    """Requests that took longer than a drain may."""
    drain = picture.cluster.drain
    if drain.then == "wait" or not picture.drains:
        return
    severity = Severity.LOSES if drain.then == "force" else Severity.SLOWER
    for balancer, backend in picture.served():
        slowest = _slowest(picture.survey.tables[balancer], backend)
        if slowest is not None and slowest.slowest_s > drain.limit_s:
            seen = (
                f"the slowest at {slowest.server} took {seconds(slowest.slowest_s)}, drain.limit = "
                f"{drain.limit_s:g} s (then: {drain.then})"
            )
            change = f"drain: {{limit: {int(slowest.slowest_s * 1.2) + 1}s}}   (in drainctl.yml)"
            yield Finding("slow-requests", severity, f"{balancer} {backend}", seen, change)


def _slowest(look: BalancerLook, backend: str) -> ServerRow | None:
    rows = [row for row in look.rows if row.backend == backend]
    return max(rows, key=lambda row: row.slowest_s, default=None)
