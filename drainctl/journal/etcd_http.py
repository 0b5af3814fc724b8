"""
What etcd3gw sends its requests with: one kept connection and the standard library.

requests takes a millisecond of the processor for each call, more than etcd takes for an event; and it reads
proxies from the environment, which are not on the way to etcd. etcd3gw asks for `post` and `headers` only.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

from requests.exceptions import ConnectionError as NoConnection
from requests.exceptions import Timeout


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
        if not tls:
            self._connection = http.client.HTTPConnection(host, port)
            return
        context = ssl.create_default_context(cafile=files.get("cacert"))
        if "cert" in files:
            context.load_cert_chain(files["cert"], files["key"])
        self._connection = http.client.HTTPSConnection(host, port, context=context)

    def close(self) -> None:
        self._connection.close()

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
        kept = self._connection.sock is not None
        try:
            return self._exchange(path, body, timeout)
        except TimeoutError as error:
            raise Timeout(f"no answer within {timeout or 0:.1f} s") from error
        except (OSError, http.client.HTTPException) as error:
            if kept:
                return self.post(url, data=data, json=json, timeout=timeout)
            raise NoConnection(f"{self._connection.host}:{self._connection.port}: {_why(error)}") from error

    def _exchange(self, path: str, body: bytes, timeout: float | None) -> Answer:
        connection = self._connection
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request("POST", path, body, self.headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.reason, answer.read().decode())
        except BaseException:
            connection.close()  # what is left of an exchange must not be taken for the answer of the next
            raise


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
