"""
What etcd3gw sends its requests with: one kept connection and the standard library's sockets.

An event is one exchange, so what an exchange costs here is what a journal in etcd costs above etcd itself.
requests takes a millisecond of the processor for each, and reads proxies from the environment, which are not
on the way to etcd; http.client takes a third of one, for headers that nobody reads and a body that is sent
apart. etcd3gw asks for `post` and `headers` only.

Source: RFC 9112, sections 2 (message format), 6 (message body), 9.3 (persistence).
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from io import BufferedReader
from typing import Any, NamedTuple

from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import Timeout

LINE_MAX = 65536


class Answer(NamedTuple):
    """As much of requests' Response as etcd3gw reads."""

    status_code: int
    reason: str
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class Session:
    """
    One connection to one member, opened when it is first needed. Not safe between threads.

    Args: files: cacert, cert and key, by name; used where `tls`.
    """

    def __init__(self, host: str, port: int, *, tls: bool, files: Mapping[str, str]) -> None:
        self.headers: dict[str, str] = {"Content-Type": "application/json"}
        self._host, self._port = host, port
        self._name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._tls = _tls(files) if tls else None
        self._connection: socket.socket | None = None
        self._answers: BufferedReader | None = None

    def close(self) -> None:
        for each in (self._answers, self._connection):
            if each is not None:
                each.close()
        self._answers = self._connection = None

    def post(
        self, url: str, *, data: str | None = None, json: Any = None, timeout: float | None = None
    ) -> Answer:
        """
        Sent a second time where a connection that was kept turns out to be closed; so it must be such that it
        may be sent twice. timeout: of each wait for the socket, seconds.

        Raises: requests' Timeout and ConnectionError, as etcd3gw expects them.
        """
        body = (data if data is not None else _dumps(json)).encode()
        path = "/" + url.split("/", 3)[3]
        kept = self._connection is not None
        try:
            return self._exchange(path, body, timeout)
        except TimeoutError as error:
            raise Timeout(f"no answer within {timeout or 0:.1f} s") from error
        except OSError as error:
            if kept:
                return self.post(url, data=data, json=json, timeout=timeout)
            raise NoConnection(f"{self._name}: {_why(error)}") from error

    def _exchange(self, path: str, body: bytes, timeout: float | None) -> Answer:
        told = {"Host": self._name, **self.headers, "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        try:
            connection, answers = self._connected(timeout)
            connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            status, headers = _head(answers)
            text = _body(answers, headers).decode()
        except BaseException:
            self.close()  # what is left of an exchange must not be taken for the answer of the next
            raise
        if headers.get("connection", "").lower() == "close":
            self.close()
        _version, code, reason = f"{status}  ".split(" ", 2)
        return Answer(int(code), reason.strip(), text)

    def _connected(self, timeout: float | None) -> tuple[socket.socket, BufferedReader]:
        if self._connection is None or self._answers is None:
            plain = socket.create_connection((self._host, self._port), timeout)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection = plain  # so that it is closed where TLS fails
            if self._tls:
                self._connection = self._tls.wrap_socket(plain, server_hostname=self._host)
            self._answers = self._connection.makefile("rb")
        self._connection.settimeout(timeout)
        return self._connection, self._answers


def _head(answers: BufferedReader) -> tuple[str, dict[str, str]]:
    """The status line, and the headers by their names in lower case."""
    status = _line(answers)
    if not status.startswith("HTTP/1."):
        raise ConnectionError(f"this is not HTTP: {status[:80]}")
    headers: dict[str, str] = {}
    while line := _line(answers):
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return status, headers


def _body(answers: BufferedReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return _exactly(answers, int(headers.get("content-length", "0")))
    chunks = []
    while size := int(_line(answers).partition(";")[0], 16):
        chunks.append(_exactly(answers, size))
        _line(answers)
    while _line(answers):
        pass  # trailers
    return b"".join(chunks)


def _line(answers: BufferedReader) -> str:
    line = answers.readline(LINE_MAX)
    if not line.endswith(b"\n"):
        raise ConnectionError("the connection was closed before the answer had ended")
    return line.decode("latin-1").strip()


def _exactly(answers: BufferedReader, size: int) -> bytes:
    found = answers.read(size)
    if len(found) < size:
        raise ConnectionError("the connection was closed before the answer had ended")
    return found


def _tls(files: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.get("cacert"))
    if "cert" in files:
        context.load_cert_chain(files["cert"], files["key"])
    return context


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
