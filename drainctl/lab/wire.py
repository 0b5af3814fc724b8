"""
HTTP/1.1 answers, read from bytes as they come (RFC 9112), without I/O.

Our own reader instead of a library, for two reasons: the load generator's whole worth is to say *how* an
answer failed (no byte at all, or cut short, or not HTTP), which a library folds into one exception; and
at 25 µs per answer it leaves the machine's cores to what is measured. A test holds it against h11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum, auto

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\r\n]*)?")
HEAD_MAX = 65536


class Garbled(ValueError):
    """What came is no HTTP/1.1 answer."""


@dataclass(slots=True)
class Answer:
    """One whole answer. Header names are lower case; a repeated header's values are joined by ", "."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    keep: bool = True


class _Part(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNKED = auto()
    TO_THE_END = auto()


@dataclass(slots=True)
class Reader:
    """Reads one answer to a GET or POST. `began`: a byte of it has come."""

    began: bool = False
    _buffer: bytearray = field(default_factory=bytearray)
    _part: _Part = _Part.HEAD
    _answer: Answer | None = None
    _length: int = 0
    _chunks: list[bytes] = field(default_factory=list)

    def feed(self, data: bytes) -> Answer | None:
        """Take bytes; the answer once it is whole, else None. Raises: Garbled."""
        self.began = True
        self._buffer += data
        while self._part is _Part.HEAD:
            if not self._head():
                return None
        match self._part:
            case _Part.LENGTH:
                whole = len(self._buffer) >= self._length
                return self._whole(bytes(self._buffer[: self._length]), self._length) if whole else None
            case _Part.CHUNKED:
                return self._chunked()
            case _:
                return None

    def end(self) -> Answer | None:
        """The connection was closed in good order: the answer, if just that marks its end, else None."""
        return self._whole(bytes(self._buffer), len(self._buffer)) if self._part is _Part.TO_THE_END else None

    def _whole(self, body: bytes, used: int) -> Answer:
        if len(self._buffer) > used:
            raise Garbled(f"{len(self._buffer) - used} bytes after the answer's end")
        answer = self._answer
        if answer is None:
            raise Garbled("a body without a head")
        answer.body = body
        return answer

    def _head(self) -> bool:
        """Read a head if it is there. An interim answer (1xx) is read over."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_MAX:
                raise Garbled(f"no end of the head within {HEAD_MAX} bytes")
            return False
        answer, persistent = read_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if answer.status >= 200:
            self._answer = answer
            self._frame(answer, persistent)
        return True

    def _frame(self, answer: Answer, persistent: bool) -> None:
        """How the body's end is marked: RFC 9112, section 6.3."""
        headers = answer.headers
        options = headers.get(b"connection", b"").lower()
        answer.keep = (persistent and b"close" not in options) or b"keep-alive" in options
        coding, length = headers.get(b"transfer-encoding"), headers.get(b"content-length")
        if answer.status in {204, 304}:
            self._part, self._length = _Part.LENGTH, 0
        elif coding is not None:
            if coding.lower() != b"chunked":
                raise Garbled(f"transfer-encoding {coding!r}")
            self._part = _Part.CHUNKED
        elif length is not None:
            if not length.isdigit():
                raise Garbled(f"content-length {length!r}")
            self._part, self._length = _Part.LENGTH, int(length)
        else:
            self._part, answer.keep = _Part.TO_THE_END, False

    def _chunked(self) -> Answer | None:
        """RFC 9112, section 7.1. Trailers are read over."""
        buffer = self._buffer
        while (line_end := buffer.find(b"\r\n")) >= 0:
            size = _chunk_size(bytes(buffer[:line_end]))
            if size == 0:
                trailers_end = buffer.find(b"\r\n\r\n", line_end)
                if trailers_end < 0:
                    return None
                return self._whole(b"".join(self._chunks), trailers_end + 4)
            start, end = line_end + 2, line_end + 2 + size
            if len(buffer) < end + 2:
                return None
            if buffer[end : end + 2] != b"\r\n":
                raise Garbled("a chunk does not end where its size says")
            self._chunks.append(bytes(buffer[start:end]))
            del buffer[: end + 2]
        return None


def read_head(head: bytes) -> tuple[Answer, bool]:
    """
    A head without its empty line: the answer, with no body yet, and whether it is HTTP/1.1.

    Raises: Garbled.
    """
    status_line, *lines = head.split(b"\r\n")
    found = STATUS_LINE.fullmatch(status_line)
    if not found:
        raise Garbled(f"not a status line: {status_line[:80]!r}")
    return Answer(int(found[2]), _headers(lines)), found[1] == b"1"


def _headers(lines: list[bytes]) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise Garbled(f"not a header line: {line[:80]!r}")
        name, value = name.lower(), value.strip()
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", digits):
        raise Garbled(f"not a chunk size: {line[:80]!r}")
    return int(digits, 16)
