"""
The lab's app: plain WSGI, nothing but the standard library. Each release archive carries a copy.

    GET  /              a short page                 GET /version   the release's id
    GET  /slow?s=0.5    the same, s seconds later    GET /healthz   "ok"
    GET  /stream?s=1&n=10   n lines over s seconds   GET /pid       the worker's process id
    POST /echo          the body, sent back          GET /ws        a WebSocket that sends back each message
    any answer          X-Release: the release's id

release.json next to this file says which release it is and how it misbehaves (see `drainctl.lab.releases`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs

RELEASE = json.loads(Path(__file__).with_name("release.json").read_text())
NODE = Path(__file__).resolve().parts[-5:-4]  # nodes/web1/srv/releases/v2/app.py
if RELEASE.get("only_on") and (RELEASE["only_on"],) != NODE:
    SOUND = dict.fromkeys(("fail_start", "die_after_s", "wrong_version", "pages_500", "slow_factor"), 0)
    RELEASE |= SOUND
VERSION: str = RELEASE["wrong_version"] or RELEASE["id"]
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
CLOSE, PING, PONG = 8, 9, 10  # opcodes, section 5.2
OWN_PAGES = {"/healthz", "/version", "/pid"}  # answered at once, and truthfully, whatever the release breaks


MASTER = os.getppid()
POSTS = Path(__file__).resolve().parents[2] / "shared" / "posts"  # one for all releases of a node


def _die() -> None:
    if os.getppid() == MASTER:  # another worker may have ended it; then our parent is a stranger
        os.kill(MASTER, signal.SIGKILL)  # first, or it would replace this worker
    os._exit(1)


def _start() -> None:
    time.sleep(RELEASE["start_s"])
    if RELEASE["fail_start"]:
        raise RuntimeError(f"release {RELEASE['id']} does not start")
    if RELEASE["die_after_s"]:
        timer = threading.Timer(RELEASE["die_after_s"], _die)
        timer.daemon = True
        timer.start()


def _lines(seconds: float, count: int) -> Iterator[bytes]:
    for number in range(count):
        time.sleep(seconds / count)
        yield b"%d\n" % number


def _body(environ: dict[str, Any]) -> bytes:
    body = bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
    if RELEASE["log_posts"]:
        with POSTS.open("ab", buffering=0) as file:  # one write: the lines of many processes stay whole
            file.write(body.partition(b" ")[0] + b"\n")
    return body


def _websocket(environ: dict[str, Any]) -> None:
    """Sends back what comes until the peer closes (RFC 6455). gunicorn's workers share their socket."""
    link = environ["gunicorn.socket"]
    told = hashlib.sha1((environ["HTTP_SEC_WEBSOCKET_KEY"] + MAGIC).encode(), usedforsecurity=False).digest()
    accept = base64.b64encode(told).decode()
    head = (
        f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nX-Release: {VERSION}"
    )
    link.sendall(f"HTTP/1.1 101 Switching Protocols\r\n{head}\r\n\r\n".encode())
    with link.makefile("rb") as stream:
        while (frame := _frame(stream)) is not None:
            opcode, message = frame
            link.sendall(_framed(PONG if opcode == PING else opcode, message))
            if opcode == CLOSE:
                return


def _frame(stream: IO[bytes]) -> tuple[int, bytes] | None:
    """A client's frame, always masked: opcode and message. None at the end."""
    head = stream.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 127
    if length > 125:
        length = int.from_bytes(stream.read(2 if length == 126 else 8), "big")
    mask, masked = stream.read(4), stream.read(length)
    return head[0] & 15, bytes(byte ^ mask[at % 4] for at, byte in enumerate(masked))


def _framed(opcode: int, message: bytes) -> bytes:
    """A frame to a client: whole, not masked."""
    length = len(message)
    if length <= 125:
        return bytes([128 | opcode, length]) + message
    return bytes([128 | opcode, 126]) + length.to_bytes(2, "big") + message


def _page(environ: dict[str, Any]) -> tuple[str, bytes | Iterator[bytes]]:
    path, asked = environ["PATH_INFO"], parse_qs(environ.get("QUERY_STRING", ""))
    seconds = float(asked.get("s", ["0.5"])[0])
    posted = _body(environ) if environ["REQUEST_METHOD"] == "POST" else b""
    if path not in OWN_PAGES:
        time.sleep(RELEASE["slow_factor"] * 0.01)
        if RELEASE["pages_500"]:
            return "500 Internal Server Error", b"this release is broken\n"
    body: bytes | Iterator[bytes]
    match path:
        case "/":
            body = f"shop, release {VERSION}\n".encode()
        case "/slow":
            time.sleep(seconds)
            body = f"shop, release {VERSION}, slowly\n".encode()
        case "/echo" if environ["REQUEST_METHOD"] == "POST":
            body = posted
        case "/ws" if "HTTP_SEC_WEBSOCKET_KEY" in environ:
            _websocket(environ)
            raise StopIteration  # gunicorn: the connection is done with, and nothing else is to be sent on it
        case "/stream":
            body = _lines(seconds, int(asked.get("n", ["10"])[0]))
        case "/healthz":
            body = b"ok\n"
        case "/version":
            body = f"{VERSION}\n".encode()
        case "/pid":
            body = f"{os.getpid()}\n".encode()
        case _:
            return "404 Not Found", b"no such page\n"
    return "200 OK", body


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    status, body = _page(environ)
    headers = [("Content-Type", "text/plain"), ("X-Release", VERSION)]
    if isinstance(body, bytes):
        headers.append(("Content-Length", str(len(body))))
        body = iter([body])
    start_response(status, headers)
    return body


_start()
