"""
A node's app: gunicorn's configuration, and which of its processes are to run.

    http-check, reload   one process, restarted or reloaded in place      gunicorn.pid
    port-flip            one of two ports, by what upstream.conf says     run/8000.pid, run/8001.pid
    backup               two sockets, the live one and its backup         run/live.pid, run/live.sock, …
    backup, by port      both ports, the live one and its backup          run/8000.pid, run/8001.pid
    socket-flip          one per release, by what run/current.sock says   run/v1.pid, run/v1.sock
"""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

from drainctl.lab.processes import Service
from drainctl.lab.settings import Settings

FIRST = "v1"  # the release that runs when the lab is up
LIVE, OTHER = 8000, 8001  # the ports of port-flip at first; of backup, always
PAIR = ("live", "backup")  # the sockets of backup
NAMED = re.compile(r'default "(?P<release>[^"]+):(?P<port>\d+)"')  # the generation in upstream.conf

GUNICORN = """\
# gunicorn of {node}. Started by ./ctl, which is the node's service command.
wsgi_app = "app:application"
{place}worker_class = "gthread"
workers = 2
threads = 16
keepalive = 0  # see nginx.conf: one request per connection, so no idle one is closed under a request
graceful_timeout = 30  # seconds for requests in flight after TERM
timeout = 60
backlog = 512
daemon = True
errorlog = "{folder}/gunicorn.log"
control_socket_disable = True  # its default path is one per user: nodes would fight over it
{tmp}"""

ONE = """\
{start}bind = "{host}:8000"
pidfile = "{folder}/gunicorn.pid"
proc_name = "{folder}/gunicorn.conf.py"  # named in the command line, also where setproctitle rewrites it
"""

MANY = """\
# bind, chdir, pidfile and proc_name are ./ctl's arguments: there is a process per {each}.
"""

REFUSES = """\

# After TERM gunicorn's workers finish what they have begun, and the socket goes on listening until the last
# of them is done: whoever connects meanwhile waits for that, and is then reset. nginx takes a GET to the
# backup then, but no POST, since it was sent. Closed at once, the port refuses, and nothing is sent at all;
# lost is only who connects between the last accept and the close.
import signal


def post_worker_init(worker):
    signal.signal(signal.SIGTERM, lambda *_: worker.method_queue.defer(leave, worker))


def leave(worker):
    worker.set_accept_enabled(False)
    for listener in worker.sockets:
        for _ in range(64):  # those who are connected already; it returns at once where there is none
            worker.accept(listener)
        listener.close()
    worker.handle_exit(signal.SIGTERM, None)
"""

START = {
    "chdir": 'chdir = "{folder}/srv/current"  # the link, not what it points at: what is current then\n',
    "resolved": "# No chdir: it runs what `current` was when ctl started it, also after a reload.\n",
    "preload": 'chdir = "{folder}/srv/current"\npreload_app = True  # so HUP loads nothing anew\n',
}


def write(folder: Path, settings: Settings, name: str) -> None:
    """gunicorn.conf.py, ctl and node.env of a node, and an empty run/."""
    own, host = folder / "nodes" / name, settings.host(name)
    run = settings.run(folder, name)
    run.mkdir(exist_ok=True)
    for stale in run.iterdir():
        stale.unlink()
    tmp = 'worker_tmp_dir = "/dev/shm"\n' if os.access("/dev/shm", os.W_OK) else ""  # noqa: S108  heartbeats only
    place = _place(settings).format(
        start=START[settings.gunicorn_start].format(folder=own), host=host, folder=own, each=_units(settings)
    )
    refuses = (
        _units(settings) == "port" and settings.strategy == "backup" and settings.gunicorn_stop == "refuses"
    )
    text = GUNICORN.format(node=name, folder=own, place=place, tmp=tmp) + (REFUSES if refuses else "")
    (own / "gunicorn.conf.py").write_text(text)
    (own / "node.env").write_text(
        f"NODE={name}\nHOST={host}\nSTRATEGY={settings.strategy}\nUNITS={_units(settings)}\n"
        f"START={settings.gunicorn_start}\nPYTHON={sys.executable}\nDRAINCTL_LAB={folder}\n"
    )
    ctl = own / "ctl"
    ctl.write_text(Path(__file__).with_name("ctl.sh").read_text())
    ctl.chmod(0o755)


def wanted(folder: Path, settings: Settings, name: str) -> tuple[Service, ...]:
    """The processes that are to run, the one that serves first."""
    units: tuple[str, ...]
    match settings.strategy:
        case "port-flip":
            units = (str(live_port(folder, name)),)
        case "backup":
            units = pair(settings)
        case "socket-flip":
            units = (live_release(folder, settings, name),)
        case _:
            units = ("",)
    return tuple(_service(folder, settings, name, unit) for unit in units)


def known(folder: Path, settings: Settings, name: str) -> tuple[Service, ...]:
    """The processes that have a pid file: during a flip, more than are to run in the end."""
    found = sorted(settings.run(folder, name).glob("*.pid"))
    return tuple(_service(folder, settings, name, path.stem) for path in found)


def live_port(folder: Path, name: str) -> int:
    """The port that upstream.conf says serves; the first one where there is no such file."""
    path = folder / "nodes" / name / "upstream.conf"
    said = NAMED.search(path.read_text()) if path.exists() else None
    return int(said["port"]) if said else LIVE


def live_release(folder: Path, settings: Settings, name: str) -> str:
    """The release whose socket run/current.sock is; the first one where there is no such link."""
    link = settings.run(folder, name) / "current.sock"
    return link.readlink().stem if link.is_symlink() else FIRST


def pair(settings: Settings) -> tuple[str, str]:
    """backup: the names of its two processes, the live one first."""
    return PAIR if settings.backup_by == "socket" else (str(LIVE), str(OTHER))


def _service(folder: Path, settings: Settings, name: str, unit: str) -> Service:
    own = folder / "nodes" / name
    pidfile = settings.run(folder, name) / f"{unit}.pid" if unit else own / "gunicorn.pid"
    return Service(
        f"{name} gunicorn {unit}".rstrip(),
        (f"{own}/ctl", "start", *([unit] if unit else [])),
        pidfile,
        pidfile if unit else own / "gunicorn.conf.py",
        own / "gunicorn.log",
        signal.SIGQUIT,  # at once: the lab goes down, nobody is served
    )


def _units(settings: Settings) -> str:
    """What each of a node's processes is named by."""
    units = {"port-flip": "port", "backup": settings.backup_by, "socket-flip": "release"}
    return units.get(settings.strategy, "one")


def _place(settings: Settings) -> str:
    return ONE if _units(settings) == "one" else MANY
