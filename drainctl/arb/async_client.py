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
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import httpx

from drainctl.arb.board import Board, MemoryBoard, fault_mark
from drainctl.arb.dial import vanishing
from drainctl.arb.errors import ArbError, MaybeSent, NotSent, told
from drainctl.arb.file_board import FileBoard
from drainctl.arb.in_flight import LOOK_S, Attempt, InFlight
from drainctl.arb.policy import Course, Fault, Policy, order, up
from drainctl.arb.prober import Prober
from drainctl.arb.shards import Machine, Shard, shards_of

GONE = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
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


KINDS: dict[Fault, type[ArbError]] = {
    Fault.CONNECT_LIMIT: HttpxConnectLimit,
    Fault.TLS_LIMIT: HttpxConnectLimit,
    Fault.SILENT: HttpxNoAnswer,
    Fault.CUT: HttpxAnswerCut,
}


class AsyncReplicaTransport(httpx.AsyncBaseTransport):
    """
    Sends the requests for a shard to the machine that is up. Mount it where the shard's URLs begin.

    Args:
        shards: shard → its machines' URLs, in the order in which they are asked.
        board: a `Board`, or the path of a file that all processes of this machine share; None: this client
            alone.
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
        self.shards = shards_of(shards)
        self.policy = policy or Policy()
        if board is None:
            board = MemoryBoard()
        self.board: Board = FileBoard(board) if isinstance(board, str | os.PathLike) else board
        self._opened = self.board if self.board is not board else None
        self._prober = Prober(self.shards, self.board, self.policy) if probe else None
        if self._prober is not None and isinstance(verify, bool | str):
            self._prober.trust(verify, cert)
        self.in_flight = InFlight(self.board, self._prober.start if self._prober else lambda: None)
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
        down = self.board.down()
        repeatable = self.policy.repeatable(request.method, str(request.url), request.headers)
        ways = order(shard, {name: mark.by_hand for name, mark in down.items()})
        course = Course(ways, repeatable)
        machine = course.machine
        while machine is not None:
            movable = repeatable and self.policy.move
            attempt = Attempt(machine.name, self.board, known_down=machine.name in down, movable=movable)
            try:
                response = await self._sent(attempt, machine, request)
            except (httpx.TransportError, _Moved) as error:
                cause: Exception = error
            else:
                response.extensions["arb_machine"] = machine.name
                return response
            machine = self._next(shard, course, machine, attempt, cause, request)
        raise _raised(shard.name, course, request) from cause

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

    def _next(
        self,
        shard: Shard,
        course: Course,
        machine: Machine,
        attempt: Attempt,
        error: Exception,
        request: httpx.Request,
    ) -> Machine | None:
        fault = _fault(error, attempt)
        took_s = time.monotonic() - attempt.began
        if course.failed(fault, reused=attempt.reused, took_s=took_s):
            self.board.mark(fault_mark(machine.name, f"{fault.words} ({took_s:.2f} s)", self.policy.hold_s))
        self.in_flight.lost(course.tries[-1])
        if course.machine is None:
            course.once_more(up(shard, self.board.down()))
        # An iterator that was read cannot be read again.
        again = not fault.sent or isinstance(request.stream, httpx.ByteStream)
        return course.machine if again else None

    async def aclose(self) -> None:
        """End the threads, close the connections."""
        self.in_flight.close()
        if self._prober is not None:
            self._prober.stop()
        if isinstance(self._opened, FileBoard):
            self._opened.close()
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
                raise _Moved(attempt.machine)
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


def _raised(shard: str, course: Course, request: httpx.Request) -> ArbError:
    fault = course.worst
    kind: Any = KINDS.get(fault, HttpxMaybeSent if fault.sent else HttpxNotSent)
    error: ArbError = kind(told(shard, course.tries, fault), request=request)
    error.shard, error.tries, error.fault = shard, tuple(course.tries), fault
    return error


def _fault(error: Exception, attempt: Attempt) -> Fault:
    """What went wrong with an attempt: by how far it came, then by what was raised."""
    if attempt.fault is not None:
        return attempt.fault
    codes = {one.errno for one in _chain(error) if isinstance(one, OSError)}
    if not attempt.sent:
        return _while_connecting(error, codes)
    if codes & GONE:
        return Fault.VANISHED
    if isinstance(error, httpx.TimeoutException):
        return Fault.SILENT
    return Fault.CUT if attempt.answered else Fault.CLOSED


def _while_connecting(error: Exception, codes: set[int | None]) -> Fault:
    if isinstance(error, httpx.ConnectTimeout):
        return Fault.CONNECT_LIMIT
    if errno.ECONNREFUSED in codes:
        return Fault.REFUSED
    if codes & GONE:
        return Fault.UNREACHABLE
    return Fault.TLS_FAILED if "SSL" in str(error) else Fault.LOCAL


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None:
            yield one
            waiting.append(one.__cause__ or one.__context__)
            waiting += one.exceptions if isinstance(one, BaseExceptionGroup) else []
