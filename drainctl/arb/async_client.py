"""
The same for httpx, asynchronous: the rules are those of `drainctl.arb.policy`, the board is the same board.

    async with AsyncReplicaClient({"users": ["http://10.0.0.11:8080", "http://10.0.0.12:8080"]}) as client:
        answer = await client.get("arb://users/query", params={"q": "name"})

Two differences from the session over requests: the connect limit holds once for the connection and once more
for TLS, and a machine's addresses are raced by anyio. Runs on asyncio.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from drainctl.arb.board import Board
from drainctl.arb.dial import vanishing
from drainctl.arb.errors import MaybeSent, NotSent
from drainctl.arb.faults import GONE, fault_of, kinds, raised
from drainctl.arb.in_flight import LOOK_S, Attempt
from drainctl.arb.policy import Fault, Policy
from drainctl.arb.replicas import Replicas
from drainctl.arb.shards import Machine

SILENT = (httpx.TimeoutException,)
STREAMED = "drainctl.arb.streamed"  # a request's extension: the caller reads the answer bit by bit


class HttpxNotSent(NotSent, httpx.ConnectError):
    """No machine got it."""


class HttpxConnectLimit(NotSent, httpx.ConnectTimeout):
    """No machine got it: the last one did not connect in time."""


class HttpxMaybeSent(MaybeSent, httpx.ReadError):
    """A machine may have got it."""


class HttpxNoAnswer(MaybeSent, httpx.ReadTimeout):
    """A machine has it, and did not answer within the read limit."""


class HttpxAnswerCut(MaybeSent, httpx.RemoteProtocolError):
    """A machine had it, and its answer ended too early."""


KINDS = kinds(
    HttpxNotSent,
    HttpxMaybeSent,
    {
        Fault.CONNECT_LIMIT: HttpxConnectLimit,
        Fault.TLS_LIMIT: HttpxConnectLimit,
        Fault.SILENT: HttpxNoAnswer,
        Fault.CUT: HttpxAnswerCut,
    },
)


class AsyncReplicaTransport(httpx.AsyncBaseTransport):
    """
    Sends the requests for a shard to the machine that is up. Mount it where the shard's URLs begin.

    Args:
        shards: shard → its machines' URLs, in the order in which they are asked.
        board: a `Board`, the path of a file that all processes of this machine share, or the URL of a board
            that all machines share (see `board_of`); None: this client alone.
        policy: limits and habits.
        probe: whether a thread of this process probes machines that are down, while nobody else does.
        pool: connections in all; None: no limit, since one that waits for a place waits for other machines.
        verify: as httpx takes it.
        cert: as httpx takes it.
    Raises: ValueError for shards that cannot be.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[str]],
        board: Board | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        *,
        probe: bool = True,
        pool: int | None = None,
        verify: Any = True,
        cert: Any = None,
    ) -> None:
        self._replicas = Replicas(shards, board, policy, probe=probe)
        self.shards = self._replicas.shards
        self.policy = self._replicas.policy
        self.board = self._replicas.board
        self.in_flight = self._replicas.in_flight
        if self._replicas.prober is not None and isinstance(verify, bool | str):
            self._replicas.prober.trust(verify, cert)
        limits = httpx.Limits(max_connections=pool, keepalive_expiry=self.policy.keep_s)
        options = vanishing(self.policy.dead_s)
        self._direct = httpx.AsyncHTTPTransport(
            verify=verify, cert=cert, limits=limits, socket_options=options
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """
        One request to whichever machine answers.

        Raises: NotSent or MaybeSent. Where the answer is streamed, what goes wrong after its head is httpx's
            own.
        """
        shard = self.shards.get(request.url.host)
        if shard is None:
            raise httpx.UnsupportedProtocol(f"{request.url}: no shard {request.url.host!r}", request=request)
        way = self._replicas.way(shard, request.method, str(request.url), request.headers)
        # An iterator that was read cannot be read again.
        whole = isinstance(request.stream, httpx.ByteStream)
        for attempt in way:
            try:
                response = await self._sent(attempt, attempt.machine, request)
            except (httpx.TransportError, _Moved) as error:
                cause: Exception = error
                fault = fault_of(error, attempt, silent=SILENT, connecting=_while_connecting)
                way.failed(attempt, fault, again=not fault.sent or whole)
            else:
                response.extensions["arb_machine"] = attempt.machine.name
                return response
        raise raised(KINDS, shard.name, way.course, request=request) from cause

    async def _sent(self, attempt: Attempt, machine: Machine, request: httpx.Request) -> httpx.Response:
        one = _readdressed(request, machine, self.policy, attempt)
        self.in_flight.begin(attempt)
        try:
            asking = self._whole(one, attempt, streamed=bool(request.extensions.get(STREAMED)))
            response = await (_moving(asking, attempt) if attempt.movable else asking)
        except BaseException:
            self.in_flight.drop(attempt)
            raise
        self.in_flight.end(attempt)
        return response

    async def _whole(self, request: httpx.Request, attempt: Attempt, *, streamed: bool) -> httpx.Response:
        """The answer, with its body unless that is streamed: here the replica can still be asked."""
        response = await self._direct.handle_async_request(request)
        attempt.answered = True
        if streamed:
            return response
        try:
            body = b"".join([part async for part in response.stream])  # type: ignore[union-attr]  # it is async
        finally:
            await response.aclose()
        kept = {name: value for name, value in response.extensions.items() if name != "network_stream"}
        return httpx.Response(
            response.status_code, headers=response.headers, stream=httpx.ByteStream(body), extensions=kept
        )

    async def aclose(self) -> None:
        """End the threads, close the connections."""
        self._replicas.close()
        await self._direct.aclose()


class AsyncReplicaClient(httpx.AsyncClient):
    """
    An httpx client that knows shards: `await client.get("arb://users/query")`. Other URLs go where they
    always went.

    Args:
        shards, board, policy, probe, pool: as `AsyncReplicaTransport` takes them.
        rest: what httpx.AsyncClient takes; without `timeout`, the policy's limits hold.
    """

    def __init__(
        self,
        shards: Mapping[str, Sequence[str]],
        board: Board | str | os.PathLike[str] | None = None,
        policy: Policy | None = None,
        *,
        probe: bool = True,
        pool: int | None = None,
        **rest: Any,
    ) -> None:
        tls = {name: rest[name] for name in ("verify", "cert") if name in rest}
        self.arb = AsyncReplicaTransport(shards, board, policy, probe=probe, pool=pool, **tls)
        limits = self.arb.policy
        rest.setdefault("timeout", httpx.Timeout(limits.read_s, connect=limits.connect_s))
        mounts = {**rest.pop("mounts", {}), "arb://": self.arb}
        super().__init__(mounts=mounts, **rest)

    async def send(self, request: httpx.Request, *, stream: bool = False, **rest: Any) -> httpx.Response:
        """As httpx; the transport is told whether the answer is streamed."""
        request.extensions = {**request.extensions, STREAMED: stream}
        return await super().send(request, stream=stream, **rest)


class _Moved(Exception):
    """The machine was found dead while we waited for it."""


async def _moving(asking: Any, attempt: Attempt) -> httpx.Response:
    """Waits for the answer; looks at the board now and then, and leaves a machine that was found dead."""
    task: asyncio.Task[httpx.Response] = asyncio.ensure_future(asking)
    try:
        while True:
            done, _ = await asyncio.wait((task,), timeout=LOOK_S)
            if done:
                return task.result()
            if attempt.hung or (not attempt.sent and attempt.learned()):
                attempt.fault = Fault.HUNG if attempt.sent else Fault.LEARNED
                raise _Moved(attempt.machine.name)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


def _readdressed(request: httpx.Request, machine: Machine, policy: Policy, attempt: Attempt) -> httpx.Request:
    """The same request to that machine, with our connect limit, and telling the attempt how far it comes."""
    where = httpx.URL(machine.url)
    url = request.url.copy_with(scheme=where.scheme, host=where.host, port=where.port)
    headers = request.headers.copy()
    headers["Host"] = where.netloc.decode()

    async def trace(event: str, _info: Mapping[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            attempt.reused = False
        elif event.endswith("send_request_headers.started"):
            attempt.sent = True

    asked = request.extensions.get("timeout", {})
    connect_s = min(policy.connect_s, asked.get("connect") or policy.connect_s)
    extensions = {**request.extensions, "timeout": {**asked, "connect": connect_s}, "trace": trace}
    return httpx.Request(request.method, url, headers=headers, stream=request.stream, extensions=extensions)


def _while_connecting(causes: tuple[BaseException, ...]) -> Fault:
    codes = {one.errno for one in causes if isinstance(one, OSError)}
    if isinstance(causes[0], httpx.ConnectTimeout):
        return Fault.CONNECT_LIMIT
    if errno.ECONNREFUSED in codes:
        return Fault.REFUSED
    if codes & GONE:
        return Fault.UNREACHABLE
    return Fault.TLS_FAILED if "SSL" in str(causes[0]) else Fault.LOCAL
