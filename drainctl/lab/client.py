"""One client connection: sends one request at a time and says how it ended. It never sends one twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from drainctl.lab.wire import Answer, Garbled, Reader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class End:
    """How one exchange ended: a whole answer, or a bin (see `drainctl.lab.report`) and a reason."""

    answer: Answer | None = None
    bin: str = ""
    why: str = ""


class Connection(asyncio.Protocol):
    """An open connection. `usable`: another request may be sent on it."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.uses = 0
        self.idle_since = 0.0
        self._reader = Reader()
        self._waiting: asyncio.Future[End] | None = None

    # ------------------------------------------------------------ for the generator

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def ask(self, data: bytes, limit_s: float) -> End:
        """Send a request and wait for its end, at most limit_s."""
        if self.transport is None:
            raise RuntimeError("ask() on a lost connection")
        loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._waiting = waiting = loop.create_future()
        timer = loop.call_later(
            limit_s, self._end, End(bin="timeout", why=f"no whole answer in {limit_s:.1f} s")
        )
        self.uses += 1
        self.transport.write(data)
        end: End = await waiting
        timer.cancel()
        self.idle_since = time.monotonic()
        if end.answer is None or not end.answer.keep:
            self.drop()
        return end

    def drop(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    # ------------------------------------------------------------ for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # create_connection makes a Transport

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self.drop()  # bytes that nobody asked for: no request may be sent after them
            return
        try:
            answer = self._reader.feed(data)
        except Garbled as error:
            self._end(End(bin="garbled", why=str(error)))
            return
        if answer is not None:
            self._end(End(answer))

    def eof_received(self) -> bool:
        answer = self._reader.end() if self._waiting else None
        if answer is not None:
            self._end(End(answer))
        else:
            self._end(self._lost("closed", "closed in good order"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._end(self._lost("reset", str(exc or "lost")))

    def _lost(self, before_first_byte: str, why: str) -> End:
        return End(bin="cut" if self._reader.began else before_first_byte, why=why)

    def _end(self, end: End) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(end)


async def connect(host: str, port: int, limit_s: float) -> Connection | End:
    """A new connection, or how the attempt ended."""
    made = await attempt(asyncio.get_running_loop().create_connection(Connection, host, port), limit_s)
    return made if isinstance(made, End) else made[1]


async def attempt(connecting: Awaitable[T], limit_s: float) -> T | End:
    """What `connecting` makes, or how the attempt ended."""
    try:
        async with asyncio.timeout(limit_s):
            return await connecting
    except ConnectionRefusedError as error:
        return End(bin="refused", why=error.strerror or "refused")
    except TimeoutError:
        return End(bin="timeout", why=f"not connected in {limit_s:.1f} s")
    except ConnectionResetError as error:
        return End(bin="reset", why=error.strerror or "reset")
    except OSError as error:
        return End(bin="not_sent", why=str(error))
