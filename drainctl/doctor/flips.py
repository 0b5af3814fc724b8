"""socket-flip and port-flip: what stands in the way of a flip, one function per trap. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.in_place import BESIDE, asked, closed, filled, going, slowest_s
from drainctl.doctor.picture import Picture
from drainctl.errors import ConfigError
from drainctl.haproxy_cfg.model import Proxy, value
from drainctl.model import Nginx, Node, NodeLook
from drainctl.nginx import lines, upstream
from drainctl.nginx.lines import Says
from drainctl.node import ask
from drainctl.report.text import one_line, seconds
from drainctl.strategies import port_flip

PORT, SOCKET = "port-flip", "socket-flip"
KEEPS_CLIENTS = (1, 27, 4)  # nginx has keepalive_min_timeout from here on
KEEPS_APP = (1, 29, 7)  # and keeps connections to the app unless it is told not to
# Of 5 reloads under 16 keep-alive clients: back to back, and with 5 ms between an answer and the next.
LOST = {False: "10 of 102,000 and 17 of 15,000", True: "2 of 116,000 and 7 of 17,000"}


def tools(picture: Picture) -> Iterator[Finding]:
    """What a process beside another one is asked and looked at with."""
    for node in picture.cluster.nodes:
        ways = [name for name in node.strategy if name in BESIDE]
        facts = picture.facts.get(node.name)
        if not ways or facts is None:
            continue
        missing = [] if {"curl", "python3"} & facts.tools or picture.cluster.service.ask else ["curl"]
        missing += [tool for tool in ("ss", "awk") if tool not in facts.tools]
        if missing:
            packages = {"ss": "iproute2", "awk": "gawk"}
            wanted = " ".join(packages.get(tool, tool) for tool in missing)
            told = [f"{tool} (nor python3)" if tool == "curl" else tool for tool in missing]
            seen = f"{', '.join(ways)}: not found on {node.name}: {', '.join(told)}"
            change = f"apt-get install {wanted}   (or {node.name}'s own way)"
            severity = Severity.REFUSES if set(node.strategy) <= BESIDE else Severity.ADVICE
            yield Finding("tool-missing", severity, node.name, seen, change)


def commands(picture: Picture) -> Iterator[Finding]:
    """Commands of the in-place strategies that are not there, or that would ask for a password."""
    for node, facts in going(picture, *BESIDE, "reload"):
        severity = Severity.ADVICE if "http-check" in node.strategy else Severity.REFUSES
        for one in facts.commands:
            if one.there is False:
                seen = f"{one.key} = `{one.line}`: its program is not there, or not executable"
                change = f"{one.key} with a program that is on {node.name}"
                yield Finding("command-missing", severity, node.name, seen, change)
            elif one.may is False:
                plain = one.line.removeprefix("sudo").strip()
                user = picture.facts[node.name].user if node.name in picture.facts else "USER"
                seen = f"{one.key} = `{one.line}`: {user} may not run it without a password"
                change = f"{user} ALL=(root) NOPASSWD: {plain}   (visudo, with the program's whole path)"
                yield Finding("sudo-asks", severity, node.name, seen, change)


# ---------------------------------------------------------------- socket-flip


def link(picture: Picture) -> Iterator[Finding]:
    """`socket.current` is no link."""
    for node, said in asked(picture, SOCKET):
        if said.code or said.out.strip().startswith("/"):
            continue
        current = filled(picture.cluster, node, picture.cluster.socket and picture.cluster.socket.current)
        seen = f"{current}: {one_line(said.out) or 'nothing there'}"
        change = f"ln -s RELEASE.sock {current}   (RELEASE.sock: the socket of the process that serves)"
        yield Finding("socket-not-link", closed(node, SOCKET), node.name, seen, change)


def socket_not_named(picture: Picture) -> Iterator[Finding]:
    """Nginx connects to something else than `socket.current`."""
    for node, facts in going(picture, SOCKET):
        current = filled(picture.cluster, node, picture.cluster.socket and picture.cluster.socket.current)
        if facts.conf is not None and current not in facts.sockets:
            others = ", ".join(sorted(facts.sockets)) or "no unix socket at all"
            seen = f"nginx connects to {others}, and not to {current}"
            change = f"server unix:{current} max_fails=0;   (in its upstream)"
            yield Finding("upstream-not-socket", closed(node, SOCKET), node.name, seen, change)


# ---------------------------------------------------------------- port-flip: nginx and its file


def _looked(picture: Picture) -> Iterator[tuple[Node, Nginx, NodeLook, lines.NginxLook]]:
    """What the question before a rollout showed, where it could be asked."""
    cluster = picture.cluster
    for node, said in asked(picture, PORT):
        if not said.code:
            address = filled(cluster, node, cluster.service.address)
            look = lines.parse_inspect(said.out, address)
            yield node, port_flip.nginx_of(cluster, node), picture.survey.nodes[node.name], look


def not_running(picture: Picture) -> Iterator[Finding]:
    """Nowhere does nginx.pid lead to a running nginx."""
    for node, nginx, _, look in _looked(picture):
        if look.master is None:
            change = f"start nginx, or correct nginx: {{pid: …}} (now {nginx.pid})"
            seen = look.trouble or "its master was not found"
            yield Finding("nginx-not-running", closed(node, PORT), node.name, seen, change)


def file(picture: Picture) -> Iterator[Finding]:
    """The upstream file: missing, unreadable, or somebody else's."""
    for node, said in asked(picture, PORT):
        if said.code in {Says.NO_FOLDER, Says.UNREADABLE}:
            path = port_flip.nginx_of(picture.cluster, node).file
            change = f"make {path} a file that {_user(picture, node)} may read, in a folder it may enter"
            seen = one_line(said.err)
            yield Finding("upstream-file-unreadable", closed(node, PORT), node.name, seen, change)
    for node, nginx, _, look in _looked(picture):
        where = f"{node.name}:{nginx.file}"
        if look.file_text is None:
            change = f"drainctl render nginx --node {node.name} --upstream, into that file"
            yield Finding("upstream-file-missing", closed(node, PORT), where, "it is not there", change)
            continue
        try:
            found = upstream.read(look.file_text, nginx.upstream, name=str(nginx.file))
        except ConfigError as error:
            change = f"a file that holds upstream {nginx.upstream}, whole, and nothing else of nginx's"
            seen = one_line(str(error))
            yield Finding("upstream-file-unreadable", closed(node, PORT), where, seen, change)
            continue
        if not found.ours:
            servers = ", ".join(f"{server.address} {server.state}" for server in found.servers)
            seen = f"drainctl did not write it; it has {servers}"
            change = "drainctl deploy SOURCE --adopt   (`drainctl plan SOURCE --adopt` first)"
            yield Finding("upstream-file-foreign", closed(node, PORT), where, seen, change)


def folder(picture: Picture) -> Iterator[Finding]:
    """The file is replaced by rename, so its folder must be writable by drainctl's own user."""
    for node, facts in going(picture, PORT):
        if facts.folder in {"there", "missing"}:
            path = str(port_flip.nginx_of(picture.cluster, node).file).rpartition("/")[0] or "/"
            user = _user(picture, node)
            there = facts.folder == "there"
            seen = f"{user} cannot write into {path}" if there else f"no folder {path}"
            change = f"install -d -o {user} {path}   (on {node.name}), and `include` the file in http"
            yield Finding("upstream-folder-not-writable", closed(node, PORT), node.name, seen, change)


def generation(picture: Picture) -> Iterator[Finding]:
    """The page nginx.generation is silent, answers something else, or not what the file says."""
    for node, nginx, seen_now, look in _looked(picture):
        if look.master is None:
            continue
        said = ask.parse(seen_now.inspected[PORT].out)
        now = said[-1] if said else None
        if now is None or now.status != 200:
            seen = f"{nginx.generation} answers {now or 'nothing'}"
            yield Finding("generation-silent", closed(node, PORT), node.name, seen, _location(nginx))
            continue
        told = one_line(now.body.strip().rpartition("\n")[2])[-80:]
        port = told.rpartition(":")[2]
        if port not in map(str, picture.cluster.service.ports):
            seen = f"{nginx.generation} answers {told!r}, expected RELEASE:PORT"
            yield Finding("generation-other", closed(node, PORT), node.name, seen, _location(nginx))
        elif (wanted := _written(nginx, look.file_text)) not in {None, told}:
            seen = f"{nginx.generation} answers {told}, {nginx.file} says {wanted}"
            change = f"{nginx.reload}   (and look into nginx's error log, if it stays so)"
            yield Finding("generation-other", Severity.ADVICE, node.name, seen, change)


def _location(nginx: Nginx) -> str:
    name = upstream.variable(nginx.upstream)
    return f'location = /-/generation {{ default_type text/plain; return 200 "${name}\\n"; }}'


def _written(nginx: Nginx, text: str | None) -> str | None:
    try:
        return upstream.read(text or "", nginx.upstream, name="").generation
    except ConfigError:
        return None


def ports(picture: Picture) -> Iterator[Finding]:
    """The port that the next release is to have is taken."""
    for node, _, seen_now, look in _looked(picture):
        live = port_flip.STRATEGY.live(picture.cluster, node, seen_now)
        if live is None or look.listeners is None:
            continue
        for port in picture.cluster.service.ports:
            if str(port) != live and port in look.listeners:
                seen = f"{live} serves, and on {port} listens {look.listeners[port]}"
                change = f"{(picture.cluster.service.stop or 'end it').replace('{port}', str(port))}"
                yield Finding("port-taken", closed(node, PORT), node.name, seen, change)


def not_included(picture: Picture) -> Iterator[Finding]:
    """What nginx serves by is not what drainctl writes."""
    for node, facts in going(picture, PORT):
        nginx, conf = port_flip.nginx_of(picture.cluster, node), facts.conf
        if conf is None or (conf.at or "").rpartition(":")[0] == nginx.file:
            continue
        where = f"upstream {nginx.upstream} is in {conf.at}" if conf.at else f"no upstream {nginx.upstream}"
        seen = (
            f"nginx has {where}, and not in {nginx.file}" if not conf.at else f"{where}, not in {nginx.file}"
        )
        change = f"include {nginx.file};   (in the http block, in place of that upstream)"
        yield Finding("upstream-not-included", closed(node, PORT), node.name, seen, change)


# ---------------------------------------------------------------- port-flip: what a reload does to clients


def clients(picture: Picture) -> Iterator[Finding]:
    """A reload that loses requests of kept client connections, or that is said to and does not."""
    for node, facts in going(picture, PORT):
        keeps = facts.conf.keeps_clients if facts.conf else None
        match port_flip.nginx_of(picture.cluster, node).clients:
            case "lost" if keeps is not True:
                seen = f"nginx.clients = lost: measured in 5 reloads, {_losses(facts.version)} requests"
                yield Finding("clients-lost", Severity.LOSES, node.name, seen, _cure(facts.version))
            case "nudge" if deaf := _deaf(picture):
                seen = f"nginx.clients = nudge, and {deaf}: measured {_losses(facts.version)} requests lost"
                yield Finding("clients-lost", closed(node, PORT), node.name, seen, _cure(facts.version))
            case "kept" if keeps is not True:
                yield from _not_kept(picture, node, keeps, facts.version)


def _losses(version: tuple[int, ...]) -> str:
    return LOST[version >= KEEPS_CLIENTS]


def _cure(version: tuple[int, ...]) -> str:
    if version >= KEEPS_CLIENTS:
        return "keepalive_min_timeout 2s;   (in the server block), and nginx: {clients: kept}"
    return "balancers with a socket of level admin and clients: nudge; or nginx 1.27.4, keepalive_min_timeout"


def _deaf(picture: Picture) -> str:
    """Why nobody leaves the node alone for a moment; "" where somebody can be told."""
    if not picture.cluster.balancers:
        return "there is no balancer"
    names = [one.name for one in picture.cluster.balancers if not picture.can_nudge(one.name)]
    return f"{', '.join(names)} cannot be told" if names else ""


def _not_kept(
    picture: Picture, node: Node, keeps: bool | None, version: tuple[int, ...]
) -> Iterator[Finding]:
    """`kept` is somebody's word; here it is held against nginx's and HAProxy's configuration."""
    change = "option http-server-close   (in the backend), or keepalive_min_timeout 2s; in nginx"
    found = {balancer: (cfg.where(proxy.line), proxy) for balancer, cfg, proxy, _ in picture.configured()}
    open_ = [where for where, proxy in found.values() if not _closes(proxy)]
    for where in open_:
        seen = (
            "nginx.clients = kept, and this backend has neither `option http-server-close` nor `retry-on "
            "all-retryable-errors`; measured 11 of 68,000 requests lost in 5 reloads"
        )
        yield Finding("clients-not-kept", Severity.LOSES, where, seen, change)
    if open_ or (found and len(found) == len(picture.cluster.balancers)):
        return
    nothing = keeps is False and not picture.cluster.balancers
    seen = "nginx.clients = kept, and nginx has no keepalive_min_timeout"
    if not nothing:
        seen = "nginx.clients = kept, which nothing here shows (`--haproxy-cfg FILE` might)"
    severity = Severity.LOSES if nothing else Severity.ADVICE
    yield Finding("clients-not-kept", severity, node.name, seen, change if not nothing else _cure(version))


def _closes(proxy: Proxy) -> bool:
    settings = proxy.settings
    retried = "all-retryable-errors" in value(settings.retry_on, ())
    return retried or bool(settings.option("http-server-close") or settings.option("httpclose"))


# ---------------------------------------------------------------- port-flip: old workers


def shutdown(picture: Picture) -> Iterator[Finding]:
    """worker_shutdown_timeout cuts what old workers still answer."""
    for node, facts in going(picture, PORT):
        limit_s = facts.conf.worker_shutdown_timeout_s if facts.conf else None
        if facts.conf is None or limit_s is None:
            continue
        slowest = slowest_s(picture, node)
        allowed = max((one.read_timeout_s for one in facts.conf.passes), default=60.0)
        if limit_s < max(slowest, allowed):
            longest = (
                f"requests took up to {seconds(slowest)}"
                if limit_s < slowest
                else (f"an answer may take {allowed:g} s (read timeout)")
            )
            seen = f"worker_shutdown_timeout {limit_s:g}s, and {longest}"
            change = "take worker_shutdown_timeout out; client_header_timeout 10s bounds what is idle"
            yield Finding("shutdown-cuts", Severity.LOSES, node.name, seen, change)


def silent(picture: Picture) -> Iterator[Finding]:
    """Clients that connect and say nothing hold old workers, and with them the old process."""
    for node, facts in going(picture, PORT):
        limit_s = port_flip.nginx_of(picture.cluster, node).worker_limit_s
        if facts.conf is None or facts.conf.client_header_timeout_s <= limit_s:
            continue
        then = picture.cluster.drain.then
        seen = (
            f"client_header_timeout {facts.conf.client_header_timeout_s:g} s, nginx.worker_limit = "
            f"{limit_s:g} s (then: {then})"
        )
        change = f"client_header_timeout {min(10, int(limit_s)) or 1}s;   (in the server block)"
        severity = Severity.LOSES if then == "force" else Severity.SLOWER
        yield Finding("silent-clients", severity, node.name, seen, change)


def _user(picture: Picture, node: Node) -> str:
    return picture.facts[node.name].user if node.name in picture.facts else "drainctl's user"
