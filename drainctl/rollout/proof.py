"""
What the balancers' own counters say of a whole rollout: the proof printed at its end. Pure.

A balancer whose counters started anew (reload, restart) or could not be read makes the proof
inconclusive, never zero. And HAProxy does not count a kept-alive connection that closes without an
answer: only the client sees that one (docs/haproxy-facts.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drainctl.model import BackendRow, BalancerLook, Counters, Place


def proof(
    before: Mapping[str, BalancerLook],
    after: Mapping[str, BalancerLook],
    places: Mapping[str, tuple[Place, ...]],
    seconds: float,
) -> dict[str, Any]:
    """
    The data of a `proof` event: see docs/events.md.

    Counted are the BACKEND rows of every backend in which a node of the cluster stands; `haproxy_5xx` are
    the 5xx that HAProxy made itself. `failed` is None when inconclusive.
    """
    backends = {(place.balancer, place.backend) for found in places.values() for place in found}
    balancers: dict[str, Any] = {}
    inconclusive = [] if before else ["no balancer is configured, so nobody counted"]
    for name, old in before.items():
        wanted = {backend for balancer, backend in backends if balancer == name}
        new = after.get(name)
        told, why_not = _balancer(old, new, wanted)
        balancers[name] = told
        inconclusive += [f"{name} {why}" for why in why_not]
    failed = sum(_failed(told["errors"]) for told in balancers.values())
    return {
        "balancers": balancers,
        "inconclusive": inconclusive,
        "requests": sum(told["requests"] for told in balancers.values()),
        "failed": None if inconclusive else failed,
        "seconds": round(seconds, 3),
    }


def _balancer(
    old: BalancerLook, new: BalancerLook | None, wanted: set[str]
) -> tuple[dict[str, Any], list[str]]:
    if new is None or new.error or old.error:
        return _told(Counters(), 0, reset=True), [f"cannot be read: {new.error if new else 'not asked'}"]
    total, by_haproxy, why_not = Counters(), 0, []
    if old.process and new.process and old.process.pid != new.process.pid:
        why_not.append("runs as another process now: its counters began anew")
    for backend in sorted(wanted):
        was, now = _backend(old, backend), _backend(new, backend)
        if was is None or now is None:
            why_not.append(f"shows no backend {backend} any more")
            continue
        delta = now.counters.since(was.counters)
        if delta.fell:
            why_not.append(f"counts backend {backend} anew")
            continue
        by_servers = sum(
            _server_5xx(new, backend, row.server) - _server_5xx(old, backend, row.server)
            for row in new.rows
            if row.backend == backend
        )
        by_haproxy += max(0, delta.answered_5xx - by_servers)
        total = total.plus(delta)
    return _told(total, by_haproxy, reset=bool(why_not)), why_not


def _told(total: Counters, by_haproxy: int, *, reset: bool) -> dict[str, Any]:
    return {
        "requests": total.sessions,
        "errors": {
            "5xx": total.answered_5xx - by_haproxy,
            "haproxy_5xx": by_haproxy,
            "connect": total.connect_errors,
            "response": total.response_errors,
        },
        "retries": total.retries,
        "redispatches": total.redispatches,
        "reset": reset,
    }


def _failed(errors: Mapping[str, int]) -> int:
    """
    Requests that a client saw fail. A refused connection that was retried is none; a broken response that
    HAProxy answered with a 502 is counted once.
    """
    return errors["5xx"] + max(errors["haproxy_5xx"], errors["response"])


def _backend(look: BalancerLook, name: str) -> BackendRow | None:
    return next((row for row in look.backends if row.backend == name), None)


def _server_5xx(look: BalancerLook, backend: str, server: str) -> int:
    row = look.row(backend, server)
    return row.counters.answered_5xx if row else 0
