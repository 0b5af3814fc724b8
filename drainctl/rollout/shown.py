"""What balancers show of a node, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from drainctl.model import BalancerLook, Place, ServerRow


def rows_as_text(places: Iterable[Place], looks: Mapping[str, BalancerLook]) -> list[str]:
    """
    A line per place where the node stands: `lb1 shop/web2: NOLB 1/2, L7STS 404, 2 in flight, …`.

    Nothing for a balancer that was not looked at; where it could not be read, or has no such server, that.
    The counters are those since HAProxy started.
    """
    return [f"{place}: {_shown(looks[place.balancer], place)}" for place in places if place.balancer in looks]


def _shown(look: BalancerLook, place: Place) -> str:
    if look.error:
        return f"cannot be read: {look.error}"
    row = look.row(place.backend, place.server)
    return _row(row) if row else "no such server"


def _row(row: ServerRow) -> str:
    check = f"{row.check} {row.check_code or ''}".strip() or "no check result"
    count = row.counters
    return (
        f"{row.status}, {check}, {row.scur} in flight, {row.qcur} queued, {count.sessions} sessions, "
        f"{count.answered_5xx} 5xx, {count.connect_errors} econ, {count.response_errors} eresp"
    )
