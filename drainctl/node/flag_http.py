"""The app's own flag over HTTP: PUT sets it, DELETE clears it (model.FlagHttp)."""

from __future__ import annotations

from drainctl.errors import CommandFailed, ConnectFailed


def send(method: str, url: str, text: str | None, timeout_s: float) -> str:
    """
    One request on a connection of its own; the first 4 kB of the answer.

    Raises: ConnectFailed (no answer: whether it was done is unknown), CommandFailed (any status but 2xx, and
    404 for a DELETE: a flag that is not there).
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    body = text.encode() if text is not None else None
    try:
        connection.request(
            method, target, body, {"Content-Type": "text/plain; charset=utf-8"} if body else {}
        )
        answer = connection.getresponse()
        said = answer.read(4096).decode(errors="replace")
    except (OSError, HTTPException) as error:
        raise ConnectFailed(
            f"{method} {url} within {timeout_s:g} s: {error or type(error).__name__}",
            left="whether the flag changed is unknown",
        ) from error
    finally:
        connection.close()
    if answer.status // 100 == 2 or (method == "DELETE" and answer.status == 404):
        return said
    raise CommandFailed(f"{method} {url} answered {answer.status} {answer.reason}: {said.strip()[:200]}")
