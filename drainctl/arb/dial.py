"""
Connecting within one limit, however many addresses a name has; and sockets that notice a machine that
vanished.

All addresses share the limit: the next one is tried beside those still open after a quarter of a second at
most, and the first that connects is taken (RFC 8305, section 5). While connecting it is asked whether to go
on: another process may have found the machine down meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence

from drainctl.arb.policy import Fault

Address = tuple[socket.AddressFamily, tuple[object, ...]]
Option = tuple[int, int, int]

STAGGER_S = 0.25  # RFC 8305, section 8: Connection Attempt Delay
ASK_S = 0.05

# What connect(2) says of this machine rather than of that one.
_OURS = {
    errno.EADDRNOTAVAIL,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOBUFS,
    errno.ENOMEM,
    errno.EACCES,
    errno.EPERM,
}


class DialFailed(OSError):
    """No connection. Attributes: fault: what went wrong."""

    def __init__(self, fault: Fault, words: str) -> None:
        super().__init__(words)
        self.fault = fault


def vanishing(dead_s: float) -> list[Option]:
    """
    Socket options by which a machine that acknowledges nothing for about dead_s seconds is given up.

    TCP_USER_TIMEOUT bounds what was sent and not acknowledged, keepalive finds out while nothing is sent;
    Linux needs both (tcp(7)). A machine that is stopped but has power acknowledges: for that there are
    probes.
    """
    seconds = max(1, round(dead_s / 2))
    return [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(dead_s * 1000)),
    ]


def never() -> bool:
    """Go on."""
    return False


def dial(
    host: str,
    port: int,
    limit_s: float,
    *,
    options: Sequence[Option] = (),
    give_up: Callable[[], bool] = never,
) -> socket.socket:
    """
    Connect, looking the name up included.

    Args:
        host: a name or an address.
        port: TCP.
        limit_s: most that all of it may take, seconds.
        options: (level, name, value) for each socket.
        give_up: asked about every 50 ms; true ends it.
    Returns: a connected socket, blocking.
    Raises: DialFailed.
    """
    deadline = time.monotonic() + limit_s
    addresses = look_up(host, port, limit_s)
    stagger_s = min(STAGGER_S, limit_s / (len(addresses) + 1))
    race = _Race(options)
    try:
        starts = [deadline - limit_s + stagger_s * at for at in range(len(addresses))]
        while True:
            now = time.monotonic()
            while addresses[race.begun :] and (now >= starts[race.begun] or not race.open):
                race.begin(addresses[race.begun])
            if race.won is not None:
                return race.won
            if not race.open and race.begun == len(addresses):
                raise DialFailed(race.fault, f"{host}:{port} {race.fault.words}")
            if now >= deadline:
                raise DialFailed(Fault.CONNECT_LIMIT, f"{host}:{port} did not connect within {limit_s:g} s")
            if give_up():
                raise DialFailed(Fault.LEARNED, f"{host}:{port} {Fault.LEARNED.words}")
            following = starts[race.begun] if race.begun < len(addresses) else deadline
            race.wait(min(ASK_S, following - now, deadline - now))
    finally:
        race.close()


class _Race:
    """Connection attempts side by side; the first that connects has won."""

    def __init__(self, options: Sequence[Option]) -> None:
        self.won: socket.socket | None = None
        self.open: dict[int, socket.socket] = {}
        self.begun = 0
        self.fault = Fault.UNREACHABLE
        self._options = options
        self._poll = select.poll()

    def begin(self, address: Address) -> None:
        self.begun += 1
        family, where = address
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        except OSError as error:
            self._failed(error.errno or errno.EMFILE)
            return
        self.open[sock.fileno()] = sock
        for option in self._options:
            with contextlib.suppress(OSError):  # an option that a kernel lacks is no reason not to connect
                sock.setsockopt(*option)
        code = sock.connect_ex(where)
        if code == errno.EINPROGRESS:
            self._poll.register(sock, select.POLLOUT)
        else:
            self._ended(sock.fileno(), code)

    def wait(self, most_s: float) -> None:
        for fileno, _ in self._poll.poll(max(0.0, most_s) * 1000):
            self._poll.unregister(fileno)
            self._ended(fileno, self.open[fileno].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _ended(self, fileno: int, code: int) -> None:
        sock = self.open.pop(fileno)
        if code == 0 and self.won is None:
            sock.setblocking(True)
            self.won = sock
            return
        sock.close()
        if code:
            self._failed(code)

    def _failed(self, code: int) -> None:
        if code == errno.ECONNREFUSED:
            self.fault = Fault.REFUSED
        elif code in _OURS:
            self.fault = Fault.LOCAL
        else:
            self.fault = Fault.UNREACHABLE

    def close(self) -> None:
        for sock in self.open.values():
            sock.close()
        self.open.clear()


def look_up(host: str, port: int, limit_s: float) -> list[Address]:
    """
    The addresses of a name, in the resolver's order; at once for an address.

    A resolver may hang for half a minute and cannot be interrupted: it is left to a thread that nobody waits
    for past limit_s seconds.
    Raises: DialFailed.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, port))]
    found: list[Address] = []
    trouble = f"no answer of the resolver within {limit_s:g} s"

    def ask() -> None:
        nonlocal trouble
        try:
            rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            trouble = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.args[-1])
        else:
            found.extend((row[0], row[4]) for row in rows)

    asking = threading.Thread(target=ask, name="drainctl-look-up", daemon=True)
    asking.start()
    asking.join(limit_s)
    if not found:
        raise DialFailed(Fault.NO_NAME, f"{host}: {trouble}")
    return list(found)
