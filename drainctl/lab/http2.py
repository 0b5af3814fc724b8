"""
HTTP/2 as a client needs it to ask for small pages, without TLS (RFC 9113, prior knowledge).

Each request is a stream; several are on their way at a time. A server that goes away (GOAWAY) says which
streams it will still answer; the others were not begun and may be asked again, on another connection.
Header blocks are written without compression, and of answers only the status is read.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
REFUSED_STREAM = 7
# RFC 7541, appendix A: statuses that are one byte.
STATUSES = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}


@dataclass
class Http2:
    """
    One connection. at_once: streams that are open at a time. going: nothing more may be asked on it.

    Raises: OSError where it is lost, ValueError for what is no answer.
    """

    host: str
    port: int
    limit_s: float
    waits: dict[int, int | None] = field(default_factory=dict)  # stream: the status that has come
    going: bool = False

    def __post_init__(self) -> None:
        self._socket = socket.create_connection((self.host, self.port), self.limit_s)
        self._stream = self._socket.makefile("rb")
        self._next = 1
        self._socket.sendall(PREFACE + _frame(SETTINGS))

    def ask(self, path: str) -> None:
        """Begin a GET."""
        block = b"\x82\x86" + _literal(4, path) + _literal(1, f"{self.host}:{self.port}")
        self._socket.sendall(_frame(HEADERS, END_STREAM | END_HEADERS, self._next, block))
        self.waits[self._next] = None
        self._next += 2

    def ended(self) -> list[int | None]:
        """Read until something has ended: statuses; None for a stream that was not begun there."""
        while True:
            kind, flags, stream, data = self._read()
            if kind == HEADERS and self.waits.get(stream, 0) is None:
                self.waits[stream] = _status(data)
            elif kind == DATA and data:
                more = struct.pack(">I", len(data))
                self._socket.sendall(
                    _frame(WINDOW_UPDATE, 0, 0, more) + _frame(WINDOW_UPDATE, 0, stream, more)
                )
            elif kind in {SETTINGS, PING} and not flags & ACK:
                self._socket.sendall(_frame(kind, ACK, 0, data if kind == PING else b""))
            elif kind == GOAWAY:
                self.going = True
                last = struct.unpack(">I", data[:4])[0]
                if refused := [one for one in self.waits if one > last]:
                    return [self._done(one) for one in refused]
            elif kind == RST_STREAM:
                if struct.unpack(">I", data)[0] != REFUSED_STREAM:
                    raise ValueError(f"stream {stream} was reset")
                return [self._done(stream)]
            if kind in {HEADERS, DATA} and flags & END_STREAM:
                return [self._done(stream)]

    def _done(self, stream: int) -> int | None:
        return self.waits.pop(stream)

    def _read(self) -> tuple[int, int, int, bytes]:
        head = self._stream.read(9)
        if len(head) < 9:
            raise ConnectionResetError("the connection was closed")
        length = int.from_bytes(head[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        return kind, flags, stream, self._stream.read(length)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def keep_asking(host: str, port: int, path: str, seconds: float, at_once: int = 3) -> str:
    """Ask for `path`, `at_once` at a time, for so long. Returns: the first end but 200, else "200"."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        link = Http2(host, port, 15.0)
        try:
            while link.waits or (time.monotonic() < end and not link.going):
                while not link.going and time.monotonic() < end and len(link.waits) < at_once:
                    link.ask(path)
                if bad := [status for status in link.ended() if status not in {200, None}]:
                    return str(bad[0])
        except (OSError, ValueError) as error:
            return f"lost: {error}"
        finally:
            link.close()
    return "200"


def _frame(kind: int, flags: int = 0, stream: int = 0, data: bytes = b"") -> bytes:
    return len(data).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + data


def _literal(name: int, value: str) -> bytes:
    """A header whose name is in the static table; its value as it is, shorter than 127 bytes."""
    return bytes([name, len(value)]) + value.encode()


def _status(block: bytes) -> int:
    at = 0
    while block[at] & 0xE0 == 0x20:  # a new size of the table
        at += 1
    if block[at] in STATUSES:
        return STATUSES[block[at]]
    text = block[at + 2 : at + 5]  # a literal behind the name's index
    if block[at] & 0x0F != 8 or not text.isdigit():
        raise ValueError(f"no status in {block[:8]!r}")
    return int(text)
