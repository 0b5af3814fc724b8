"""
One HAProxy through its Runtime API: a look is one exchange, a change is one command.

The look's one line asks which process answers (`show info`) and for the rows of the wanted servers.
Source: HAProxy management.txt, "9.3. Unix Socket commands".
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Sequence
from typing import Literal

from drainctl.balancer import parse
from drainctl.balancer.door import Server
from drainctl.balancer.exchange import Exchange
from drainctl.balancer.master import Master
from drainctl.balancer.rows import Rows
from drainctl.errors import BalancerError, BalancerRefused, UnexpectedReply
from drainctl.model import BalancerLook, Process

_NAME = re.compile(r"[A-Za-z0-9_.:-]+")  # what HAProxy permits; keeps `;` and line ends out of commands


class RuntimeBalancer:
    """
    A BalancerDoor over the Runtime API.

    Args:
        name: the balancer's name.
        worker: the way to the `stats socket`.
        master: the master process, for the workers that a reload leaves behind.
    """

    def __init__(self, name: str, worker: Exchange, master: Master | None = None) -> None:
        self._name = name
        self._worker = worker
        self._master = master
        self._rows = Rows()
        self._pid: int | None = None
        self._can_change = False

    @property
    def name(self) -> str:
        return self._name

    def look(self, servers: Collection[Server] | None = None) -> BalancerLook:
        """
        Read what HAProxy shows now; see BalancerDoor.

        Old workers are read after the current one: a reload in between then shows a process twice, where the
        other order would miss the one that is just being left behind.
        """
        began = time.monotonic()
        wanted = None if servers is None else frozenset(servers)
        try:
            process, shown = self._current(wanted)
            old_workers = self._master.old_workers(wanted) if self._master else ()
        except UnexpectedReply as error:
            raise UnexpectedReply(f"{self._name}: {error}", hint=error.hint) from None
        return BalancerLook(
            balancer=self._name,
            at_s=began,
            process=process,
            rows=shown.servers,
            backends=shown.backends,
            frontends=shown.frontends,
            old_workers=old_workers,
            can_change=self._can_change,
        )

    def _current(self, wanted: frozenset[Server] | None) -> tuple[Process, parse.Shown]:
        info, shown = self._rows.read(self._ask, wanted, ["show info"])
        process = parse.show_info(info[0])
        if process.stopping and self._worker.kept:
            self._worker.close()  # a reload left this connection at the old process
            info, shown = self._rows.read(self._ask, wanted, ["show info"])
            process = parse.show_info(info[0])
        if process.pid != self._pid:
            self._can_change = parse.cli_level(self._ask(["show cli level"])[0]) == "admin"
            self._pid = process.pid
        return process, shown

    def _ask(self, commands: Sequence[str]) -> list[str]:
        return parse.checked(self._name, commands, self._worker.ask(commands))

    def set_health(self, backend: str, server: str, health: Literal["up", "stopping", "down"]) -> None:
        """`set server B/S health H`; see BalancerDoor."""
        self._change("set server {} health " + health, backend, server)

    def set_state(self, backend: str, server: str, state: Literal["ready", "drain", "maint"]) -> None:
        """`set server B/S state S`; see BalancerDoor."""
        self._change("set server {} state " + state, backend, server)

    def shutdown_sessions(self, backend: str, server: str) -> None:
        """`shutdown sessions server B/S`, and each session of old workers; see BalancerDoor."""
        self._change("shutdown sessions server {}", backend, server)
        if self._master is not None:
            self._master.shutdown_sessions(backend, server)

    def _change(self, command: str, backend: str, server: str) -> None:
        """Done when HAProxy answers nothing; whatever it says instead is a refusal."""
        line = command.format(f"{backend}/{server}")
        if not (_NAME.fullmatch(backend) and _NAME.fullmatch(server)):
            raise BalancerRefused(f"{self._name}: `{line}` was not sent: that is no name HAProxy permits")
        (said,) = self._worker.ask([line])
        if said.startswith("Proxy is disabled") and self._worker.kept:
            self._worker.close()  # a reload left this connection at the old process
            (said,) = self._worker.ask([line])
        if said.strip():
            error = parse.refused(self._name, line, said)
            if said.startswith("No such server"):
                error.hint = self._known_servers(backend) or error.hint
            raise error

    def _known_servers(self, backend: str) -> str | None:
        """For a hint only, so a failure here must not replace the refusal that it explains."""
        try:
            rows = parse.show_stat(self._ask([f"show stat {backend} 4 -1"])[0]).servers
        except BalancerError:
            return None
        return f"backend `{backend}` has: {', '.join(row.server for row in rows)}" if rows else None

    def close(self) -> None:
        """Let go of kept connections; see BalancerDoor."""
        self._worker.close()
        if self._master is not None:
            self._master.close()
