"""
One question to a HAProxy socket and its answer, over a unix socket or TCP, within a limit in all.

A unix socket is connected anew for each question: that costs 40 µs and leaves nothing to go stale. TCP is
kept open in `prompt` mode, since a connection through a network costs a round trip; HAProxy closes it when
it idles past `stats timeout` (10 s by default), so a kept connection that was closed is opened once again.
Source: HAProxy management.txt, "9.3. Unix Socket commands" and "9.4. Master CLI".
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Sequence
from typing import Protocol

from drainctl.balancer import parse
from drainctl.errors import BalancerUnreachable

_CHUNK = 1 << 16
_PROMPT = b"\n> "


# What the kernel says on the way to a socket: what to call it, and what helps.
_FAULTS = {
    errno.EACCES: (
        "permission denied",
        "join the socket's group (`haproxy` on Debian), or set `mode 660 group …` on its `stats socket` line",
    ),
    errno.ENOENT: (
        "no such socket",
        "start HAProxy with `stats socket {where} level admin` in its `global` section",
    ),
    errno.ECONNREFUSED: (
        "connection refused",
        "nobody listens there: HAProxy is not running, or its `stats socket` line names another place",
    ),
    errno.EAGAIN: ("its queue of connections is full", "HAProxy is stopped or overloaded"),
    errno.ECONNRESET: ("connection reset", "HAProxy may be reloading; try again"),
    errno.EPIPE: ("connection reset", "HAProxy may be reloading; try again"),
}


class Exchange(Protocol):
    """A way to one socket. Used by one thread at a time."""

    @property
    def kept(self) -> bool:
        """A connection outlives an answer, so that it may lead to a process that a reload has replaced."""
        ...

    def ask(self, commands: Sequence[str]) -> list[str]:
        """
        Send the commands joined by `;` and return one answer for each, without the blank line that ends it.

        A command that may answer nothing must be sent alone.
        Raises: BalancerUnreachable, and nothing else.
        """
        ...

    def close(self) -> None:
        """Let go of a kept connection; the next question opens a new one."""
        ...


class UnixExchange:
    """
    A unix socket of a worker, or of the master.

    Args:
        who: the balancer's name, for messages.
        path: the socket's path.
        half_close: end our side after the question: the master CLI hangs up only then.
        timeout_s: from connecting to the answer's last byte.
    """

    kept = False

    def __init__(self, who: str, path: str, *, half_close: bool = False, timeout_s: float = 2.0) -> None:
        self._who = who
        self._path = path
        self._half_close = half_close
        self._timeout_s = timeout_s

    def ask(self, commands: Sequence[str]) -> list[str]:
        deadline = time.monotonic() + self._timeout_s
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(self._timeout_s)
                line.connect(self._path)
                line.sendall(f"{';'.join(commands)}\n".encode())
                if self._half_close:
                    line.shutdown(socket.SHUT_WR)
                text = _until_closed(line, deadline)
            return parse.answers(text, len(commands))
        except (OSError, EOFError) as error:
            raise unreachable(self._who, self._path, error, self._timeout_s) from error

    def close(self) -> None:
        """Nothing is kept."""


class TcpExchange:
    """A `stats socket ipv4@host:port`. It asks for no password, so bind it where only we come."""

    kept = True

    def __init__(self, who: str, host: str, port: int, *, timeout_s: float = 2.0) -> None:
        self._who = who
        self._where = (host, port)
        self._timeout_s = timeout_s
        self._line: socket.socket | None = None

    def ask(self, commands: Sequence[str]) -> list[str]:
        deadline = time.monotonic() + self._timeout_s
        question = f"{';'.join(commands)}\n".encode()
        try:
            if self._line is not None:
                found = self._again(self._line, question, len(commands), deadline)
                if found is not None:
                    return found
            return self._on_new_line(question, len(commands), deadline)
        except (OSError, EOFError) as error:
            self.close()
            host, port = self._where
            raise unreachable(self._who, f"{host}:{port}", error, self._timeout_s) from error

    def _again(self, line: socket.socket, question: bytes, count: int, deadline: float) -> list[str] | None:
        """Ask on the kept connection; None when it turns out to have been closed while it idled."""
        readable, _, _ = select.select([line], [], [], 0)
        if not readable:  # anything to read before we asked is its end
            try:
                line.settimeout(_left(deadline))
                line.sendall(question)
                return _prompted(line, count, deadline)
            except (ConnectionError, ClosedUnasked):
                pass
        self.close()
        return None

    def _on_new_line(self, question: bytes, count: int, deadline: float) -> list[str]:
        self._line = socket.create_connection(self._where, timeout=_left(deadline))
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line.sendall(b"prompt\n")
        _prompted(self._line, 1, deadline)
        self._line.sendall(question)
        return _prompted(self._line, count, deadline)

    def close(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()


class ClosedUnasked(EOFError):
    """The peer closed before the first byte of an answer."""


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _until_closed(line: socket.socket, deadline: float) -> str:
    chunks = []
    while chunk := line.recv(_CHUNK):
        chunks.append(chunk)
        line.settimeout(_left(deadline))
    if not chunks:
        raise ClosedUnasked("closed without an answer")
    return b"".join(chunks).decode(errors="replace")


def _prompted(line: socket.socket, count: int, deadline: float) -> list[str]:
    """Read `count` answers, each of which ends in a prompt on a line of its own."""
    data = b""
    while not (data.endswith(_PROMPT) and data.count(_PROMPT) >= count):
        line.settimeout(_left(deadline))
        chunk = line.recv(_CHUNK)
        if not chunk:
            raise (
                EOFError(f"answer cut short after {len(data)} bytes")
                if data
                else ClosedUnasked("closed without an answer")
            )
        data += chunk
    return data[: -len(_PROMPT)].decode(errors="replace").split(_PROMPT.decode())


def hung_up(error: BalancerUnreachable) -> bool:
    """The connection was refused, or ended before the answer did: so it is while HAProxy starts again."""
    return isinstance(error.__cause__, ConnectionError | EOFError)


def unreachable(who: str, where: str, error: Exception, timeout_s: float) -> BalancerUnreachable:
    """What went wrong on the way to a socket, in words, with what helps."""
    if isinstance(error, TimeoutError):
        return BalancerUnreachable(
            f"{who}: no answer within {timeout_s:g} s on {where}",
            hint="HAProxy is stopped, overloaded, or another program holds the socket",
        )
    if isinstance(error, EOFError):
        return BalancerUnreachable(f"{who}: {where}: {error}", hint="HAProxy may be reloading; try again")
    code = error.errno if isinstance(error, OSError) else None
    what, hint = _FAULTS.get(code or 0, (str(error).lower(), None))
    return BalancerUnreachable(f"{who}: {where}: {what}", hint=hint and hint.format(where=where))
