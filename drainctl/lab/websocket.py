"""One WebSocket of the load (RFC 6455): opened, a message every 0.2 s that must come back, closed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from asyncio import IncompleteReadError, StreamReader, StreamWriter

from drainctl.lab.client import End, attempt
from drainctl.lab.wire import Answer, Garbled, read_head

EVERY_S = 0.2
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
TEXT, CLOSE = 1, 8  # opcodes, section 5.2
GOODBYE = (1000).to_bytes(2, "big")  # "normal closure", section 7.4.1


async def talk(host: str, port: int, seconds: float, limit_s: float) -> End:
    """
    How a WebSocket at /ws ended that was to live for `seconds`. Each answer may take limit_s.

    Returns: the 101 where all came back and the server took leave when it was told to; another answer where
    there was no 101; else its bin: `cut` from the 101 on, `wrong_body` for another message than was sent.
    """
    opened = await attempt(asyncio.open_connection(host, port), limit_s)
    if isinstance(opened, End):
        return opened
    reader, writer = opened
    try:
        answer = await _open(reader, writer, limit_s)
        if isinstance(answer, End) or answer.status != 101:
            return answer if isinstance(answer, End) else End(answer)
        return await _converse(reader, writer, seconds, limit_s) or End(answer)
    finally:
        writer.transport.abort()


async def _open(reader: StreamReader, writer: StreamWriter, limit_s: float) -> Answer | End:
    """The opening handshake: section 4.1."""
    key = base64.b64encode(os.urandom(16))
    asked = b"GET /ws HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(asked + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n")
    try:
        async with asyncio.timeout(limit_s):
            head = await reader.readuntil(b"\r\n\r\n")
        answer, _ = read_head(head.removesuffix(b"\r\n\r\n"))
    except IncompleteReadError as error:
        return End(bin="cut" if error.partial else "closed", why="closed during the handshake")
    except OSError as error:
        return _lost(error, limit_s, "reset")
    except (Garbled, asyncio.LimitOverrunError) as error:
        return End(bin="garbled", why=str(error))
    due = base64.b64encode(hashlib.sha1(key + MAGIC, usedforsecurity=False).digest())
    if answer.status == 101 and answer.headers.get(b"sec-websocket-accept") != due:
        return End(bin="garbled", why="another Sec-WebSocket-Accept than was due")
    return answer


async def _converse(reader: StreamReader, writer: StreamWriter, seconds: float, limit_s: float) -> End | None:
    """None where every message came back and the close was answered."""
    began, number = time.monotonic(), 0
    try:
        while time.monotonic() - began < seconds:
            number += 1
            wrong = await _echoed(reader, writer, TEXT, b"message %d" % number, limit_s)
            if wrong is not None:
                return wrong
            await asyncio.sleep(EVERY_S)
        return await _echoed(reader, writer, CLOSE, GOODBYE, limit_s)
    except (IncompleteReadError, OSError) as error:
        end = _lost(error, limit_s, "cut")
        return End(
            bin=end.bin, why=f"{end.why}, {time.monotonic() - began:.1f} s of {seconds:g} s after its 101"
        )


async def _echoed(
    reader: StreamReader, writer: StreamWriter, opcode: int, message: bytes, limit_s: float
) -> End | None:
    """Sends a frame; None where the same comes back."""
    writer.write(_masked(opcode, message))
    async with asyncio.timeout(limit_s):
        head = await reader.readexactly(2)
        length = head[1] & 127
        if length > 125:
            return End(bin="garbled", why="a longer frame than any that was sent")
        came = head[0] & 15, await reader.readexactly(length)
    if came == (opcode, message):
        return None
    if came[0] == CLOSE:
        return End(bin="cut", why=f"the server closed it with code {int.from_bytes(came[1][:2], 'big')}")
    return End(bin="wrong_body", why=f"{came[1][:40]!r} came back, not {message!r}")


def _masked(opcode: int, message: bytes) -> bytes:
    """A client's frame of at most 125 bytes: section 5.2 and 5.3."""
    mask = os.urandom(4)
    hidden = bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))
    return bytes([128 | opcode, 128 | len(message)]) + mask + hidden


def _lost(error: Exception, limit_s: float, reset: str) -> End:
    """The end of a connection that was lost; `reset` is the bin for one that was not silent."""
    if isinstance(error, TimeoutError):
        return End(bin="timeout", why=f"nothing came back in {limit_s:.1f} s")
    return End(bin=reset, why=str(error) or "lost")
