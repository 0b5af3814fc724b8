"""
The workers that a reload leaves behind, through the master CLI.

A new worker takes over the `stats socket` at once, and reports no session that an old one still carries;
only the master can be asked about those. Asking it for its list costs 30 µs, so that is done in each look.
Source: HAProxy management.txt, "9.4. Master CLI", "show proc", "@[!]<pid>".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from drainctl.balancer import parse
from drainctl.balancer.door import Server
from drainctl.balancer.exchange import Exchange, hung_up
from drainctl.balancer.rows import Rows
from drainctl.errors import BalancerUnreachable
from drainctl.model import OldWorker

_PAUSE_S = 0.02
T = TypeVar("T")


class Master:
    """
    One HAProxy's master process.

    Args:
        who: its name in messages.
        exchange: the way to its socket (`haproxy -S`).
        patience_s: how long a master that is not there may take to come back from a reload.
    """

    def __init__(self, who: str, exchange: Exchange, *, patience_s: float = 2.0) -> None:
        self._who = who
        self._exchange = exchange
        self._patience_s = patience_s
        self._rows: dict[int, Rows] = {}

    def old_workers(self, wanted: frozenset[Server] | None) -> tuple[OldWorker, ...]:
        """Every old worker with its rows of the wanted servers. Raises: as BalancerDoor does."""
        return self._patiently(lambda: self._read(wanted))

    def shutdown_sessions(self, backend: str, server: str) -> None:
        """
        Cut what old workers still carry to a server. An old worker refuses `shutdown sessions server` ("Proxy
        is disabled."), so its sessions are ended one by one. Raises: as BalancerDoor does.
        """
        self._patiently(lambda: self._cut(backend, server))

    def _patiently(self, do: Callable[[], T]) -> T:
        """
        Two things look like a broken master and pass: while it reloads it listens to nobody (20 to 100 ms,
        more with big files), and a worker may end between the list and our question to it.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return do()
            except BalancerUnreachable as error:
                if not hung_up(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE_S)

    def _read(self, wanted: frozenset[Server] | None) -> tuple[OldWorker, ...]:
        workers = parse.show_proc(self._ask(["show proc"])[0])
        self._rows = {worker.pid: self._rows.get(worker.pid, Rows()) for worker in workers}
        return tuple(self._old_worker(worker, wanted) for worker in workers)

    def _old_worker(self, worker: parse.OldProcess, wanted: frozenset[Server] | None) -> OldWorker:
        def ask(commands: Sequence[str]) -> list[str]:
            return self._ask([f"@!{worker.pid} {command}" for command in commands])

        _, shown = self._rows[worker.pid].read(ask, wanted)
        return OldWorker(worker.pid, worker.uptime, shown.servers)

    def _cut(self, backend: str, server: str) -> None:
        for worker in parse.show_proc(self._ask(["show proc"])[0]):
            shown = self._ask([f"@!{worker.pid} show sess"])[0]
            for session in parse.sessions(shown, backend, server):
                self._ask([f"@!{worker.pid} shutdown session {session}"])

    def _ask(self, commands: Sequence[str]) -> list[str]:
        return parse.checked(self._who, commands, self._exchange.ask(commands))

    def close(self) -> None:
        """Let go of a kept connection."""
        self._exchange.close()
