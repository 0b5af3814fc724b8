"""
The lab: HAProxy balancers in front of nginx + gunicorn nodes, all on loopback, by the user who asks.

    DIR/lab.json              settings; every process that `up` left running, with its start time
    DIR/drainctl.yml          the cluster as drainctl sees it
    DIR/releases/v1.tar.gz …  releases to deploy
    DIR/lb1/                  haproxy.cfg, runtime.sock, user.sock, master.sock, haproxy.log
    DIR/nodes/web1/           nginx.conf, gunicorn.conf.py, ctl, logs; srv/{releases,shared,current};
                              upstream.conf (port-flip), run/ (pid files and sockets of a flip's processes)
    DIR/ssh/                  client key and known_hosts, with ssh=True
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from drainctl.errors import PreflightError
from drainctl.lab import apps, parts, ready
from drainctl.lab.describe import drainctl_yml
from drainctl.lab.keys import PORT as SSH_PORT
from drainctl.lab.keys import write_keys
from drainctl.lab.processes import Process, Service, end, family, marked
from drainctl.lab.releases import make_release
from drainctl.lab.settings import Settings

RELEASES = ("v1", "v2", "v3")


class Lab:
    """
    One lab in `folder`. Keyword arguments are those of `Settings`.

    `up` raises PreflightError (already up, a port taken, a part that does not start: then all that was
    started is ended again) or ConfigError; `down` may be called at any time, also after an `up` that was
    killed half-way.
    """

    def __init__(self, folder: Path | str, *, limit_s: float = 20.0, **settings: Any) -> None:
        self.folder = Path(folder).absolute()
        self.settings = Settings(**settings)
        self.limit_s = limit_s

    @classmethod
    def open(cls, folder: Path | str) -> Lab:
        """The lab that is in `folder`, with its settings. Raises: PreflightError if there is none."""
        path = Path(folder).absolute() / "lab.json"
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            raise PreflightError(f"no lab in {folder}", hint=f"drainctl lab up --dir {folder}") from None
        return cls(folder, **stored["settings"])

    # ------------------------------------------------------------ what there is

    @property
    def config(self) -> Path:
        return self.folder / "drainctl.yml"

    @property
    def urls(self) -> tuple[str, ...]:
        return self.settings.urls

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service, the nodes' first."""
        found = [service for name in self.settings.node_names for service in self.node(name)]
        return tuple(found + [self.balancer(name) for name in self.settings.balancer_names])

    def node(self, name: str) -> tuple[Service, ...]:
        """What is to run on a node: the gunicorn that serves, nginx, perhaps another gunicorn and sshd."""
        return parts.node(self.folder, self.settings, name)

    def apps(self, name: str) -> tuple[Service, ...]:
        """The gunicorns of a node that have a pid file, by name: during a flip there are two."""
        return apps.known(self.folder, self.settings, name)

    def nginx(self, name: str) -> Service:
        return parts.nginx(self.folder, self.settings, name)

    def balancer(self, name: str) -> Service:
        return parts.balancer(self.folder, self.settings, name)

    def socket(self, name: str) -> Path:
        """The runtime socket of a balancer."""
        return self.folder / name / "runtime.sock"

    def root(self, name: str) -> Path:
        """The release root of a node."""
        return self.folder / "nodes" / name / "srv"

    def ctl(self, name: str) -> Path:
        """The service command of a node (see ctl.sh)."""
        return self.folder / "nodes" / name / "ctl"

    def place(self, name: str, unit: str) -> int | Path:
        """backup: where one of its two processes is, its port or its socket."""
        if self.settings.backup_by == "port":
            return int(unit)
        return self.settings.run(self.folder, name) / f"{unit}.sock"

    def live_port(self, name: str) -> int:
        """port-flip: the port that the upstream file says serves."""
        return apps.live_port(self.folder, name)

    def live_release(self, name: str) -> str:
        """socket-flip: the release whose socket serves."""
        return apps.live_release(self.folder, self.settings, name)

    def flag(self, name: str) -> Path:
        return self.root(name) / "shared" / "drain"

    def release(self, release: str, **settings: Any) -> Path:
        """An archive in DIR/releases, written now (see `drainctl.lab.releases.SOUND`)."""
        return make_release(self.folder / "releases", release, **settings)

    @property
    def state(self) -> dict[str, Any]:
        """lab.json as it is, or an empty one."""
        try:
            return dict(json.loads((self.folder / "lab.json").read_text()))
        except FileNotFoundError:
            return {"settings": asdict(self.settings), "processes": {}}

    @property
    def recorded(self) -> dict[str, list[Process]]:
        """The processes that `up` left running, by service."""
        kept = self.state["processes"]
        return {name: [Process(*pair) for pair in pairs] for name, pairs in kept.items()}

    def running(self) -> dict[str, Process | None]:
        """Each service and its master process, if it runs now."""
        return {service.name: service.master() for service in self.services}

    # ------------------------------------------------------------ up and down

    def up(self) -> None:
        """Start everything; returns when every app answers and every server is UP at every balancer."""
        self.settings.check(self.folder)
        self._refuse_if_up()
        self._refuse_taken_ports()
        self._write()
        try:
            _all(self._start_node, self.settings.node_names)
            _all(self._start_balancer, self.settings.balancer_names)
        except BaseException as error:
            self.down()
            if isinstance(error, PreflightError):
                error.left = "all that was started is ended again"
            raise
        self._save({service.name: _members(service) for service in self.services})

    def down(self) -> int:
        """End every process of this lab; files stay. Returns: how many were ended."""
        ended = end(self._processes)
        if (self.folder / "lab.json").exists():
            self._save({})
        return ended

    def _processes(self) -> dict[Process, int]:
        """Every process of this lab that runs, and the signal that ends it without waiting for requests."""
        known = {process for members in self.recorded.values() for process in members if process.alive}
        found = dict.fromkeys(known | marked(self._mark), int(signal.SIGTERM))
        flipping = [service for name in self.settings.node_names for service in self.apps(name)]
        for service in [*self.services, *flipping]:
            master = service.master()
            found |= dict.fromkeys(family(master) if master else (), service.stop)
        return found

    @property
    def _mark(self) -> str:
        return f"DRAINCTL_LAB={self.folder}"

    def _environment(self) -> dict[str, str]:
        """Marked, so that `down` finds it; releases stay as they were unpacked, without byte code."""
        name, _, value = self._mark.partition("=")
        return {**os.environ, name: value, "PYTHONDONTWRITEBYTECODE": "1"}

    def reload(self, name: str) -> None:
        """
        Reload a balancer as an operator does, with its state written before where it reads one. Returns
        when the new worker answers; the old one may still finish what it has. Raises: PreflightError.
        """
        service, path = self.balancer(name), self.socket(name)
        if self.settings.state_file:
            (self.folder / name / "server-state").write_text(ready.ask(path, "show servers state"))
        before = ready.worker(path)
        master = service.master()
        if master is None or not self.settings.master_worker:
            raise service.failed("has no master that could reload it")
        master.send(signal.SIGUSR2)
        ready.wait((service,), lambda: ready.another(path, before), self.limit_s)

    def _refuse_if_up(self) -> None:
        alive = [name for name, master in self.running().items() if master]
        if alive:
            raise PreflightError(
                f"the lab in {self.folder} is already up ({len(alive)} of {len(self.services)} services run)",
                hint=f"drainctl lab down --dir {self.folder}",
            )

    def _refuse_taken_ports(self) -> None:
        """HAProxy shares a taken port silently (SO_REUSEPORT), so ask before it can."""
        wanted = [(name, port) for name in self.settings.balancer_names for port in (8080, 8404)]
        ports = (8080, apps.LIVE, apps.OTHER, SSH_PORT)
        wanted += [(name, port) for name in self.settings.node_names for port in ports]
        for name, port in wanted:
            host = self.settings.host(name)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as error:
                    raise PreflightError(
                        f"{name} cannot have {host}:{port}: {os.strerror(error.errno or 0).lower()}",
                        hint="is another lab up there? end it, or choose another --base",
                    ) from None

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save({})
        for release in RELEASES:
            self.release(release)
        for name in self.settings.node_names:
            parts.write_node(self.folder, self.settings, name)
        for name in self.settings.balancer_names:
            parts.write_balancer(self.folder, self.settings, name)
        if self.settings.ssh:
            write_keys(self.folder, self.settings)
        self.config.write_text(drainctl_yml(self.folder, self.settings))

    def _start_node(self, name: str) -> None:
        services = self.node(name)
        for service in services:
            service.start(self._environment())
        ready.wait(services, lambda: ready.health(self.settings.host(name)), self.limit_s)
        if self.settings.strategy == "backup":  # nobody asks it while the live one is well
            at = self.place(name, apps.pair(self.settings)[1])
            ready.wait(services, lambda: ready.health(self.settings.host(name), at, "/healthz"), self.limit_s)

    def _start_balancer(self, name: str) -> None:
        service, path = self.balancer(name), self.socket(name)
        service.start(self._environment())
        names = self.settings.node_names
        ready.wait((service,), lambda: ready.all_up(path, self.settings.app, names), self.limit_s)

    def _save(self, processes: dict[str, list[tuple[int, int]]]) -> None:
        text = json.dumps({"settings": asdict(self.settings), "processes": processes}, indent=2)
        written = self.folder / "lab.json.new"
        written.write_text(text + "\n")
        written.rename(self.folder / "lab.json")


def _members(service: Service) -> list[tuple[int, int]]:
    master = service.master()
    members = family(master) if master else set()
    return sorted((process.pid, process.started) for process in members)


def _all(start: Callable[[str], None], names: Iterable[str]) -> None:
    """Start each one in a thread of its own; raises the first failure after all have ended."""
    names = tuple(names)
    with ThreadPoolExecutor(max(len(names), 1)) as pool:
        for started in [pool.submit(start, name) for name in names]:
            started.result()
