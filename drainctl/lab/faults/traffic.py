"""Users who make a drain hard: requests and WebSockets that outlast it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.faults import balancers
from drainctl.lab.faults.door import Fault, dismiss, said, stand_in

LONG_S = "30"
STAY_S = "8"
H2_PORT = "8081"
EACH = 6  # requests per node: where they go is the balancer's choice, and each node is to have some

Changes = Sequence[tuple[str, str]]


def _asked(
    kind: str, seconds: str = LONG_S, port: str = "8080", changes: Changes = (), each: int = EACH
) -> Callable[[Lab, str], str]:
    """Some to each node, through this balancer, whose haproxy.cfg is changed for them first."""

    def begin(lab: Lab, name: str) -> str:
        told = said(lab, f"{kind}-{name}")
        told.unlink(missing_ok=True)
        if changes:
            balancers.rewrite(lab, name, changes)
        count = str(each * lab.settings.nodes)
        stand_in(lab, f"{kind}-{name}", kind, lab.settings.host(name), port, seconds, count)
        return f"{count} for {seconds} s; what becomes of them: {told}"

    return begin


def _ended(kind: str) -> Callable[[Lab, str], None]:
    def end(lab: Lab, name: str) -> None:
        dismiss(lab, f"{kind}-{name}")
        said(lab, f"{kind}-{name}").unlink(missing_ok=True)
        balancers.as_before(lab, name)

    return end


def drained(lab: Lab) -> None:
    """Every node but the first is taken out of rotation by hand: that one is the last that is UP."""
    from drainctl.lab.faults.nodes import flag_by_hand

    for node in lab.settings.node_names[1:]:
        flag_by_hand(lab, node)


def last_up(lab: Lab, name: str) -> None:
    del name
    drained(lab)
    others = lab.settings.node_names[1:]
    for lb in lab.settings.balancer_names:
        service = lab.balancer(lb)
        ready.wait((service,), lambda lb=lb: _still_up(lab, lb, others), lab.limit_s)  # type: ignore[misc]


def _still_up(lab: Lab, balancer: str, nodes: tuple[str, ...]) -> str | None:
    shown = ready.servers(lab.socket(balancer), lab.settings.app)
    up = [node for node in nodes if shown[node].startswith("UP")]
    return f"{', '.join(up)} up" if up else None


def all_up(lab: Lab, name: str) -> None:
    from drainctl.lab.faults.nodes import flag_gone

    del name
    for node in lab.settings.node_names:
        flag_gone(lab, node)


FAULTS = (
    Fault("long-requests", "traffic", "requests of 30 s to each node", _asked("get"), _ended("get")),
    Fault("websockets", "traffic", "WebSockets of 30 s to each node", _asked("ws"), _ended("ws")),
    Fault(
        "cookie-clients",
        "traffic",
        "clients who stay with their server by a cookie, for 8 s",
        _asked("stay", STAY_S, changes=balancers.COOKIE, each=2),
        _ended("stay"),
    ),
    Fault(
        "stick-clients",
        "traffic",
        "clients who stay with their server by a stick table, for 8 s",
        _asked("stay", STAY_S, changes=balancers.STICK, each=2),
        _ended("stay"),
    ),
    Fault(
        "h2-clients",
        "traffic",
        "connections of HTTP/2 with three requests at a time, for 8 s",
        _asked("h2", STAY_S, H2_PORT, balancers.H2, each=2),
        _ended("h2"),
    ),
    Fault("last-server", "traffic", "every node but the first is out, by hand", last_up, all_up),
)
