"""
`checks`: HAProxy's check timings of some servers, the slowest of each where they differ. Pure.

Slower is the safe side: the limits of drainctl's steps follow from these, and it looks all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from drainctl.haproxy_cfg.model import At, Proxy, Server
from drainctl.init.draft import Known
from drainctl.init.sight import Sight

Place = tuple[Sight, Proxy, Server]

# drainctl.yml's key → the server's setting, and what HAProxy takes where nothing is said.
USUAL: dict[str, float] = {"inter": 2.0, "fall": 3, "rise": 2}
DURATIONS = ("inter", "timeout", "downinter", "slowstart")


def timings(places: Sequence[Place]) -> dict[str, Known]:
    """Keys of `checks`, each with the line that says it; one that HAProxy's default holds for is left out."""
    said: dict[str, list[tuple[float, str]]] = {}
    for sight, proxy, server in places:
        if server.settings.check is None:
            continue
        for key, at in _settings(sight, proxy, server):
            number = at.value if at is not None else USUAL.get(key)
            if number is not None:
                where = sight.where(at.line) if at is not None else "HAProxy's default"
                said.setdefault(key, []).append((number, where))
    return {key: _slowest(key, found) for key, found in said.items() if _differs(key, found)}


def _settings(sight: Sight, proxy: Proxy, server: Server) -> Iterator[tuple[str, At[float] | At[int] | None]]:
    settings = server.settings
    yield "inter", settings.inter
    yield "timeout", proxy.settings.timeouts.get("check")
    yield "fall", settings.fall
    yield "rise", settings.rise
    yield "downinter", settings.downinter
    yield "spread", sight.cfg.global_.spread_checks
    yield "slowstart", settings.slowstart


def _differs(key: str, found: Sequence[tuple[float, str]]) -> bool:
    return key == "inter" or any(number != USUAL.get(key) for number, _ in found)


def _slowest(key: str, found: Sequence[tuple[float, str]]) -> Known:
    number, where = max(found, key=lambda one: one[0])
    text = duration(number) if key in DURATIONS else str(int(number))
    return Known(text, where + (", the slowest of several" if len({one for one, _ in found}) > 1 else ""))


def duration(seconds: float) -> str:
    """As drainctl.yml writes it, never shorter: `1s`, `1500ms`."""
    ms = math.ceil(round(seconds * 1000, 3))
    return f"{ms // 1000}s" if ms % 1000 == 0 else f"{ms}ms"
