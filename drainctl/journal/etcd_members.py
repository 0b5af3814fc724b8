"""
The members of an etcd cluster, asked one after the other until one answers.

All that is sent through here may be sent twice, so a member that does not answer in its share of the time is
left for the next. Members that refuse to be connected to twice in a row, all of them, are given up at once.

Source: etcd 3.4, "gRPC gateway", "Authentication" (a token is sent as Authorization, and may run out).
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from etcd3gw.client import Etcd3Client
from etcd3gw.exceptions import (
    ConnectionFailedError,
    ConnectionTimeoutError,
    Etcd3Exception,
    InternalServerError,
)

from drainctl.errors import ConfigError, JournalError, StoreAway
from drainctl.journal.etcd_http import Session

if TYPE_CHECKING:
    import requests

API = "/v3/"  # since etcd 3.4
PORT = 2379
ELSEWHERE = (ConnectionFailedError, ConnectionTimeoutError, InternalServerError)
PAUSE_S = 0.05
LEAST_S = 0.3
SHAPE = "etcd://[USER:PASSWORD@]HOST[:PORT][,HOST…][/PREFIX][?cacert=FILE&cert=FILE&key=FILE]"
REACH = "`etcdctl endpoint status --cluster` says which members answer; most of them must"
HINTS = {
    "CommonName of client": "etcd's gateway takes client certificates without a CN only",
    "permission denied": "grant the user's role readwrite on the prefix: docs/several-controllers.md",
    "authentication failed": "check user and password in the store's URL",
    "database space exceeded": "compact and defragment etcd, then `etcdctl alarm disarm`",
}


class Address(NamedTuple):
    """A store's URL, read. hosts: (name, port). prefix: of every key, ends with a slash."""

    hosts: Sequence[tuple[str, int]]
    prefix: str
    user: str | None
    password: str
    files: Mapping[str, str]  # cacert, cert, key
    tls: bool

    @property
    def where(self) -> str:
        """As it may be shown."""
        return f"etcd://{','.join(f'{host}:{port}' for host, port in self.hosts)}/{self.prefix.rstrip('/')}"


def read(url: str) -> Address:
    """Raises: ConfigError, which shows nothing of the URL: a password may be anywhere in a wrong one."""
    try:
        address = _read(url)
    except ValueError:
        address = None
    if address is None:
        raise ConfigError("store: not an etcd:// URL that drainctl can read", hint=SHAPE)
    return address


def _read(url: str) -> Address | None:
    scheme, netloc, path, query, _ = urlsplit(url)
    login, _, hosts = netloc.rpartition("@")
    user, _, password = login.partition(":")
    asked = dict(parse_qsl(query, strict_parsing=True)) if query else {}
    tls = asked.pop("tls", "true" if asked else "false")
    known = scheme == "etcd" and "@" not in path and set(asked) <= {"cacert", "cert", "key"}
    if not known or tls not in {"true", "false"} or ("cert" in asked) != ("key" in asked):
        return None
    named = [_host(host) for host in hosts.split(",")]
    prefix = (path.strip("/") or "drainctl") + "/"
    return Address(named, prefix, unquote(user) or None, unquote(password), asked, tls == "true")


def _host(text: str) -> tuple[str, int]:
    at = urlsplit(f"//{text}")
    if not at.hostname:
        raise ValueError
    return at.hostname, at.port or PORT


class Members:
    """
    One connection per member. Not safe between threads: the store has a lock.

    Args: limit_s: the most that one call may take, seconds; each try gets its share.
    """

    def __init__(self, address: Address, limit_s: float) -> None:
        self.where = address.where
        self._address = address
        self._limit_s = limit_s
        self._clients = [_client(address, host, port) for host, port in address.hosts]
        self._at = 0
        self._what = ""
        self._began = self._deadline = 0.0

    def close(self) -> None:
        for client in self._clients:
            client.session.close()

    def begin(self, what: str) -> None:
        """The limit of one call of the store begins now. what: for its errors."""
        self._what = what
        self._began = time.monotonic()
        self._deadline = self._began + self._limit_s

    def ask(self, path: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        The answer of the first member that gives one.

        Raises: StoreAway where none does within the call's limit; JournalError where etcd refuses.
        """
        refused = 0
        while True:
            client = self._clients[self._at]
            left_s = self._deadline - time.monotonic()
            client.timeout = min(max(left_s, 0.05), max(LEAST_S, self._limit_s / len(self._clients)))
            try:
                return self._post(client, path, payload)
            except ELSEWHERE as error:
                refused = refused + 1 if _unconnected(error) else 0
                if refused >= 2 * len(self._clients) or time.monotonic() + PAUSE_S > self._deadline:
                    raise self._failed(StoreAway, _told(error), REACH) from error
                self._at = (self._at + 1) % len(self._clients)
                time.sleep(PAUSE_S if self._at == 0 else 0)
            except Etcd3Exception as error:
                told = _told(error)
                hint = next((hint for words, hint in HINTS.items() if words in told), None)
                raise self._failed(JournalError, told, hint) from error

    def _post(self, client: Etcd3Client, path: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._address.user and "Authorization" not in client.session.headers:
            self._log_in(client)
        try:
            return dict(client.post(client.get_url(path), json=payload))
        except Etcd3Exception as error:
            if not self._address.user or not _needs_login(_told(error)):
                raise
            self._log_in(client)
            return dict(client.post(client.get_url(path), json=payload))

    def _log_in(self, client: Etcd3Client) -> None:
        client.session.headers.pop("Authorization", None)
        who = {"name": self._address.user, "password": self._address.password}
        answer = client.post(client.get_url("auth/authenticate"), json=who)
        client.session.headers["Authorization"] = answer["token"]

    def _failed(self, kind: type[JournalError], why: str, hint: str | None) -> JournalError:
        seconds = time.monotonic() - self._began
        return kind(f"journal {self.where}: {self._what} failed after {seconds:.1f} s: {why}", hint=hint)


def _client(address: Address, host: str, port: int) -> Etcd3Client:
    try:
        session = Session(host, port, tls=address.tls, files=address.files)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(address.files.values())
        raise ConfigError(f"store {address.where}: cannot read {files}: {error.strerror or error}") from error
    protocol = "https" if address.tls else "http"
    return Etcd3Client(host, port, protocol, api_path=API, session=cast("requests.Session", session))


def _unconnected(error: Exception) -> bool:
    # etcd3gw gives what an HTTP answer said a reason as well; without one there was no answer.
    return isinstance(error, ConnectionFailedError) and not error.args


def _told(error: Exception) -> str:
    """The words of etcd itself, or of the network."""
    text = getattr(error, "detail_text", None) or str(error) or type(error).__name__
    try:
        said = json.loads(text)
    except ValueError:
        return " ".join(str(text).split())
    return str(said.get("message") or said.get("error") or text) if isinstance(said, dict) else text


def _needs_login(told: str) -> bool:
    return "invalid auth token" in told or "revision of auth store is old" in told


# ---------------------------------------------------------------- as the gateway wants it


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def unb64(text: str) -> str:
    return base64.b64decode(text).decode()


class Found(NamedTuple):
    """A key that is there. revision: of its last change; 0 with the value "" where it is not there."""

    value: str = ""
    revision: int = 0


def unchanged(key: str, revision: int) -> dict[str, Any]:
    """Compares: the key was last changed at `revision` (0: it is not there)."""
    return {"key": b64(key), "target": "MOD", "result": "EQUAL", "mod_revision": revision}


def put(key: str, value: str, lease: int = 0) -> dict[str, Any]:
    return {"request_put": {"key": b64(key), "value": b64(value), "lease": lease}}


def get(key: str) -> dict[str, Any]:
    return {"request_range": {"key": b64(key)}}


def delete(key: str) -> dict[str, Any]:
    return {"request_delete_range": {"key": b64(key)}}


def found(response: Mapping[str, Any]) -> Found:
    """What a `get` within a transaction found."""
    for pair in response.get("response_range", {}).get("kvs", []):
        return Found(unb64(pair.get("value", "")), int(pair["mod_revision"]))
    return Found()
