"""
A requests session whose hosts are shards: `session.get("arb://users/query")`.

The session is an ordinary `requests.Session` with one adapter mounted; everything else (params, json, auth,
cookies, hooks, streaming, TLS settings) is requests' own. `arb://users/…` and `http://users/…` mean the
same: the shard `users`, whichever of its machines answers.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body
from urllib3 import exceptions as u3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from drainctl.arb.board import Board
from drainctl.arb.dial import DialFailed, dial, vanishing
from drainctl.arb.faults import fault_of, raised
from drainctl.arb.in_flight import Attempt
from drainctl.arb.policy import Fault, Policy
from drainctl.arb.replicas import Replicas
from drainctl.arb.requests_errors import FAILS, KINDS, SILENT, connecting
from drainctl.arb.shards import Machine, Shard

_here = threading.local()  # .attempt: what this thread is trying


class ReplicaAdapter(HTTPAdapter):
    """
    Sends the requests for a shard to the machine that is up. Mount it where the shard's URLs begin.

    Args:
        shards: shard → its machines' URLs, in the order in which they are asked.
        board: a `Board`, the path of a file that all processes of this machine share, or the URL of a board
            that all machines share (see `board_of`); None: this process alone.
        policy: limits and habits.
        probe: whether a thread of this process probes machines that are down, while nobody else does.
            Without it marks lapse after `policy.hold_s`, and a request finds out.
        pool: connections that are kept per machine.
    Raises: ValueError for shards that cannot be (see `shards_of`).
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[str]],
        board: Board | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        *,
        probe: bool = True,
        pool: int = 32,
    ) -> None:
        self._replicas = Replicas(shards, board, policy, probe=probe)
        self.shards = self._replicas.shards
        self.policy = self._replicas.policy
        self.board = self._replicas.board
        self.in_flight = self._replicas.in_flight
        self._pools: dict[str, Any] = {}  # urllib3's, by machine
        super().__init__(pool_connections=max(10, 4 * len(self.shards)), pool_maxsize=pool)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Pools whose connections keep our limits."""
        super().init_poolmanager(*args, socket_options=vanishing(self.policy.dead_s), **kwargs)
        keep_s = self.policy.keep_s
        plain = type("Pool", (_KeepsBriefly, HTTPConnectionPool), {"ConnectionCls": _Plain, "keep_s": keep_s})
        tls = type("TlsPool", (_KeepsBriefly, HTTPSConnectionPool), {"ConnectionCls": _Tls, "keep_s": keep_s})
        self.poolmanager.pool_classes_by_scheme = {"http": plain, "https": tls}

    def get_connection_with_tls_context(
        self, request: requests.PreparedRequest, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """
        The machine's pool. requests works its key out anew for each call, a twentieth of what the whole call
        costs; without TLS there is one pool per machine whatever the key, so it is kept.
        """
        machine: Machine = _here.attempt.machine
        pool = self._pools.get(machine.url)
        if pool is None or pool.pool is None:  # not made yet, or closed since
            pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
            if not machine.tls:
                self._pools[machine.url] = pool
        return pool

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What stands in the request line; through a proxy, which is never used, it would be more."""
        del proxies
        path = request.path_url
        return super().request_url(request, None) if path.startswith("//") else path

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """
        One request to whichever machine answers.

        Args:
            request: prepared; its host is the shard.
            stream: whether the caller reads the answer bit by bit.
            timeout: bounds the silence while the answer is awaited, seconds, or (connect, read); a connect
                limit longer than the policy's has no effect. None: the policy's.
            verify: as requests takes it.
            cert: as requests takes it.
            proxies: none is used: a proxy would hide which machine failed.
        Raises: NotSent or MaybeSent. With `stream`, what goes wrong after the head of the answer is
            requests' own.
        """
        del proxies
        shard, path = self._addressed(request)
        replicas = self._replicas
        way = replicas.way(shard, request.method or "", request.url or "", request.headers)
        if replicas.prober is not None:
            replicas.prober.trust(verify, cert)
        limits = _limits(timeout, self.policy)
        for attempt in way:
            attempt.read_s = limits[1]
            one = _readdressed(request, attempt.machine.url + path)
            try:
                response = self._sent(attempt, one, stream, limits, verify, cert)
            except FAILS as error:
                cause: Exception = error
                fault = fault_of(error, attempt, silent=SILENT, connecting=connecting)
                # Where nothing was sent, not a byte of the body was read.
                way.failed(attempt, fault, again=not fault.sent or _rewound(request))
            else:
                return _signed(response, request, attempt.machine)
        raise raised(KINDS, shard.name, way.course) from cause

    def _sent(
        self,
        attempt: Attempt,
        request: requests.PreparedRequest,
        stream: bool,
        limits: tuple[float, float] | tuple[float, None],
        verify: bool | str,
        cert: Any,
    ) -> requests.Response:
        in_flight = self.in_flight
        _here.attempt = attempt
        in_flight.begin(attempt)
        try:
            response = super().send(request, stream, limits, verify, cert)
            attempt.answered = True
            if not stream:
                _ = response.content  # read here, where the replica can still be asked
        except BaseException:
            in_flight.drop(attempt)
            raise
        in_flight.end(attempt)
        return response

    def _addressed(self, request: requests.PreparedRequest) -> tuple[Shard, str]:
        """The shard that a URL names, and the rest of the URL as it stands."""
        url = request.url or ""
        name = _host(url)
        shard = self.shards.get(name)
        if shard is None:
            raise requests.exceptions.InvalidURL(
                f"{url}: no shard {name!r}; there are {', '.join(self.shards)}"
            )
        return shard, request.path_url

    def close(self) -> None:
        """End the threads, close the connections."""
        self._replicas.close()
        super().close()


class ReplicaSession(requests.Session):
    """
    A requests session that knows shards.

    Takes what `ReplicaAdapter` takes. Other URLs go where they always went.

        session = ReplicaSession({"users": ["http://10.0.0.11:8080", "http://10.0.0.12:8080"]})
        answer = session.get("arb://users/query", params={"q": "name"})
        answered_by(answer)  # '10.0.0.11:8080'

    Raises, from its requests: `NotSent`, `MaybeSent`; both are requests.ConnectionError.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[str]],
        board: Board | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        *,
        probe: bool = True,
        pool: int = 32,
    ) -> None:
        super().__init__()
        self.arb = ReplicaAdapter(shards, board, policy, probe=probe, pool=pool)
        self._schemes = {
            name: "https" if shard.machines[0].tls else "http" for name, shard in self.arb.shards.items()
        }
        for name, scheme in self._schemes.items():
            self.mount(f"{scheme}://{name}/", self.arb)

    @property
    def board(self) -> Board:
        """Who is down, as this session knows it."""
        return self.arb.board

    def merge_environment_settings(self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any) -> Any:
        """As requests does it, but for a shard no proxy is looked for: none would be used."""
        if self.get_adapter(url) is not self.arb:
            return super().merge_environment_settings(url, proxies, stream, verify, cert)
        if self.trust_env and verify in (True, None):
            verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or verify
        return {
            "proxies": {},
            "stream": self.stream if stream is None else stream,
            "verify": self.verify if verify is None else verify,
            "cert": self.cert if cert is None else cert,
        }

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """`arb://` becomes http or https here, since requests adds parameters to no other scheme."""
        url = request.url
        if isinstance(url, str) and url.startswith("arb://"):
            name = _host(url)
            if name not in self._schemes:
                raise requests.exceptions.InvalidURL(
                    f"{url}: no shard {name!r}; there are {', '.join(self._schemes)}"
                )
            request.url = self._schemes[name] + url[3:]
        return super().prepare_request(request)


def _host(url: str) -> str:
    """The shard in `scheme://shard/path`; a port is allowed and means nothing."""
    return url.split("/", 3)[2].partition("?")[0].rpartition("@")[2].partition(":")[0].lower()


def answered_by(response: requests.Response) -> str:
    """`host:port` of the machine that answered; "" for an answer that came by another adapter."""
    return str(getattr(response, "arb_machine", ""))


def _signed(
    response: requests.Response, request: requests.PreparedRequest, machine: Machine
) -> requests.Response:
    """The answer as the caller asked for it, by the shard's name; and who gave it."""
    response.url = request.url or ""
    response.request = request
    response.arb_machine = machine.name  # type: ignore[attr-defined]  # read by answered_by
    return response


def _limits(timeout: Any, policy: Policy) -> tuple[float, float] | tuple[float, None]:
    """(connect, read), seconds."""
    if timeout is None:
        return policy.connect_s, policy.read_s
    connect_s, read_s = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    return min(policy.connect_s, connect_s or policy.connect_s), read_s


def _readdressed(request: requests.PreparedRequest, url: str) -> requests.PreparedRequest:
    """The same request to another URL; a third of what copy.copy costs."""
    one = requests.PreparedRequest.__new__(requests.PreparedRequest)
    one.__dict__.update(request.__dict__)
    one.url = url
    return one


def _rewound(request: requests.PreparedRequest) -> bool:
    """Whether the body can be sent once more; a file is put back to where it began, an iterator cannot be."""
    body: object = request.body
    if body is None or isinstance(body, bytes | str):
        return True
    try:
        rewind_body(request)
    except requests.exceptions.UnrewindableBodyError:
        return False
    return True


class _KeepsBriefly:
    """A pool that does not use a connection again which was idle for longer than keep_s."""

    keep_s: float

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]  # mixed into urllib3's pools
        if connection.sock is not None and time.monotonic() - connection.idle_since > self.keep_s:
            connection.close()
        return connection

    def _put_conn(self, connection: Any) -> None:
        if connection is not None:
            connection.idle_since = time.monotonic()
        super()._put_conn(connection)  # type: ignore[misc]


class _Limited:
    """A connection that connects within one limit in all, and tells the attempt how far it came."""

    def _new_conn(self: Any) -> socket.socket:
        attempt: Attempt = _here.attempt
        attempt.reused = False
        began = time.monotonic()
        try:
            sock = dial(
                self._dns_host, self.port, self.timeout, options=self.socket_options, give_up=attempt.learned
            )
        except DialFailed as error:
            attempt.fault = error.fault
            if error.fault is Fault.CONNECT_LIMIT:
                raise u3.ConnectTimeoutError(self, str(error)) from error
            raise u3.NewConnectionError(self, str(error)) from error
        # TLS has what is left; Python bounds a whole handshake by it.
        sock.settimeout(max(0.001, self.timeout - (time.monotonic() - began)))
        return sock

    def send(self: Any, data: Any) -> None:
        attempt: Attempt = _here.attempt
        if not attempt.sent:
            if self.sock is None:
                self.connect()
            if not attempt.reused:
                self.sock.settimeout(
                    attempt.read_s
                )  # urllib3 would go on with the connect limit until all is sent
            attempt.sock = self.sock
            attempt.sent = True
        super().send(data)  # type: ignore[misc]  # mixed into urllib3's connections


class _Plain(_Limited, HTTPConnection):
    pass


class _Tls(_Limited, HTTPSConnection):
    pass
