"""
A command's stream in a container: what the engine makes of the connection on which an exec is started.

The SDK reads such a stream through a buffer of its own that it then drops: what the engine sends together
with its answer's head is lost. So it is asked for on a connection of its own, read from the first byte on.
Source: Docker Engine API, "Attach to a container", Hijacking and Stream format.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from select import select
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from drainctl.errors import ConnectFailed

if TYPE_CHECKING:
    from drainctl.node.engine import Tls
    from drainctl.node.tail import Tail

CHUNK = 65536
HEAD_MAX = 65536
LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError, TimeoutError)
STDERR = 2


class Socket(Protocol):
    """What is used of a socket; a channel of paramiko has it, too."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: Any, /) -> int: ...
    def sendall(self, data: bytes, /) -> None: ...
    def settimeout(self, timeout_s: float | None, /) -> None: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...


def connect(url: str, tls: Tls, timeout_s: float, api: Any) -> Socket:
    """A connection to the engine's API. Raises: OSError; through SSH what paramiko raises."""
    parts = urlsplit(url)
    if parts.scheme == "ssh":  # the SDK's own connection carries it
        channel: Socket = api._custom_adapter.ssh_client.get_transport().open_session(timeout=timeout_s)  # noqa: SLF001 - the SDK has no door to it
        channel.settimeout(timeout_s)
        channel.exec_command("docker system dial-stdio")  # type: ignore[attr-defined]  # a channel, here
        return channel
    if parts.scheme == "unix":
        local = socket.socket(socket.AF_UNIX)
        local.settimeout(timeout_s)
        try:
            local.connect(parts.path)
        except OSError:
            local.close()
            raise
        return local
    plain = socket.create_connection((parts.hostname or "", parts.port or 2375), timeout_s)
    if not any(tls):
        return plain
    context = ssl.create_default_context(cafile=tls.ca)
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key)
    try:
        return context.wrap_socket(plain, server_hostname=parts.hostname)
    except (OSError, ValueError):
        plain.close()
        raise


def start(door: Socket, path: str) -> bytes:
    """
    Ask for the exec's stream; what came of it already.

    Raises: ConnectFailed where the engine refuses, with its words; OSError.
    """
    body = json.dumps({"Detach": False, "Tty": False}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )
    door.sendall(head.encode() + body)
    got = b""
    while b"\r\n\r\n" not in got:
        more = door.recv(CHUNK)
        if not more or len(got) > HEAD_MAX:
            raise ConnectFailed("the engine closed the connection before the command began")
        got += more
    answer, _, rest = got.partition(b"\r\n\r\n")
    status = answer.split(b" ", 2)[1:2]
    if status not in ([b"101"], [b"200"]):
        raise ConnectFailed(f"the engine does not start the command: {_words(answer, rest)}")
    return rest


def _words(answer: bytes, body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.partition(b"\r\n")[0].decode(errors="replace")


class Frames:
    """Takes the stream's bytes in any amount and gives each frame's part to stdout's or stderr's tail."""

    def __init__(self, out: Tail, err: Tail) -> None:
        self._tails = (out, err)
        self._head = b""
        self._left = 0
        self._to = out

    def add(self, data: bytes) -> None:
        """A frame is 8 bytes of head (kind, three zeros, length) and its data."""
        at = 0
        while at < len(data):
            if not self._left:
                take = 8 - len(self._head)
                self._head += data[at : at + take]
                at += take
                if len(self._head) == 8:
                    kind, self._left = struct.unpack(">BxxxL", self._head)
                    self._to = self._tails[kind == STDERR]
                    self._head = b""
                continue
            part = data[at : at + self._left]
            self._to.add(part)
            self._left -= len(part)
            at += len(part)


def pump(
    door: Socket, first: bytes, frames: Frames, stdin: Iterator[bytes], end: float, quiet_s: float
) -> bool | None:
    """
    Move bytes both ways until the stream ends (True), `end` has come (False), or nothing has moved for
    `quiet_s` seconds (None): then the command may have ended, and left its output to somebody.

    Raises: OSError; what `stdin` raises.
    """
    door.settimeout(0.0)
    frames.add(first)
    rest = memoryview(b"")
    more = True
    moved = time.monotonic()
    while True:
        if more and not rest:
            chunk = next(stdin, b"")
            rest, more = memoryview(chunk), bool(chunk)
        sent, got = _send(door, rest), _receive(door)
        rest = rest[sent:]
        now = time.monotonic()
        if got == b"":
            return True
        if got:
            frames.add(got)
        if got or sent:
            moved = now
            continue
        if now >= end:
            return False
        if not rest and now - moved >= quiet_s:
            return None
        wait_s = max(0.0, min(end, moved + quiet_s) - now)
        # A channel of paramiko shows by its descriptor only that there is something to read.
        select(
            [door], [door] if rest and isinstance(door, socket.socket) else [], [], 0.01 if rest else wait_s
        )


def _send(door: Socket, data: memoryview) -> int:
    if not data:
        return 0
    try:
        return door.send(data[:CHUNK])
    except LATER:
        return 0


def _receive(door: Socket) -> bytes | None:
    """None: nothing yet; nothing at all: the stream has ended."""
    try:
        return door.recv(CHUNK)
    except LATER:
        return None
