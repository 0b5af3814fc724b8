"""
/http-check inside the app: 404 while the flag is there, else what the app itself says.

    application = HttpCheck(application, flag="/srv/shop/shared/drain")             # WSGI
    application = HttpCheckASGI(application, flag="/srv/shop/shared/drain")         # ASGI

`health` is called for each check: True or None is 200, False or an exception 503. For ASGI it may be async.
Everything else goes to the app untouched, lifespan and websockets too.

A flag that cannot be looked for (its folder may not be searched, its disk fails) counts as *not set*, and
the answer says so in `X-Drainctl-Flag: unreadable`. The other way round, one wrong mode or one hanging
share would take every server out of rotation at once; this way only the next rollout stops, at its first
step, since drainctl sees that the flag does not turn the check to 404 before it touches anything.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]
Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
Health = Callable[[], bool | None]
AsyncHealth = Callable[[], bool | Awaitable[bool | None] | None]
Headers = list[tuple[str, str]]

_REASONS = {200: "200 OK", 404: "404 Not Found", 503: "503 Service Unavailable"}


class HttpCheck:
    """The middleware for WSGI (PEP 3333). `path` is compared with PATH_INFO."""

    def __init__(
        self, app: WsgiApp, flag: str, path: str = "/http-check", health: Health | None = None
    ) -> None:
        self._app = app
        self._flag = flag
        self._path = path
        self._health = health

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != self._path:
            return self._app(environ, start_response)
        text, headers = _flag(self._flag)
        status, body = (404, text) if text is not None else self._ask()
        start_response(_REASONS[status], _headers(headers, body))
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    def _ask(self) -> tuple[int, bytes]:
        try:
            return _said(self._health() if self._health else None)
        except Exception as error:  # noqa: BLE001 - an app that cannot tell is not healthy
            return _failed(error)


class HttpCheckASGI:
    """The middleware for ASGI 3. `path` is compared with scope["path"]."""

    def __init__(
        self, app: AsgiApp, flag: str, path: str = "/http-check", health: AsyncHealth | None = None
    ) -> None:
        self._app = app
        self._flag = flag
        self._path = path
        self._health = health

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        text, headers = _flag(self._flag)
        status, body = (404, text) if text is not None else await self._ask()
        raw = [(name.lower().encode(), value.encode()) for name, value in _headers(headers, body)]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _ask(self) -> tuple[int, bytes]:
        try:
            said = self._health() if self._health else None
            return _said(await said if isinstance(said, Awaitable) else said)
        except Exception as error:  # noqa: BLE001 - an app that cannot tell is not healthy
            return _failed(error)


def _flag(path: str) -> tuple[bytes | None, Headers]:
    """The flag's text (b"" where only that may not be read), or None, with what there is to say about it."""
    try:
        os.stat(path)  # noqa: PTH116 - pathlib would be the only import of weight here
    except (FileNotFoundError, NotADirectoryError):
        return None, []
    except OSError:
        return None, [("X-Drainctl-Flag", "unreadable")]
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            return file.read(4096), []
    except FileNotFoundError:  # taken away just now
        return None, []
    except OSError:
        return b"", []


def _headers(more: Headers, body: bytes) -> Headers:
    return [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        *more,
    ]


def _said(health: bool | None) -> tuple[int, bytes]:
    return (503, b"not healthy\n") if health is False else (200, b"ok\n")


def _failed(error: Exception) -> tuple[int, bytes]:
    return 503, f"not healthy: {type(error).__name__}\n".encode()
