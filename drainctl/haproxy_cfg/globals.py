"""Lines of the global section. Source: HAProxy configuration.txt, "3. Global parameters"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Literal

from drainctl.haproxy_cfg.model import At, Global, Raw, StatsSocket
from drainctl.haproxy_cfg.values import address, seconds, whole
from drainctl.haproxy_cfg.words import Variables, in_address

LEVELS: dict[str, Literal["user", "operator", "admin"]] = {
    "user": "user",
    "operator": "operator",
    "admin": "admin",
}


def global_line(
    so_far: Global, words: tuple[str, ...], line: int, variables: Variables, note: Callable[[str], None]
) -> Global:
    """The global section with one more line."""
    try:
        match words:
            case ("stats", "socket", where, *rest):
                socket = _socket(in_address(where, variables), rest, line)
                return replace(so_far, sockets=(*so_far.sockets, socket))
            case ("server-state-file", path, *_):
                return replace(so_far, state_file=At(_below(so_far, path), line))
            case ("spread-checks", text, *_):
                return replace(so_far, spread_checks=At(whole(text), line))
            case ("hard-stop-after", text, *_):
                return replace(so_far, hard_stop_after=At(seconds(text), line))
            case ("nbproc", text, *_):
                return replace(so_far, nbproc=At(whole(text), line))
    except ValueError as error:
        note(f"`{words[0]}`: {error}")
    return replace(so_far, raw=(*so_far.raw, Raw(line, words)))


def _socket(where: str, rest: list[str], line: int) -> StatsSocket:
    pairs = dict(pairwise(rest))
    return StatsSocket(
        line, address(where), LEVELS.get(pairs.get("level", ""), "operator"), pairs.get("mode")
    )


def _below(so_far: Global, path: str) -> str:
    """A relative state file is below `server-state-base`, where that was said before."""
    base = [raw.words[1] for raw in so_far.raw if raw.words[0] == "server-state-base" and len(raw.words) > 1]
    return f"{base[-1].rstrip('/')}/{path}" if base and not path.startswith("/") else path
