"""What haproxy.cfg says of the backends and servers that are ours: one function per trap. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

from drainctl.config.placeholders import fill, values_of
from drainctl.doctor.balancers import sticky_finding
from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.picture import Picture
from drainctl.haproxy_cfg.model import At, HaproxyCfg, Proxy, Server, value
from drainctl.model import Node
from drainctl.report.text import seconds

_STATES = {"global", "local"}


def unread(picture: Picture) -> Iterator[Finding]:
    """Lines that the reader could not make sense of."""
    for cfg in dict.fromkeys(cfg.name for cfg in picture.cfgs.values()):
        found = next(one for one in picture.cfgs.values() if one.name == cfg)
        for note in found.notes:
            yield Finding(
                "cfg-unread", Severity.ADVICE, found.where(note.line), note.text, "read this line yourself"
            )


def health_check(picture: Picture) -> Iterator[Finding]:
    """No HTTP check, or one for which a 404 is a plain failure."""
    for balancer, cfg, proxy, pairs in picture.configured() if picture.drains else ():
        if all(server.settings.track for _, server in pairs):
            continue
        uri = urlsplit(picture.cluster.health.check).path or "/"
        at = cfg.where(proxy.line)
        if proxy.settings.httpchk is None:
            kind = value(proxy.settings.check_kind, "none")
            seen = f"backend {proxy.name} has no `option httpchk` (check: {kind})"
            change = f"option httpchk GET {uri}"
            yield Finding("no-httpchk", Severity.REFUSES, at, seen, change)
        elif not value(proxy.settings.disable_on_404, False):
            seen = f"backend {proxy.name} lacks `http-check disable-on-404`"
            change = "http-check disable-on-404"
            severity = Severity.LOSES if picture.can_nudge(balancer) else Severity.REFUSES
            yield Finding("no-disable-on-404", severity, at, seen, change)


def tracking(picture: Picture) -> Iterator[Finding]:
    """A tracking backend that differs from the tracked one in disable-on-404, whether ours or not."""
    for cfg in _once(picture):
        for proxy, server in cfg.servers():
            track = server.settings.track
            if track is None:
                continue
            name, _, _ = track.value.rpartition("/")
            tracked = cfg.backend(name or proxy.name)
            if tracked is None or not _drains(tracked) or _drains(proxy):
                continue
            seen = (
                f"{proxy.name}/{server.name} tracks {track.value}; backend {proxy.name} lacks disable-on-404"
            )
            change = "option httpchk and http-check disable-on-404"
            yield Finding("track-without-httpchk", Severity.LOSES, cfg.where(track.line), seen, change)


def unchecked(picture: Picture) -> Iterator[Finding]:
    """A server line without `check`."""
    for _, cfg, proxy, pairs in picture.configured():
        for _, server in pairs:
            settings = server.settings
            if settings.check is None and settings.track is None:
                seen = f"{proxy.name}/{server.name} has no `check`"
                change = f"server {server.name} {server.address.text} check"
                yield Finding("no-check", Severity.REFUSES, cfg.where(server.line), seen, change)


def cut_when_marked(picture: Picture) -> Iterator[Finding]:
    """on-marked-down and on-marked-up: both cut requests in flight."""
    for _, cfg, proxy, pairs in picture.configured():
        down = _lines([server.settings.on_marked_down for _, server in pairs], "shutdown-sessions")
        for at, names in _by_line(down, pairs).items():
            seen = f"on-marked-down shutdown-sessions on {names} in backend {proxy.name}"
            change = "take `on-marked-down shutdown-sessions` off this line"
            yield Finding("marked-down-cuts", Severity.LOSES, cfg.where(at), seen, change)
        backups = [server.name for server in proxy.all_servers if server.settings.backup]
        up = _lines([server.settings.on_marked_up for _, server in pairs], "shutdown-backup-sessions")
        for at, names in _by_line(up, pairs).items() if backups else ():
            seen = f"on-marked-up shutdown-backup-sessions on {names}; backups: {', '.join(backups)}"
            change = "take `on-marked-up shutdown-backup-sessions` off this line"
            yield Finding("marked-up-cuts", Severity.LOSES, cfg.where(at), seen, change)


def _lines(found: list[At[str] | None], wanted: str) -> list[int | None]:
    return [one.line if one is not None and one.value == wanted else None for one in found]


def _by_line(lines: list[int | None], pairs: list[tuple[Node, Server]]) -> dict[int, str]:
    """One entry per line of the file: a default-server line speaks for many servers."""
    told: dict[int, list[str]] = {}
    for line, (_, server) in zip(lines, pairs, strict=True):
        if line is not None:
            told.setdefault(line, []).append(server.name)
    return {line: ", ".join(names) for line, names in told.items()}


def persistence(picture: Picture) -> Iterator[Finding]:
    """Cookies and stick tables; and `option persist`, which keeps them where they are whatever happens."""
    for balancer, cfg, proxy, pairs in picture.configured():
        found = _sticks(proxy, pairs)
        if found is None:
            continue
        yield from sticky_finding(picture, balancer, cfg.where(found.line), f"{found.value} in {proxy.name}")
        persist = proxy.settings.persist
        if persist is not None:
            seen = f"option persist in backend {proxy.name}, with `{found.value}`"
            change = "no option persist"
            yield Finding("option-persist", Severity.LOSES, cfg.where(persist.line), seen, change)


def _sticks(proxy: Proxy, pairs: list[tuple[Node, Server]]) -> At[str] | None:
    """The line that binds clients to servers, in words."""
    cookie = proxy.settings.cookie
    rules = [
        line
        for line in proxy.settings.stick
        if line.value.split()[:2] in (["stick", "on"], ["stick", "match"])
    ]
    if cookie is not None and any(server.settings.cookie for _, server in pairs):
        return At(f"cookie {' '.join(cookie.value)}", cookie.line)
    return rules[0] if rules else None


def retries(picture: Picture) -> Iterator[Finding]:
    """What happens to a request whose server cannot be connected."""
    for _, cfg, proxy, _ in picture.configured():
        settings = proxy.settings
        at = cfg.where(proxy.line)
        if settings.retries is not None and settings.retries.value == 0:
            yield Finding(
                "retries-zero", Severity.LOSES, cfg.where(settings.retries.line), "retries 0", "retries 3"
            )
        elif not value(settings.redispatch, 0) and not value(settings.retry_on, ()):
            seen = f"backend {proxy.name} has neither `option redispatch` nor `retry-on`"
            yield Finding("no-redispatch", Severity.LOSES, at, seen, "option redispatch 1")


def state_file(picture: Picture) -> Iterator[Finding]:
    """Drains and finished checks that a reload forgets."""
    for balancer, cfg, proxy, _ in picture.configured():
        loads = value(proxy.settings.load_server_state, "none")
        if loads in _STATES and (loads == "local" or cfg.global_.state_file):
            continue
        nudged = picture.can_nudge(balancer)
        does = "drainctl takes it out again at once" if nudged else "nothing takes it out before its check"
        wanted = "no server-state-file" if loads in _STATES else "no load-server-state-from-file"
        seen = f"{wanted} for backend {proxy.name}; {does}"
        change = (
            "server-state-file /var/lib/haproxy/server-state (global), load-server-state-from-file global "
            "(defaults), and `show servers state` written to it right before each reload"
        )
        severity = Severity.ADVICE if nudged else Severity.LOSES
        yield Finding("state-lost-at-reload", severity, cfg.where(proxy.line), seen, change)


def idle_clients(picture: Picture) -> Iterator[Finding]:
    """Frontends whose idle client connections are closed at a reload, with a request perhaps on its way."""
    backends = {proxy.name for _, _, proxy, _ in picture.configured()}
    for cfg in _once(picture):
        for proxy in cfg.proxies:
            if not _leads_to(proxy, backends) or proxy.settings.option("idle-close-on-response"):
                continue
            seen = f"{proxy.kind} {proxy.name} lacks `option idle-close-on-response`"
            change = "option idle-close-on-response   (in defaults)"
            yield Finding("idle-cut-at-reload", Severity.ADVICE, cfg.where(proxy.line), seen, change)


def _leads_to(proxy: Proxy, backends: set[str]) -> bool:
    """Whether clients reach one of the backends through this frontend or listen."""
    if proxy.kind == "listen":
        return proxy.name in backends
    default = proxy.default_backend.value if proxy.default_backend else None
    return not backends.isdisjoint({default, *(name.value for name in proxy.use_backends)})


def check_target(picture: Picture) -> Iterator[Finding]:
    """A check that goes to another address or port than the requests do."""
    for cfg, proxy, node, server in _checked(picture):
        port = _check_port(proxy, server)
        if (server.check_host, port) == (server.address.host, server.address.port):
            continue
        _, known = _asked(picture, node)
        line = (server.settings.port or server.settings.addr or At(0, server.line)).line
        to = server.address.text
        seen = f"{server.name} is checked at {server.check_host}:{port}, its requests go to {to}"
        change = f"server {server.name} {server.address.text} check   (without `port` and `addr`)"
        severity = Severity.ADVICE if port == known else Severity.LOSES
        yield Finding("check-not-the-app", severity, cfg.where(line), seen, change)


def check_page(picture: Picture) -> Iterator[Finding]:
    """HAProxy asks another page or port than health.check names."""
    for cfg, proxy, node, server in _checked(picture) if picture.cluster.health.check else ():
        httpchk = proxy.settings.httpchk
        url, known = _asked(picture, node)
        path, port = url.path or "/", _check_port(proxy, server)
        if httpchk is not None and (port, httpchk.uri.value) != (known, path):
            seen = f"HAProxy asks port {port} for {httpchk.uri.value}, health.check port {known} for {path}"
            change = f'health: {{check: "{url.scheme}://{{host}}:{port}{httpchk.uri.value}"}}'
            yield Finding("check-asks-other", Severity.ADVICE, cfg.where(server.line), seen, change)


def _checked(picture: Picture) -> Iterator[tuple[HaproxyCfg, Proxy, Node, Server]]:
    """Every server of ours on an IP address that has a check of its own."""
    for _, cfg, proxy, pairs in picture.configured():
        for node, server in pairs:
            if server.settings.track is None and server.address.kind == "ip":
                yield cfg, proxy, node, server


def _check_port(proxy: Proxy, server: Server) -> int | None:
    """`http-check connect port`, else the server line's."""
    httpchk = proxy.settings.httpchk
    return httpchk.port.value if httpchk is not None and httpchk.port is not None else server.check_port


def _asked(picture: Picture, node: Node) -> tuple[SplitResult, int]:
    """health.check on this node, and its port."""
    url = urlsplit(fill(picture.cluster.health.check, values_of(picture.cluster, node, "RELEASE")))
    return url, url.port or (443 if url.scheme == "https" else 80)


def weights(picture: Picture) -> Iterator[Finding]:
    """A server that gets nothing."""
    for _, cfg, proxy, pairs in picture.configured():
        for _, server in pairs:
            weight = server.settings.weight
            if weight is not None and weight.value == 0:
                seen = f"{proxy.name}/{server.name} has weight 0"
                yield Finding("weight-zero", Severity.ADVICE, cfg.where(weight.line), seen, "weight 1")


def agents(picture: Picture) -> Iterator[Finding]:
    """Servers with an agent check."""
    for _, cfg, proxy, pairs in picture.configured():
        lines = [
            server.settings.agent_check.line if server.settings.agent_check else None for _, server in pairs
        ]
        for at, names in _by_line(lines, pairs).items():
            change = "let the agent say nothing of drain, maint and ready, or take `agent-check` off the line"
            seen = f"agent-check on {names} in backend {proxy.name}"
            yield Finding("agent-check", Severity.ADVICE, cfg.where(at), seen, change)


def page_scope(picture: Picture) -> Iterator[Finding]:
    """A stats page that drainctl reads and that leaves our backends out."""
    pages = {balancer.name: balancer.stats for balancer in picture.cluster.balancers if balancer.stats}
    for balancer, cfg, proxy, _ in picture.configured():
        for page in cfg.proxies:
            stats = page.settings.stats
            if (
                balancer not in pages
                or stats is None
                or not stats.scope
                or not _is_page(pages[balancer], page)
            ):
                continue
            listed = {scope.value for scope in stats.scope}
            if proxy.name in listed or (proxy is page and "." in listed):
                continue
            seen = f"the stats page shows {', '.join(sorted(listed))} and not {proxy.name}"
            change = f"stats scope {proxy.name}"
            yield Finding("stats-page-hides", Severity.REFUSES, cfg.where(stats.scope[0].line), seen, change)


def _is_page(url: str | None, page: Proxy) -> bool:
    stats = page.settings.stats
    uri = value(stats.uri if stats else None, "/haproxy?stats")
    asked = urlsplit((url or "").partition(";")[0])
    return f"{asked.path}{f'?{asked.query}' if asked.query else ''}" == uri


def timeout_server(picture: Picture) -> Iterator[Finding]:
    """Requests that ended just when `timeout server` was over."""
    for balancer, cfg, proxy, _ in picture.configured():
        limit = proxy.settings.timeouts.get("server")
        look = picture.survey.tables.get(balancer)
        if limit is None or look is None or limit.value < 1:
            continue
        for row in look.rows:
            if row.backend == proxy.name and 0.95 * limit.value <= row.slowest_s <= limit.value * 1.05 + 1:
                seen = (
                    f"the slowest request at {row.server} took {seconds(row.slowest_s)}, timeout server = "
                    f"{limit.value:g} s"
                )
                change = f"timeout server {int(limit.value * 2)}s"
                yield Finding("timeout-server-hit", Severity.LOSES, cfg.where(limit.line), seen, change)
                break


# ---------------------------------------------------------------- what the rules share


def _drains(proxy: Proxy) -> bool:
    return proxy.settings.httpchk is not None and value(proxy.settings.disable_on_404, False)


def _once(picture: Picture) -> Iterator[HaproxyCfg]:
    """Each file once, also where it was given for several balancers."""
    return iter({cfg.name: cfg for cfg in picture.cfgs.values()}.values())
