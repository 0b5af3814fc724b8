"""drainctl.yml of a lab: the contract as a user would write it, with the lab's paths."""

from __future__ import annotations

import getpass
import re
from pathlib import Path

from drainctl.lab.parts import nginx_command
from drainctl.lab.settings import Settings

PORTS = """\
  start: "{own}/ctl start {{port}}"
  stop: "{own}/ctl stop {{port}}"
  ports: [8000, 8001]
  address: "{{host}}"
"""
SOCKETS = """\
  start: "{own}/ctl start {{socket}}"
  stop: "{own}/ctl stop {{socket}}"
  sockets: ["{own}/run/live.sock", "{own}/run/backup.sock"]
"""
SERVICE = {
    "http-check": "",
    "socket-flip": '  start: "{own}/ctl start {{release}}"\n  stop: "{own}/ctl stop {{release}}"\n',
    "port-flip": PORTS,
    "backup": PORTS,
    "reload": '  reload: {{gunicorn: "{own}/gunicorn.pid"}}\n',
}
HTTP_CHECK = """\
  check: "http://{{host}}:8080/http-check"
  flag: "{own}/srv/shared/drain"
"""
HEALTH = """\
  ready: "http://{host}:8080/healthz"
  version: "http://{host}:8080/version"
"""
NGINX = """\
nginx:
  upstream: {app}
  file: "{own}/upstream.conf"
  test: "{command} -t"
  reload: "{command} -s reload"
  pid: "{own}/nginx.pid"
  generation: "http://{{host}}:8080/-/generation"
  clients: {clients}
"""
SOCKET = """\
socket:
  current: "{own}/run/current.sock"
  each: "{own}/run/{{release}}.sock"
"""


def drainctl_yml(folder: Path, settings: Settings) -> str:
    """The text of `folder`/drainctl.yml."""
    own = f"{folder}/nodes/{{node}}"
    nodes = "".join(f"  {name}: {{host: {settings.host(name)}}}\n" for name in settings.node_names)
    drained = "http-check" in settings.strategies
    sticky = "move" if settings.cookie else "wait"
    return "".join(
        [
            f"# Written by `drainctl lab up`.\napp: {settings.app}\n",
            _balancers(folder, settings),
            f"nodes:\n{nodes}",
            f"connect: {_connect(folder, settings)}\n",
            f'release: {{root: "{own}/srv", keep: 5}}\n',
            f"strategy: [{', '.join(settings.strategies)}]\n" if settings.in_place else "",
            "service:\n",
            f'  restart: "{own}/ctl restart"\n' if drained else "",
            _service(settings).format(own=own),
            "health:\n",
            HTTP_CHECK.format(own=own) if drained else "",
            HEALTH,
            _nginx(settings, own),
            SOCKET.format(own=own) if settings.strategy == "socket-flip" else "",
            "warm: [{get: /, times: 10}]\n",
            f"checks: {{inter: {settings.inter}, timeout: 4s}}\n" if settings.balancers else "",
            "rollout: {at_once: 1, keep_up: 50%, max_failed: 0, on_failure: roll-back}\n",
            f"drain: {{limit: 30s, then: fallback, sticky: {sticky}}}\n" if drained else "",
            f'watch: {{for: 1s, errors: 0}}\nstore: "sqlite:///{folder}/{settings.app}.db"\n',
        ]
    )


def _balancers(folder: Path, settings: Settings) -> str:
    if not settings.balancers:
        return ""
    each = "".join(f"  {name}: {_balancer(folder, settings, name)}\n" for name in settings.balancer_names)
    return f"balancers:\n{each}backends: [{settings.app}]\n"


def _service(settings: Settings) -> str:
    """Which process is meant: a port, a socket or a release."""
    by_socket = settings.strategy == "backup" and settings.backup_by == "socket"
    return SOCKETS if by_socket else SERVICE[settings.strategy]


def _nginx(settings: Settings, own: str) -> str:
    """What drainctl is to know of nginx: an upstream that it rewrites, or one that it only counts on."""
    if settings.strategy == "backup":
        waits = fail_timeout(settings.server_params)
        loses = ", clients: lost" if settings.backup_by == "port" or waits != "0s" else ""
        return f"nginx: {{upstream: {settings.app}, fail_timeout: {waits}{loses}}}\n"
    if settings.strategy != "port-flip":
        return ""
    command = " ".join(nginx_command(settings, own))
    clients = "nudge" if settings.balancers else "kept" if settings.keepalive_min else "lost"
    return NGINX.format(own=own, app=settings.app, command=command, clients=clients)


def fail_timeout(params: str) -> str:
    """How long nginx leaves out a server that failed: `fail_timeout` of its line, or nginx's default."""
    if "max_fails=0" in params:
        return "0s"
    said = re.search(r"fail_timeout=(\S+)", params)
    return said[1] if said else "10s"


def _balancer(folder: Path, settings: Settings, name: str) -> str:
    if settings.stats_only:
        return f'{{stats: "http://{settings.host(name)}:8404/stats"}}'
    master = f', master: "unix:{folder}/{name}/master.sock"' if settings.master_worker else ""
    return f'{{runtime: "unix:{folder}/{name}/runtime.sock"{master}}}'


def _connect(folder: Path, settings: Settings) -> str:
    if not settings.ssh:
        return "{via: local}"
    key, known = f"{folder}/ssh/id_ed25519", f"{folder}/ssh/known_hosts"
    return f'{{via: ssh, user: {getpass.getuser()}, port: 2222, key: "{key}", known_hosts: "{known}"}}'
