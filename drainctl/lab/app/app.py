"""
The lab's app: plain WSGI, nothing but the standard library. Each release archive carries a copy.

    GET  /              a short page                 GET /version   the release's id
    GET  /slow?s=0.5    the same, s seconds later    GET /healthz   "ok"
    GET  /stream?s=1&n=10   n lines over s seconds   GET /pid       the worker's process id
    POST /echo          the body, sent back          any answer     X-Release: the release's id

release.json next to this file says which release it is and how it misbehaves (see `drainctl.lab.releases`).
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

RELEASE = json.loads(Path(__file__).with_name("release.json").read_text())
VERSION: str = RELEASE["wrong_version"] or RELEASE["id"]
OWN_PAGES = {"/healthz", "/version", "/pid"}  # answered at once, and truthfully, whatever the release breaks


MASTER = os.getppid()


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
    return bytes(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))


def _page(environ: dict[str, Any]) -> tuple[str, bytes | Iterator[bytes]]:
    path, asked = environ["PATH_INFO"], parse_qs(environ.get("QUERY_STRING", ""))
    seconds = float(asked.get("s", ["0.5"])[0])
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
            body = _body(environ)
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
