"""The lab's parts: the files that each one needs, and the services that they start."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from drainctl.lab.processes import Service
from drainctl.lab.programs import find, find_on_path
from drainctl.lab.releases import unpack
from drainctl.lab.settings import Settings
from drainctl.templates import folder as templates
from drainctl.templates import render

FIRST = "v1"  # the release that runs when the lab is up

GUNICORN = """\
# gunicorn of {node}. Started by ./ctl, which is the node's `service.restart`.
wsgi_app = "app:application"
chdir = "{root}/current"  # the link, not what it points at: a restart runs what is current then
bind = "{host}:8000"
worker_class = "gthread"
workers = 2
threads = 16
keepalive = 0  # see nginx.conf: one request per connection, so no idle one is closed under a request
graceful_timeout = 30  # seconds for requests in flight after TERM
timeout = 60
backlog = 512
daemon = True
pidfile = "{folder}/gunicorn.pid"
errorlog = "{folder}/gunicorn.log"
proc_name = "{folder}/gunicorn.conf.py"  # named in the command line, also where setproctitle rewrites it
control_socket_disable = True  # its default path is one per user: nodes would fight over it
{tmp}"""


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
    conf = render(
        "nginx/node.conf.j2",
        name=name,
        folder=str(own),
        host=host,
        app=settings.app,
        root=os.geteuid() == 0,
    )
    (own / "nginx.conf").write_text(conf)
    (own / "http-check.conf").write_text(_http_check(f"{root}/shared/drain", settings.app))
    tmp = 'worker_tmp_dir = "/dev/shm"\n' if os.access("/dev/shm", os.W_OK) else ""  # noqa: S108  heartbeats only
    (own / "gunicorn.conf.py").write_text(
        GUNICORN.format(node=name, root=root, host=host, folder=own, tmp=tmp)
    )
    (own / "node.env").write_text(f"NODE={name}\nPYTHON={sys.executable}\nDRAINCTL_LAB={folder}\n")
    ctl = own / "ctl"
    ctl.write_text(Path(__file__).with_name("ctl.sh").read_text())
    ctl.chmod(0o755)


def _http_check(flag: str, app: str) -> str:
    """The snippet that every user includes, changed where it says that it is to be changed."""
    snippet = (templates() / "nginx" / "http-check.conf").read_text()
    return snippet.replace("/srv/shop/shared/drain", flag).replace("http://shop/", f"http://{app}/")


def node(folder: Path, settings: Settings, name: str) -> tuple[Service, ...]:
    """The node's app, its nginx and, where asked, its sshd."""
    own = folder / "nodes" / name
    nginx = (
        find("nginx", settings.nginx),
        "-p",
        str(own),
        "-e",
        f"{own}/nginx.log",
        "-c",
        f"{own}/nginx.conf",
    )
    services = [
        Service(
            f"{name} gunicorn",
            (f"{own}/ctl", "start"),
            own / "gunicorn.pid",
            own / "gunicorn.conf.py",
            own / "gunicorn.log",
            signal.SIGQUIT,  # at once: the lab goes down, nobody is served
        ),
        Service(f"{name} nginx", nginx, own / "nginx.pid", own / "nginx.conf", own / "nginx.log"),
    ]
    if settings.ssh:
        sshd = (find_on_path("sshd", "openssh-server"), "-f", f"{own}/sshd_config", "-E", f"{own}/sshd.log")
        services.append(
            Service(f"{name} sshd", sshd, own / "sshd.pid", own / "sshd_config", own / "sshd.log")
        )
    return tuple(services)
