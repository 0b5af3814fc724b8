"""The lab's parts: the files that each one needs, and the services that they start."""

from __future__ import annotations

import os
from pathlib import Path

from drainctl.lab import apps
from drainctl.lab.apps import FIRST
from drainctl.lab.processes import Service
from drainctl.lab.programs import find, find_on_path
from drainctl.lab.releases import unpack
from drainctl.lab.settings import Settings
from drainctl.nginx import upstream
from drainctl.templates import folder as templates
from drainctl.templates import render


def write_balancer(folder: Path, settings: Settings, name: str) -> None:
    """Files of one balancer, below `folder`/`name`."""
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    text = render(
        "haproxy/balancer.cfg.j2",
        name=name,
        folder=str(own),
        address=settings.host(name),
        servers=[{"name": node, "host": settings.host(node)} for node in settings.node_names],
        app=settings.app,
        level=settings.level,
        inter=settings.inter,
        cookie=settings.cookie,
        state_file=settings.state_file,
        lines=settings.backend_lines,
    )
    (own / "haproxy.cfg").write_text(text)
    if settings.state_file:
        # The format's version and no server: a state file of an earlier run would bring its drains back.
        (own / "server-state").write_text("1\n")


def balancer(folder: Path, settings: Settings, name: str) -> Service:
    """HAProxy, with a master and its socket where asked."""
    own = folder / name
    conf, pidfile = own / "haproxy.cfg", own / "haproxy.pid"
    argv = [find("haproxy", settings.haproxy), "-D", "-f", str(conf), "-p", str(pidfile)]
    if settings.master_worker:
        argv += ["-W", "-S", f"{own}/master.sock,mode,600"]
    return Service(name, tuple(argv), pidfile, conf, own / "haproxy.log")


def write_node(folder: Path, settings: Settings, name: str) -> None:
    """Files of one node, below `folder`/nodes/`name`: Capistrano's layout in srv/, and its servers' own."""
    own = folder / "nodes" / name
    root, host = own / "srv", settings.host(name)
    for path in (root / "releases" / FIRST, root / "shared", own / "tmp"):
        path.mkdir(parents=True, exist_ok=True)
    (root / "shared" / "drain").unlink(missing_ok=True)
    unpack(folder / "releases" / f"{FIRST}.tar.gz", root / "releases" / FIRST)
    (root / "current").unlink(missing_ok=True)
    (root / "current").symlink_to(f"releases/{FIRST}")
    apps.write(folder, settings, name)
    conf = render(
        "nginx/node.conf.j2",
        name=name,
        folder=str(own),
        host=host,
        app=settings.app,
        generation=upstream.variable(settings.app),
        root=os.geteuid() == 0,
        strategy=settings.strategy,
        pair=_pair(own, settings, name),
        params=settings.server_params,
        lines=settings.location_lines,
        keepalive_min=settings.keepalive_min,
    )
    (own / "nginx.conf").write_text(conf)
    (own / "http-check.conf").write_text(_http_check(f"{root}/shared/drain", settings.app))
    _point_at_first(folder, settings, name)


def _pair(own: Path, settings: Settings, name: str) -> list[str]:
    """backup: nginx's two servers, the live one first."""
    if settings.backup_by == "socket":
        return [f"unix:{own}/run/{unit}.sock" for unit in apps.pair(settings)]
    return [f"{settings.host(name)}:{unit}" for unit in apps.pair(settings)]


def _point_at_first(folder: Path, settings: Settings, name: str) -> None:
    """Where something says which of the app's processes serves, it is the first release's one."""
    if settings.strategy == "socket-flip":
        (settings.run(folder, name) / "current.sock").symlink_to(f"{FIRST}.sock")
    elif settings.strategy == "port-flip":
        host = settings.host(name)
        servers = [
            upstream.Server(f"{host}:{apps.LIVE}", "live"),
            upstream.Server(f"{host}:{apps.OTHER}", "down"),
        ]
        text = upstream.render(settings.app, servers, f"{FIRST}:{apps.LIVE}")
        (folder / "nodes" / name / "upstream.conf").write_text(text)


def _http_check(flag: str, app: str) -> str:
    """The snippet that every user includes, changed where it says that it is to be changed."""
    snippet = (templates() / "nginx" / "http-check.conf").read_text()
    return snippet.replace("/srv/shop/shared/drain", flag).replace("http://shop/", f"http://{app}/")


def nginx(folder: Path, settings: Settings, name: str) -> Service:
    own = folder / "nodes" / name
    command = nginx_command(settings, str(own))
    return Service(f"{name} nginx", command, own / "nginx.pid", own / "nginx.conf", own / "nginx.log")


def nginx_command(settings: Settings, own: str) -> tuple[str, ...]:
    """The nginx of the node whose folder is `own`: starts it; with -t tests, with -s reload signals."""
    program = find("nginx", settings.nginx)
    return (program, "-p", own, "-e", f"{own}/nginx.log", "-c", f"{own}/nginx.conf")


def node(folder: Path, settings: Settings, name: str) -> tuple[Service, ...]:
    """The app's process that serves, nginx, further processes of the app that are to run, perhaps an sshd."""
    own = folder / "nodes" / name
    first, *more = apps.wanted(folder, settings, name)
    services = [first, nginx(folder, settings, name), *more]
    if settings.ssh:
        sshd = (find_on_path("sshd", "openssh-server"), "-f", f"{own}/sshd_config", "-E", f"{own}/sshd.log")
        services.append(
            Service(f"{name} sshd", sshd, own / "sshd.pid", own / "sshd_config", own / "sshd.log")
        )
    return tuple(services)
