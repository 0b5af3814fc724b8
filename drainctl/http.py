"""
A small HTTP client: GET, kept connections, and never an exception for what a network may do.

Each thread keeps one connection per origin (scheme, host, port, CA file), so a client is safe to share. The
limit of a call is one for connecting, sending and reading the answer; a peer that sends a byte now and then
does not stretch it. Redirects are answers like any other.
Source: RFC 9110; RFC 9112, section 9.3.1 (a request on a connection that was found closed may be repeated).
"""

from __future__ import annotations

import base64
import io
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from drainctl.model import Answer, Secret

if TYPE_CHECKING:
    import socket
    import ssl
    from http.client import HTTPConnection, HTTPResponse
    from urllib.parse import SplitResult

Origin = tuple[str, str | None, int | None, str | None]


class Http:
    """GET over HTTP and HTTPS; one connection per thread and origin is kept until `close`."""

    def __init__(self) -> None:
        self._mine = threading.local()
        self._all: set[HTTPConnection] = set()
        self._lock = threading.Lock()

    def get(
        self,
        url: str,
        *,
        timeout_s: float,
        auth: Secret | None = None,
        ca: str | None = None,
        close: bool = False,
        limit: int = 4096,
    ) -> Answer:
        """
        One GET.

        Args:
            url: http or https, absolute.
            timeout_s: limit for the whole call, seconds.
            auth: `user:password` for basic authentication.
            ca: path of a PEM file of the CAs to trust instead of the system's.
            close: use a new connection, and do not keep it.
            limit: bytes of the body that are kept; the connection of a longer answer is not used again.
        Returns: the answer, or one with `error` in words.
        """
        from http.client import HTTPException
        from urllib.parse import urlsplit

        began = time.monotonic()
        try:
            parts = urlsplit(url)
            origin = (parts.scheme, parts.hostname, parts.port, ca)
            connection, response = self._sent(
                origin, _target(parts), _headers(auth, close=close), began + timeout_s
            )
            body = self._body(origin, connection, response, limit, keep=not close)
            status = response.status
        except (OSError, HTTPException, ValueError) as error:
            return Answer(None, took_s=time.monotonic() - began, error=_words(error, timeout_s))
        return Answer(status, body.decode(errors="replace"), time.monotonic() - began)

    def _sent(
        self, origin: Origin, target: str, headers: dict[str, str], deadline: float
    ) -> tuple[HTTPConnection, HTTPResponse]:
        """The answer's head, over the kept connection, or over a new one where that was closed meanwhile."""
        kept = self._kept().pop(origin, None)
        if kept is not None and "Connection" not in headers:
            try:
                return kept, self._head(kept, target, headers, deadline)
            except ConnectionError:
                pass
        elif kept is not None:
            self._drop(kept)
        fresh = _connection(origin)
        with self._lock:
            self._all.add(fresh)
        return fresh, self._head(fresh, target, headers, deadline)

    def _head(
        self, connection: HTTPConnection, target: str, headers: dict[str, str], deadline: float
    ) -> HTTPResponse:
        from http.client import HTTPResponse

        def timed(sock: socket.socket, **rest: Any) -> HTTPResponse:
            return HTTPResponse(_Timed(sock, deadline), **rest)  # type: ignore[arg-type]  # it calls makefile only

        try:
            connection.timeout = _left(deadline)
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            connection.response_class = timed  # type: ignore[assignment]  # typed as a class, used as a factory
            connection.request("GET", target, headers=headers)
            return connection.getresponse()
        except BaseException:
            self._drop(connection)
            raise

    def _body(
        self, origin: Origin, connection: HTTPConnection, response: HTTPResponse, limit: int, *, keep: bool
    ) -> bytes:
        """The body's first `limit` bytes; only a connection whose answer was read to its end is kept."""
        kept = False
        try:
            body = response.read(limit)
            if response.length and len(body) < limit:
                raise OSError("answer cut short")
            kept = keep and response.isclosed() and connection.sock is not None
        finally:
            if kept:
                self._kept()[origin] = connection
            else:
                response.close()
                self._drop(connection)
        return body

    def _kept(self) -> dict[Origin, HTTPConnection]:
        if not hasattr(self._mine, "kept"):
            self._mine.kept = {}
        kept: dict[Origin, HTTPConnection] = self._mine.kept
        return kept

    def _drop(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._all.discard(connection)
        connection.close()

    def close(self) -> None:
        """Close every thread's connections. May be called twice; a later `get` opens a new one."""
        with self._lock:
            connections, self._all = self._all, set()
        for connection in connections:
            connection.close()


class _Timed:
    """A socket whose reads together end at the deadline, as http.client wants to see one."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReads(self._sock, self._deadline))


class _TimedReads(io.RawIOBase):
    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # keeps the socket open until the answer is read
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(_left(self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _target(parts: SplitResult) -> str:
    return f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"


def _headers(auth: Secret | None, *, close: bool) -> dict[str, str]:
    headers = {"User-Agent": "drainctl"}
    if auth is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.value.encode()).decode()}"
    if close:
        headers["Connection"] = "close"
    return headers


def _connection(origin: Origin) -> HTTPConnection:
    from http.client import HTTPConnection, HTTPSConnection

    scheme, host, port, ca = origin
    if not host or scheme not in ("http", "https"):
        raise ValueError("not an http or https URL")
    if scheme == "https":
        return HTTPSConnection(host, port, context=_trust(ca))
    return HTTPConnection(host, port)


@lru_cache(maxsize=8)
def _trust(ca: str | None) -> ssl.SSLContext:
    """Reading the system's CAs takes 10 ms and more, so once per CA file."""
    import ssl

    return ssl.create_default_context(cafile=ca)


def _words(error: Exception, timeout_s: float) -> str:
    """What a person calls this fault."""
    from http.client import HTTPException, IncompleteRead, RemoteDisconnected
    from socket import gaierror

    names: tuple[tuple[type[Exception], str], ...] = (
        (TimeoutError, f"timed out after {timeout_s:g} s"),
        (RemoteDisconnected, "closed with no answer"),
        (ConnectionRefusedError, "connection refused"),
        (ConnectionError, "connection reset"),
        (gaierror, "unknown host name"),
        (IncompleteRead, "answer cut short"),
        (HTTPException, f"no HTTP: {error or type(error).__name__}"),
    )
    for kind, words in names:
        if isinstance(error, kind):
            return words
    untrusted = getattr(error, "verify_message", None)  # ssl.SSLCertVerificationError, without importing ssl
    if untrusted:
        return f"certificate not trusted: {untrusted}"
    return str(getattr(error, "strerror", None) or error).lower()
