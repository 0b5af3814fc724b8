"""What a run of the load generator is to do, and the requests that it is made of."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from drainctl.errors import ConfigError

MIX = "get=60,post=30,slow=3,stream=7"
KINDS = {"get", "post", "slow", "stream", "ws", "late"}


@dataclass(frozen=True, slots=True)
class Plan:
    """
    One run. It ends at `seconds` or `requests`, whichever is first (0: no such end), or when it is told.

    urls: `http://host:port`, shared evenly. clients: how many ask, each again as soon as it was answered
    (closed loop). rate: requests per second instead, sent when they are due whatever the answers do (open
    loop). mix: shares of get, post, slow, stream, ws (a WebSocket that lives for ws_s seconds) and late (a
    new connection that says nothing for late_s seconds, as browsers open some ahead; then a get). fresh:
    share of requests on a new connection. slow_s, stream_s: how long these pages take. timeout_s: limit of
    one request. expect: the version that alone may answer once the run is told that the rollout has ended.
    seed: of the order of kinds.
    """

    urls: tuple[str, ...]
    clients: int = 16
    rate: float = 0.0
    seconds: float = 0.0
    requests: int = 0
    mix: str = MIX
    fresh: float = 0.1
    slow_s: float = 1.0
    stream_s: float = 0.3
    ws_s: float = 6.0
    late_s: float = 1.0
    timeout_s: float = 15.0
    expect: str = ""
    seed: int = 1

    def __post_init__(self) -> None:
        targets(self.urls)
        shares(self.mix)
        if self.clients < 1 or self.rate < 0 or not 0 <= self.fresh <= 1 or self.timeout_s <= 0:
            raise ConfigError(
                "load needs 1 client or more, a rate of 0 or more, fresh in 0–1, a timeout above 0 s"
            )


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes to send, and the body that must come back (None: any)."""

    kind: str
    data: bytes
    body: bytes | None = None


def targets(urls: tuple[str, ...]) -> tuple[tuple[str, str, int], ...]:
    """(url, host, port) of each. Raises: ConfigError."""
    from urllib.parse import urlsplit

    found = []
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise ConfigError(f"{url!r} is not like http://host:port")
        found.append((url, parts.hostname, parts.port or 80))
    if not found:
        raise ConfigError("load needs a URL")
    return tuple(found)


def shares(mix: str) -> dict[str, int]:
    """`get=60,post=30` → {"get": 60, "post": 30}. Raises: ConfigError."""
    found = {}
    for part in mix.split(","):
        kind, _, share = part.strip().partition("=")
        if kind not in KINDS or not share.isdigit():
            raise ConfigError(f"mix {mix!r}: {part!r} is not {'=, '.join(sorted(KINDS))}= and a whole number")
        found[kind] = int(share)
    if not sum(found.values()):
        raise ConfigError(f"mix {mix!r} has no share above 0")
    return found


def stream_of(plan: Plan, host: str) -> Iterator[Request]:
    """Requests without end, in an order that the seed fixes. Every POST has a body of its own."""
    mixed = shares(plan.mix)
    chance = random.Random(plan.seed)  # noqa: S311  an order, not a secret
    kinds = list(mixed)
    order = chance.choices(kinds, weights=[mixed[kind] for kind in kinds], k=997)
    padding = chance.randbytes(4096).hex().encode()
    lines = b"".join(b"%d\n" % number for number in range(10))
    fixed = {
        "get": Request("get", _get("/", host)),
        "late": Request("late", _get("/", host)),
        "ws": Request("ws", b""),  # drainctl.lab.websocket says what is sent
        "slow": Request("slow", _get(f"/slow?s={plan.slow_s:g}", host)),
        "stream": Request("stream", _get(f"/stream?s={plan.stream_s:g}&n=10", host), lines),
    }
    number = 0
    while True:
        for kind in order:
            number += 1
            if kind == "post":
                # 16 bytes to 4 kB, never the same twice: an answer to someone else's POST is a wrong one.
                body = b"%015d " % number + padding[: number * 37 % 4096]
                yield Request(kind, _post("/echo", host, body), body)
            else:
                yield fixed[kind]


def _get(path: str, host: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def _post(path: str, host: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
