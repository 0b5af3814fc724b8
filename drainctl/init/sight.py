"""
One balancer as init comes to know it: its configuration, and what its socket said.

Pure: `drainctl.init.reach` makes these, `drainctl.init.draft` reads them.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from drainctl.haproxy_cfg.model import HaproxyCfg, Proxy, Server
from drainctl.model import Balancer, BalancerLook, ServerRow, Word

ANSWER = 0  # the line of what no file says
UNSPECIFIED = ("0.0.0.0", "::")  # noqa: S104  # no bind: what a slot that nobody has taken shows


@dataclass(frozen=True, slots=True)
class Sight:
    """
    cfg: what its haproxy.cfg says; a line of 0 in it is what somebody answered. balancer: how it is reached.
    why: the comment on that. set_this: what is to be set about it, "" where nothing is. look: everything
    that it shows, None where it did not answer; then error says why.
    """

    cfg: HaproxyCfg
    balancer: Balancer
    why: str = ""
    set_this: str = ""
    look: BalancerLook | None = None
    error: str = ""

    @property
    def name(self) -> str:
        return self.balancer.name

    @property
    def answered(self) -> bool:
        """Whether somebody's answers stand for a haproxy.cfg."""
        return any(socket.line == ANSWER for socket in self.cfg.global_.sockets)

    def where(self, line: int) -> str:
        """`lb1/haproxy.cfg:41`, short enough for a comment."""
        folder, _, file = self.cfg.name.rpartition("/")
        short = f"{folder.rpartition('/')[2]}/{file}" if folder else file
        return f"{short}:{line}" if line else self.cfg.name

    def row(self, proxy: Proxy, server: Server) -> ServerRow | None:
        return self.look.row(proxy.name, server.name) if self.look else None

    def host(self, proxy: Proxy, server: Server, *, resolved: bool = False) -> str:
        """
        The machine that a server is on; "" where nobody says. A template's slot, a variable that is not set
        here: only HAProxy knows.

        resolved: the address rather than the name, as `show stat` writes it.
        """
        written = server.address.host if server.address.kind == "ip" else ""
        known = written if written and "$" not in written and server.template is None else ""
        row = self.row(proxy, server)
        shown = row.address.rpartition(":")[0].strip("[]") if row else ""
        shown = shown if is_address(shown) and shown not in UNSPECIFIED else ""
        if resolved and shown:
            return shown
        return canonical(known or shown)


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """A server of the chosen backends, at one balancer; a key by identity."""

    sight: Sight
    proxy: Proxy
    server: Server

    @property
    def host(self) -> str:
        return self.sight.host(self.proxy, self.server)

    @property
    def address(self) -> str:
        """The host as `show stat` has it, where it answered."""
        return self.sight.host(self.proxy, self.server, resolved=True)

    @property
    def line(self) -> str:
        return self.sight.where(self.server.line)

    @property
    def disabled(self) -> bool:
        """`disabled` in the file, and nobody has enabled it since."""
        row = self.sight.row(self.proxy, self.server)
        return self.server.settings.disabled is not None and (row is None or row.status.word is Word.MAINT)

    @property
    def checked(self) -> bool:
        return self.server.settings.check is not None or self.server.settings.track is not None


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    return is_address(host) and ipaddress.ip_address(host).is_loopback


def canonical(host: str) -> str:
    """An address as HAProxy prints it; a name as it is."""
    return str(ipaddress.ip_address(host)) if is_address(host) else host


def in_url(host: str) -> str:
    """A host as a URL has it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
